"""A tiny copy of both archives' layouts, two or three cases of a phantom chest, goes the whole way."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tools.__main__ import app
from tools.data import lung_ct
from tools.data import prepared as prepared_module
from tools.data.lung_ct import prepare
from tools.data.lung_ct_layout import CASES, find_scans

GRID = np.array([[-1.75, 0, 0, 20], [0, -1.25, 0, 15], [0, 0, 1.75, -30], [0, 0, 0, 1]])  # LPS
TWO = ("0001", "0002")


def chest(case: int, phase: int) -> tuple[np.ndarray, np.ndarray]:
    """Two lungs of air in soft tissue, larger in inspiration; HU and mask with the sides told apart."""
    points = np.indices((20, 18, 16)) - np.array([9.5, 8.5, 7.5]).reshape(3, 1, 1, 1)
    reach = 6.0 + 0.3 * case + phase
    sides = [((points - np.array([x, 0, 0]).reshape(3, 1, 1, 1)) ** 2).sum(0) < reach**2 / 2 for x in (-5, 5)]
    mask = 1 * sides[0] + 2 * sides[1] * ~sides[0]
    return (np.where(mask > 0, -820, 40) + 15 * np.cos(points[2])).astype(np.int16), mask.astype(np.uint8)


def write(array, path, affine=GRID):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def learn2reg(raw, cases=TWO, offset=0):
    """Learn2Reg's archive, with keypoints."""
    for case in cases:
        for phase in (0, 1):
            name = f"LungCT_{case}_000{phase}"
            image, mask = chest(int(case), phase)
            write(image + np.int16(offset), raw / "imagesTr" / f"{name}.nii.gz")
            write(mask, raw / "masksTr" / f"{name}.nii.gz")
            (raw / "keypointsTr").mkdir(exist_ok=True)
            (raw / "keypointsTr" / f"{name}.csv").write_text(f"5.5,6.25,{4 + phase}\n7,8,9\n")
    return raw


