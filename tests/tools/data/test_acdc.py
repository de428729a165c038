"""A tiny copy of the archive's layout, three beating hearts, goes the whole way."""

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.tools.data.challenge_archive import contents
from tests.tools.data.overlays import take_a_step
from tools.__main__ import app
from tools.data import acdc
from tools.data import prepared as prepared_module
from tools.data.acdc import SIZE, prepare
from tools.data.acdc_layout import SPLIT

PATIENTS = {1: ("training", 9), 18: ("validation", 8), 101: ("testing", 10)}  # section and slices
GRID = np.diag([-1.5, -1.5, 10, 1])


def heart(radius: float, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """Left ventricle in a ring of muscle beside a right one, all slices alike; 40 x 36 voxels of 1.5 mm."""
    x, y = np.indices((40, 36)) - np.array([[[20.0]], [[18.0]]])
    ring = np.hypot(x, y)
    labels = np.where(np.hypot(x + 10, y) < radius, 1, 0)
    labels = np.where(ring < radius + 3, 2, labels)
    labels = np.where(ring < radius, 3, labels)
    image = 40 + 60 * (labels == 3) + 50 * (labels == 1) + 5 * np.cos(x / 4) * np.sin(y / 3)
    image, labels = (np.repeat(part[..., None], slices, axis=2) for part in (image, labels))
    labels[..., 0] = 0
    return image.astype(np.int16), labels.astype(np.uint8)


def write_patient(folder: Path, slices: int) -> None:
    folder.mkdir(parents=True)
    (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n")
    for frame, radius in (("01", 7), ("12", 5)):
        for array, end in zip(heart(radius, slices), ("", "_gt"), strict=True):
            nib.save(nib.Nifti1Image(array, GRID), folder / f"{folder.name}_frame{frame}{end}.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 2), np.int16), GRID), folder / f"{folder.name}_4d.nii.gz")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    for number, (part, slices) in PATIENTS.items():
        write_patient(folder / ("testing" if part == "testing" else "training") / f"patient{number:03}", slices)
    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare(str(raw), str(out), workers=1)
    return out


@pytest.fixture
def copy(raw, tmp_path):
    """A raw folder that a test may spoil."""
    return shutil.copytree(raw, tmp_path / "copy")


@pytest.fixture
def no_sheet(monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


def test_the_split_is_the_papers():
    assert {part: len(numbers) for part, numbers in SPLIT.items()} == {"training": 85, "validation": 15, "testing": 50}
    assert sorted(number for numbers in SPLIT.values() for number in numbers) == list(range(1, 151))
    assert SPLIT["validation"] == (18, 19, 20, 38, 39, 40, 58, 59, 60, 78, 79, 80, 98, 99, 100)


def test_the_datalist_has_both_directions_of_every_patient(prepared):
    header = read_header(str(prepared))
    assert (header["name"], header["orientation"], header["spacing_mm"]) == ("acdc", "LPS", [1.8, 1.8, 10])
    assert header["labels"] == {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    for number, (section, _) in PATIENTS.items():
        pairs = read_datalist(str(prepared), section)
        check_datalist(pairs)
        names = [tuple(Path(pair[role]).name[:13] for role in ("fixed", "moving")) for pair in pairs]
        diastole, systole = f"patient{number:03}_ED.", f"patient{number:03}_ES."
        assert names == [(diastole[:13], systole[:13]), (systole[:13], diastole[:13])]


def test_frames_are_resampled_about_their_middle_voxel(prepared, raw):
    image, label = (nib.load(prepared / kind / "patient001_ED.nii.gz") for kind in ("images", "labels"))
    assert image.shape == label.shape == SIZE == (128, 128, 16)
    np.testing.assert_allclose(image.header.get_zooms(), (1.8, 1.8, 10), atol=1e-5)
    middle = nib.affines.apply_affine(image.affine, (64, 64, 8))
    np.testing.assert_allclose(middle, nib.affines.apply_affine(GRID, (20, 18, 4)), atol=1e-4)
    voxels, values = image.get_fdata(), np.asarray(label.dataobj)
    assert voxels.min() == 0 and voxels.max() == 1 and label.get_data_dtype() == np.uint8
    raw_values = np.asarray(nib.load(raw / "training/patient001/patient001_frame01_gt.nii.gz").dataobj)
    ml = [(v > 0).sum() * np.prod(g) for v, g in ((values, (1.8, 1.8, 10)), (raw_values, (1.5, 1.5, 10)))]
    assert ml[0] == pytest.approx(ml[1], rel=0.05)


def test_slices_ten_mm_apart_are_not_mixed(prepared):
    values = np.asarray(nib.load(prepared / "labels" / "patient001_ED.nii.gz").dataobj)
    voxels = nib.load(prepared / "images" / "patient001_ED.nii.gz").get_fdata()
    assert values[..., :5].max() == 0 and (values[..., 5:13].max(axis=(0, 1)) == 3).all()  # raw slices 1 to 8
    assert values[..., 13:].max() == 0 and voxels[..., :4].max() == voxels[..., 13:].max() == 0
    np.testing.assert_array_equal(voxels[..., 4], voxels[..., 12])  # all nine alike, the outer ones unblurred


def test_the_report_has_a_row_a_frame(prepared):
    rows = list(csv.DictReader((prepared / "report.csv").open()))
    assert [row["id"] for row in rows] == [f"patient{n:03}_{phase}" for n in PATIENTS for phase in ("ED", "ES")]
    assert rows[0]["group"] == "DCM" and rows[0]["raw_spacing_mm"] == "1.5 1.5 10" and rows[0]["labels_found"] == "3"
    assert all(float(row["cut_percent"]) == 0 and row["labels_missing"] == "" for row in rows)
    assert (prepared / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_from_nothing_writes_the_same_bytes(prepared, raw, tmp_path, no_sheet):
    prepare(str(raw), str(tmp_path), workers=1)
    assert contents(tmp_path) == contents(prepared)


def test_what_is_finished_is_not_done_again_unless_damaged(prepared, raw, tmp_path, monkeypatch, no_sheet):
    out = shutil.copytree(prepared, tmp_path / "out")
    (out / "labels" / "patient018_ES.nii.gz").write_bytes(b"damaged")
    saved, save = [], acdc.save_nifti
    monkeypatch.setattr(acdc, "save_nifti", lambda *args: (saved.append(args[2].name), save(*args)))
    prepare(str(raw), str(out), workers=1)
    assert saved == ["patient018_ES.nii.gz"] * 2 and contents(out) == contents(prepared)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: (raw / "training/patient001/Info.cfg").unlink(), "gives no number of the frame for ED and ES"),
        (lambda raw: (raw / "training/patient001/Info.cfg").write_text("ED: x\nES: 12\n"), "frame for ED, expected"),
        (lambda raw: (raw / "training/patient018/patient018_frame12_gt.nii.gz").unlink(), "calls ES and its labels"),
        (lambda raw: (raw / "training/patient018/patient018_frame12.nii.gz").write_bytes(b"x"), "patient018_frame12"),
        (lambda raw: shutil.copytree(raw / "testing", raw / "again"), "patient 101 is there 2 times"),
        (lambda raw: (raw / "training/patient001").rename(raw / "training/patient151"), "in no part of the split"),
        (lambda raw: relabel(raw / "testing/patient101/patient101_frame01_gt.nii.gz"), r"has the labels \[7\]"),
        (lambda raw: shift(raw / "testing/patient101"), "lie on different grids"),
    ],
)
def test_an_archive_that_is_not_whole_is_refused_before_any_work(copy, tmp_path, spoil, message):
    spoil(copy)
    with pytest.raises(RegInputError, match=message):
        prepare(str(copy), str(tmp_path / "out"), workers=1)
    assert not (tmp_path / "out").exists()


def relabel(path):
    labels = np.asarray(nib.load(path).dataobj).copy()
    labels[labels == 1] = 7
    nib.save(nib.Nifti1Image(labels, GRID), path)


def shift(folder):
    for end in ("", "_gt"):
        path = folder / f"{folder.name}_frame12{end}.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), GRID @ np.diag([1, 1, 0.8, 1])), path)


def test_all_findings_come_at_once(copy, tmp_path):
    (copy / "training/patient001/patient001_frame01.nii.gz").write_bytes(b"x")
    relabel(copy / "testing/patient101/patient101_frame01_gt.nii.gz")
    with pytest.raises(RegInputError, match=r"2 findings.*patient001_frame01.*patient101_frame01_gt"):
        prepare(str(copy), str(tmp_path / "out"), workers=1)


def test_an_empty_folder_names_the_layout(tmp_path):
    with pytest.raises(RegInputError, match=r"expected patientNNN/ with Info.cfg"):
        prepare(str(tmp_path), str(tmp_path / "out"))


def test_eoirs_overlay_takes_a_training_step_on_it(prepared):
    fixed = take_a_step("acdc", prepared, crop=(32, 32, 16))["fixed"]
    assert fixed.min() == 0 and fixed.max() == 1


def test_the_command_prepares_them(raw, tmp_path, no_sheet):
    from typer.testing import CliRunner

    words = ["data", "prepare", "acdc", "--raw", raw, "--out", tmp_path, "--workers", "1"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0 and result.output.strip().endswith("datalist.json")
