"""A tiny copy of a Learn2Reg archive, with all that its json can say, goes the whole way."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.tools.data.challenge_archive import GRID, brain, contents, write, write_archive, write_lungs
from tests.tools.data.fetched import fetch_and_prepare
from tests.tools.data.overlays import take_a_step
from tools.__main__ import app
from tools.data import challenge
from tools.data import prepared as prepared_module
from tools.data.challenge import SOURCES, prepare
from tools.data.challenge_layout import read_challenge

SIZE = (32, 32, 32)  # what eoir's five levels can halve


@pytest.fixture(scope="module")
def lungs(tmp_path_factory):
    """Four patients in expiration and inspiration with masks and keypoints, two of them with landmarks too."""
    return write_lungs(tmp_path_factory.mktemp("lungs"))


@pytest.fixture(scope="module")
def prepared(lungs, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare(str(lungs), str(out), workers=1)
    return out


@pytest.fixture
def copy(lungs, tmp_path):
    """An archive that a test may spoil."""
    return shutil.copytree(lungs, tmp_path / "copy")


@pytest.fixture
def no_sheet(monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


def pairs_of(folder, section):
    return [
        tuple(Path(p[role]).name[7:16] for role in ("fixed", "moving")) for p in read_datalist(str(folder), section)
    ]


def test_the_pairs_are_the_archives_own_and_nobody_is_on_two_sides(prepared):
    assert pairs_of(prepared, "validation") == [(f"000{k}_0000", f"000{k}_0001") for k in (1, 2)]
    assert pairs_of(prepared, "training") == [(f"000{k}_0000", f"000{k}_0001") for k in (3, 4)]
    content = json.loads((prepared / "datalist.json").read_text())
    assert "testing" not in content and content["hidden_test_pairs"] == 1


def test_the_datalist_keeps_its_contract(prepared):
    header = read_header(str(prepared))
    assert (header["name"], header["modality"], header["orientation"]) == ("LungCT", "CT", "LPS")
    assert header["spacing_mm"] == [1.75, 1.25, 1.75] and header["labels"] == {1: "mask"}
    assert header["licence"] == "CC BY 4.0, cite us"
    for section in ("training", "validation"):
        items = read_datalist(str(prepared), section, check_files=True)
        parts = {f"{role}{part}" for role in ("fixed", "moving") for part in ("", "_label", "_mask", "_keypoints")}
        assert all(set(item) == parts and item["fixed_mask"] == item["fixed_label"] for item in items)


def test_validation_takes_landmarks_and_training_keypoints(prepared):
    def first(scan):
        return (prepared / "keypoints" / f"LungCT_{scan}.csv").read_text().splitlines()[0]

    assert [first(f"000{k}_0000").split(",")[2] for k in (1, 2, 3, 4)] == ["2.5", "2.5", "4", "4"]  # landmarks: 2.5


def test_values_and_grid_stay_as_stored_and_masks_become_one_label(prepared, lungs):
    for kind, folder in (("images", "imagesTr"), ("labels", "masksTr")):
        mine, theirs = (nib.load(p / "LungCT_0003_0001.nii.gz") for p in (prepared / kind, lungs / "LungCT" / folder))
        expected = np.asarray(theirs.dataobj)
        np.testing.assert_array_equal(np.asarray(mine.dataobj), expected if kind == "images" else expected > 0)
        np.testing.assert_allclose(mine.affine, GRID)
    assert mine.get_data_dtype() == np.uint8 and set(np.unique(theirs.dataobj)) == {0, 1, 2}


def test_the_report_has_a_row_a_scan(prepared):
    rows = list(csv.DictReader((prepared / "report.csv").open()))
    assert [row["id"] for row in rows] == [f"LungCT_000{k}_000{m}" for k in (1, 2, 3, 4) for m in (0, 1)]
    assert rows[0]["size"] == "12 10 9" and rows[0]["points"] == "3" and rows[0]["labels_found"] == "1"
    assert (prepared / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_from_nothing_writes_the_same_bytes(prepared, lungs, tmp_path, no_sheet):
    prepare(str(lungs), str(tmp_path), workers=1)
    assert contents(tmp_path) == contents(prepared)


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes(prepared, lungs, tmp_path, no_sheet):
    prepare(str(lungs), str(tmp_path), workers=2)
    assert contents(tmp_path) == contents(prepared)


def test_what_is_finished_is_not_done_again_unless_damaged(prepared, lungs, tmp_path, monkeypatch, no_sheet):
    out = shutil.copytree(prepared, tmp_path / "out")
    (out / "images" / "LungCT_0002_0000.nii.gz").write_bytes(b"damaged")
    saved, save = [], challenge.save_nifti
    monkeypatch.setattr(challenge, "save_nifti", lambda *args: (saved.append(args[2].name), save(*args)))
    prepare(str(lungs), str(out), workers=1)
    assert saved == ["LungCT_0002_0000.nii.gz"] * 2 and contents(out) == contents(prepared)  # image and label


def change(raw, **values):
    path = raw / "LungCT" / "LungCT_dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def image(scan):
    return f"./imagesTr/LungCT_{scan}.nii.gz"


PAIR = {"fixed": image("0001_0000"), "moving": image("0001_0001")}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {}}, "has training of type dict, expected a list of objects"),
        ({"training": [7]}, r"training\[0\] of type int"),
        ({"training": [{"image": 7}]}, "has image in training 7, expected a path"),
        ({"training": [{"image": "../../secret.nii.gz"}]}, "expected a path below its own folder"),
        ({"training": [{"image": "./imagesTr/../../x.nii.gz"}]}, "expected a path below its own folder"),
        ({"training": [{"image": image("0009_0000")}]}, "LungCT_0009_0000.nii.gz', which is not there"),
        ({"training": [{"image": image("0003_0000"), "mask": "./masksTr/no.nii.gz"}]}, "has mask in training"),
        ({"training": [{"image": image("0003_0000")}] * 2}, "names the scan LungCT_0003_0000 in training again"),
        ({"registration_val": [PAIR] * 2}, "the pair LungCT_0001_0000, LungCT_0001_0001 2 times"),
        ({"registration_val": [PAIR | {"moving": PAIR["fixed"]}]}, "as fixed and moving in registration_val"),
        ({"registration_val": [{"fixed": PAIR["fixed"]}]}, "has moving in registration_val None"),
        ({"registration_test": [PAIR]}, "validates and tests on LungCT_0001_0000, LungCT_0001_0001"),
        ({"registration_test": [PAIR | {"moving": image("0031_0001")}]}, "has a pair in registration_test with"),
        ({"tensorImageShape": {"0": [1, "x"]}}, "has tensorImageShape"),
        ({"labels": {"0": {"lung": 1}}}, "has labels"),
        ({"name": 3}, "has name 3, expected a text"),
        ({"tensorImageShape": {"0": [9, 9, 9]}}, r"has \(12, 10, 9\) voxels, expected \(9, 9, 9\)"),
    ],
)
def test_what_the_json_says_wrong_is_refused_before_any_work(copy, tmp_path, values, message):
    change(copy, **values)
    with pytest.raises(RegInputError, match=message):
        prepare(str(copy), str(tmp_path / "out"), workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: (raw / "imagesTr/LungCT_0001_0000.nii.gz").write_bytes(b"x"), "LungCT_0001_0000"),
        (lambda raw: (raw / "landmarksTr/LungCT_0002_0000.csv").write_text("1,2,3\n"), "1 landmarks and"),
        (lambda raw: (raw / "keypointsTr/LungCT_0003_0000.csv").write_text("1,2,99\n" * 3), "outside its image"),
        (lambda raw: write(brain(3)[0], raw / "imagesTr/LungCT_0003_0000.nii.gz", np.eye(4)), "expected that of"),
        (lambda raw: (raw / "My_dataset.json").write_text("{}"), "2 files under"),
        (lambda raw: (raw / "LungCT_dataset.json").write_text("[]"), "holds a JSON list"),
        (lambda raw: (raw / "LungCT_dataset.json").write_text('{"name": 1, "name": 2}'), "key 'name' is there twice"),
        (lambda raw: (raw / "LungCT_dataset.json").unlink(), r"no \*_dataset.json found"),
    ],
)
def test_an_archive_that_is_not_whole_is_refused_before_any_work(copy, tmp_path, spoil, message):
    spoil(copy / "LungCT")
    with pytest.raises(RegInputError, match=message):
        prepare(str(copy), str(tmp_path / "out"), workers=1)
    assert not (tmp_path / "out").exists()


def test_all_findings_come_at_once(copy, tmp_path):
    change(copy, name=3, registration_val=[PAIR, PAIR], training=[{"image": "../x"}, {"image": image("0009_0000")}])
    with pytest.raises(RegInputError, match="4 findings") as error:
        prepare(str(copy), str(tmp_path / "out"))
    for word in ("name 3", "2 times", "'../x'", "LungCT_0009_0000"):
        assert word in str(error.value)


def test_damaged_scans_are_all_named(copy, tmp_path):
    for scan in ("0001_0001", "0004_0000"):
        (copy / "LungCT" / "imagesTr" / f"LungCT_{scan}.nii.gz").write_bytes(b"")
    with pytest.raises(RegInputError, match=r"0001_0001.*0004_0000"):
        prepare(str(copy), str(tmp_path / "out"))


@pytest.fixture(scope="module")
def oasis(tmp_path_factory):
    """As released: every labelled scan is listed under training, also those to validate on; test scans are hidden."""
    raw, out = (tmp_path_factory.mktemp(name) for name in ("oasis", "prepared_oasis"))
    scans = {f"OASIS_{k:04}_0000": dict(zip(("image", "label"), brain(k, SIZE), strict=True)) for k in range(1, 7)}
    names = list(scans)
    write_archive(
        raw,
        "OASIS",
        scans,
        labels={"0": {"0": "background", "1": "Left-Cortex", "2": "Right-Cortex", "5": "rare"}},
        registration_val=[(names[4], names[5])],
        registration_test=[("OASIS_0415_0000", "OASIS_0416_0000")],
    )
    prepare(str(raw), str(out), workers=1)
    return out


def test_oasis_trains_on_scans_and_validates_on_pairs(oasis):
    items = read_datalist(str(oasis), "training")
    assert [Path(item["image"]).name for item in items] == [f"OASIS_{k:04}_0000.nii.gz" for k in (1, 2, 3, 4)]
    assert all(set(item) == {"image", "label"} for item in items)
    check_datalist(read_datalist(str(oasis), "validation"))
    assert read_header(str(oasis))["labels"] == {1: "Left-Cortex", 2: "Right-Cortex", 5: "rare"}


def test_labels_that_lack_or_have_no_name_are_told(oasis):
    row = next(csv.DictReader((oasis / "report.csv").open()))
    assert (row["labels_found"], row["labels_missing"], row["labels_unnamed"]) == ("3", "5", "3")


def test_eoirs_overlay_takes_a_training_step_on_oasis(oasis):
    fixed = take_a_step("oasis", oasis)["fixed"]
    assert fixed.min() == 0 and fixed.max() == 1


def test_a_table_named_by_its_images_ending_and_paths_from_the_root_are_found(copy):
    path = copy / "LungCT" / "LungCT_dataset.json"
    path.write_text(path.read_text().replace(".csv", ".nii.gz").replace('"./', '"/'))
    scan = read_challenge(copy).scans["LungCT_0003_0000"]
    assert scan.keypoints == copy / "LungCT" / "keypointsTr" / "LungCT_0003_0000.csv" and scan.image.is_file()


def test_a_description_may_lie_beside_the_archives_folder(copy):
    (copy / "LungCT" / "LungCT_dataset.json").rename(copy / "LungCT_dataset.json")
    assert read_challenge(copy).root == copy / "LungCT"


def test_the_command_prepares_a_named_archive(lungs, tmp_path, no_sheet):
    from typer.testing import CliRunner

    words = ["data", "prepare", "learn2reg", "--raw", lungs, "--out", tmp_path, "--name", "LungCT", "--workers", "1"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0 and result.output.strip().endswith("datalist.json")
    assert len(read_datalist(str(tmp_path), "validation")) == 2


def test_a_release_is_fetched_unpacked_and_prepared_by_one_call(lungs, prepared, tmp_path, no_sheet):
    source = next(source for source in SOURCES if source.name == "learn2reg-lung-ct")
    assert contents(fetch_and_prepare(source, lungs, tmp_path)) == contents(prepared)


def test_every_release_says_what_a_person_must_know():
    assert {source.name for source in SOURCES} == {"learn2reg-lung-ct", "learn2reg-oasis", "learn2reg-nlst"}
    assert all(source.license and source.citation and source.page.startswith("https://") for source in SOURCES)