def zenodo(raw, cases=TWO):
    """Zenodo's archive, the same scans."""
    for case in cases:
        for phase, word in enumerate(("exp", "insp")):
            for array, folder in zip(chest(int(case), phase), ("scans", "lungMasks"), strict=True):
                write(array, raw / "training" / folder / f"case_{case[1:]}_{word}.nii.gz")
    return raw


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return learn2reg(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare(str(raw), str(out), workers=1, cases=TWO)
    return out


@pytest.fixture
def copy(raw, tmp_path):
    """A raw folder that a test may spoil."""
    return shutil.copytree(raw, tmp_path / "copy")


def test_the_whole_data_set_has_8_pairs_of_a_patient_and_56_of_two(tmp_path):
    testing = lung_ct.pairs(find_scans(learn2reg(tmp_path, CASES)))
    names = [(p["fixed"][-19:-7], p["moving"][-19:-7]) for p in testing]
    intra = [(f, m) for f, m in names if f[3:7] == m[3:7]]
    assert len(testing) == len(set(names)) == 64 and len(intra) == 8
    assert all(f.endswith("_0000") and m.endswith("_0001") for f, m in intra)
    assert all(f.endswith("_0000") and m.endswith("_0000") for f, m in set(names) - set(intra))
    assert {f[3:7] for f, _ in names} == {m[3:7] for _, m in names} == set(CASES)


def test_the_datalist_keeps_its_contract(prepared):
    header = read_header(str(prepared))
    assert (header["name"], header["orientation"], header["spacing_mm"]) == ("lung_ct", "LPS", [1.75, 1.25, 1.75])
    assert header["labels"] == {1: "lung"} and "CC BY" in header["licence"]
    assert header["intensity"] == "Hounsfield units, -1000 to 500 mapped to [0, 1], clipped"
    pairs = read_datalist(str(prepared), "testing")
    check_datalist(pairs)
    assert [("fixed_keypoints" in p, "moving_keypoints" in p) for p in pairs] == [(True, True)] * 2 + [
        (False, False)
    ] * 2
    assert all(p["fixed_mask"] == p["fixed_label"] and p["moving_mask"] == p["moving_label"] for p in pairs)


def test_images_are_windowed_on_their_own_grid_and_labels_are_the_whole_lung(prepared):
    hu, mask = chest(2, 1)
    image, label = (nib.load(prepared / kind / "LungCT_0002_0001.nii.gz") for kind in ("images", "labels"))
    np.testing.assert_allclose(image.get_fdata(), np.clip((hu + 1000.0) / 1500, 0, 1), atol=1e-6)
    np.testing.assert_allclose(image.affine, GRID)
    assert ((np.asarray(label.dataobj) == 1) == (mask > 0)).all() and label.get_data_dtype() == np.uint8


def test_the_report_has_a_row_a_scan(prepared):
    rows = list(csv.DictReader((prepared / "report.csv").open()))
    assert [row["id"] for row in rows] == [f"LungCT_{c}_{p}" for c in TWO for p in ("0000", "0001")]
    volume = (chest(1, 0)[1] > 0).sum() * 1.75 * 1.25 * 1.75 / 1000
    assert float(rows[0]["lung_ml"]) == pytest.approx(volume, abs=0.06)
    assert -840 < float(rows[0]["lung_median"]) < -800 and rows[0]["keypoints"] == "2"
    assert (prepared / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_from_nothing_writes_the_same_bytes(prepared, raw, tmp_path):
    prepare(str(raw), str(tmp_path), workers=1, cases=TWO)
    first, second = contents(prepared), contents(tmp_path)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_what_is_finished_is_not_done_again_unless_damaged(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)
    prepare(str(raw), str(tmp_path), workers=1, cases=TWO)
    before = contents(tmp_path)
    (tmp_path / "labels" / "LungCT_0001_0001.nii.gz").write_bytes(b"damaged")
    saved, save = [], lung_ct.save_nifti
    monkeypatch.setattr(lung_ct, "save_nifti", lambda *args: (saved.append(args[2].name), save(*args)))
    prepare(str(raw), str(tmp_path), workers=1, cases=TWO)
    assert saved == ["LungCT_0001_0001.nii.gz"] * 2 and contents(tmp_path) == before


def test_zenodos_names_give_the_same_images(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)
    prepare(str(zenodo(tmp_path / "raw")), str(tmp_path / "out"), workers=1, cases=TWO)
    for kind in ("images", "labels"):
        assert contents(tmp_path / "out" / kind) == contents(prepared / kind)
    assert "fixed_keypoints" not in json.loads((tmp_path / "out" / "datalist.json").read_text())["testing"][0]


def test_values_that_are_not_hounsfield_units_are_refused_or_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)
    raw = learn2reg(tmp_path / "raw", offset=1024)
    with pytest.raises(RegInputError, match="--intensity stored") as error:
        prepare(str(raw), str(tmp_path / "out"), workers=1, cases=TWO)
    assert str(error.value).count("Hounsfield") == 4 and not (tmp_path / "out").exists()
    prepare(str(raw), str(tmp_path / "out"), "stored", workers=1, cases=TWO)
    image = nib.load(tmp_path / "out" / "images" / "LungCT_0001_0000.nii.gz").get_fdata()
    np.testing.assert_allclose(image, (chest(1, 0)[0] + 1024.0 + 285) / 4055, atol=1e-6)
    assert "not Hounsfield units" in read_header(str(tmp_path / "out"))["intensity"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: (raw / "masksTr/LungCT_0002_0001.nii.gz").unlink(), "no mask of LungCT_0002_0001"),
        (lambda raw: (raw / "imagesTr/LungCT_0001_0000.nii.gz").write_bytes(b"x"), "LungCT_0001_0000"),
        (lambda raw: shutil.copytree(raw / "masksTr", raw / "again" / "masksTr"), "is there 2 times"),
        (lambda raw: write(chest(2, 0)[1], raw / "masksTr/LungCT_0002_0000.nii.gz", np.eye(4)), "expected that of"),
        (lambda raw: (raw / "keypointsTr/LungCT_0002_0000.csv").write_text("1,2,3\n"), "1 landmarks and"),
        (lambda raw: (raw / "keypointsTr/LungCT_0002_0000.csv").write_text("1,2,99\n1,2,3\n"), "outside its image"),
        (lambda raw: shutil.rmtree(raw / "imagesTr"), "no image of LungCT_0001_0000"),
    ],
)
def test_an_archive_that_is_not_whole_is_refused_before_any_work(copy, tmp_path, spoil, message):
    spoil(copy)
    with pytest.raises(RegInputError, match=message):
        prepare(str(copy), str(tmp_path / "out"), workers=1, cases=TWO)
    assert not (tmp_path / "out").exists()


def test_scans_of_another_spacing_are_refused(copy, tmp_path):
    image, mask = chest(2, 0)
    for array, folder in ((image, "imagesTr"), (mask, "masksTr")):
        write(array, copy / folder / "LungCT_0002_0000.nii.gz", np.diag([2.0, 2, 2, 1]))
    with pytest.raises(RegInputError, match="LungCT_0002_0000 has the orientation RAS"):
        prepare(str(copy), str(tmp_path / "out"), workers=1, cases=TWO)


def test_an_empty_folder_names_the_layouts(tmp_path):
    with pytest.raises(RegInputError, match=r"Learn2Reg.*Zenodo"):
        prepare(str(tmp_path), str(tmp_path / "out"))


def test_an_unknown_intensity_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="hounsfield, stored"):
        prepare(str(tmp_path), str(tmp_path / "out"), "hu")


def test_the_command_prepares_all_eight_cases(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)
    learn2reg(tmp_path / "raw", CASES)
    words = ["data", "prepare", "lung-ct", "--raw", tmp_path / "raw", "--out", tmp_path / "out", "--workers", "1"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0 and result.output.strip().endswith("datalist.json")
    assert len(read_datalist(str(tmp_path / "out"), "testing")) == 64
