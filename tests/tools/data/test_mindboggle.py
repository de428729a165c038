"""A tiny copy of the archive's layout, brains of boxes with all 62 labels, goes the whole way."""

import csv
import json
import shutil
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.tools.data.challenge_archive import contents
from tests.tools.data.fetched import fetch_and_prepare
from tools.__main__ import app
from tools.data import mindboggle
from tools.data import prepared as prepared_module
from tools.data.mindboggle import SOURCES, fit, prepare
from tools.data.mindboggle_layout import DKT, IMAGE_NAME, LABEL_NAME, NAMES, label_names, relabel

SIZE = (24, 30, 26)  # R-L, P-A, I-S: MNI152's axes
GRID = np.array([[-1.0, 0, 0, 12], [0, 1, 0, -15], [0, 0, 1, -10], [0, 0, 0, 1]])  # LAS, as MNI152's
OUT = (20, 28, 32)  # cropped left to right, padded down and to the front
SUBJECTS = {  # in the order that is expected of them
    "MMRR-21-1": "MMRR-21",
    "MMRR-21-2": "MMRR-21",
    "MMRR-21-10": "MMRR-21",
    "NKI-RS-22-1": "NKI-RS-22",
    "OASIS-TRT-20-3": "OASIS-TRT-20",
}


def cortex(shift=0) -> tuple[np.ndarray, np.ndarray]:
    """Both hemispheres in LAS, low and hindmost areas where they belong, the others in stripes."""
    labels = np.zeros(SIZE, np.int16)
    others = [area for area in NAMES if 1000 + area not in (*DKT.brain_stem, *DKT.cerebellum)]
    for side, x in ((1000, slice(12, 21)), (2000, slice(3, 12))):  # the array's end is left
        for k, area in enumerate(others):
            labels[x, 9 + k % 17 : 10 + k % 17, 10 + 4 * (k // 17) : 14 + 4 * (k // 17)] = side + area
        for k, area in enumerate((6, 7, 9, 16)):
            labels[x, 10 + 3 * k : 13 + 3 * k, 4:8] = side + area
        for k, area in enumerate((5, 11, 13, 21)):
            labels[x, 4:8, 5 + 3 * k : 8 + 3 * k] = side + area
    wave = 500 + 200 * np.cos(np.indices(SIZE).sum(0) / 4 + shift)
    return np.where(labels > 0, wave, 0).astype(np.float32), labels


def write_subject(folder: Path, cohort: str, name: str, mirrored=False, shift=0) -> None:
    for array, file in zip(cortex(shift), (IMAGE_NAME, LABEL_NAME), strict=True):
        path = folder / f"{cohort}_volumes" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array[::-1] if mirrored else array, GRID), path)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Five subjects, one of them mirrored against its header."""
    folder = tmp_path_factory.mktemp("raw") / "Mindboggle101_volumes"
    for k, (name, cohort) in enumerate(SUBJECTS.items()):
        write_subject(folder, cohort, name, mirrored=name == "MMRR-21-1", shift=k)
    return folder


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare(str(raw), str(out), workers=1, size=OUT)
    return out


@pytest.fixture
def copy(raw, tmp_path):
    """A raw folder that a test may spoil."""
    return shutil.copytree(raw, tmp_path / "copy")


@pytest.fixture
def no_sheet(monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


def rows_of(folder):
    return {row["id"]: row for row in csv.DictReader((folder / "report.csv").open())}


def moving_of(folder):
    return [Path(pair["moving"]).name.removesuffix(".nii.gz") for pair in read_datalist(str(folder), "testing")]


def test_the_protocols_have_62_and_50_structures():
    assert len(label_names("dkt31")) == 62 and len(label_names("dkt25")) == 50
    assert label_names("dkt25")[1002] == "left cingulate" and label_names("dkt31")[2035] == "right insula"
    assert set(relabel(np.array([[0, *label_names("dkt31")]]), "dkt25").ravel()) == {0, *label_names("dkt25")}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1010, 1002), (1023, 1002), (1026, 1002), (2027, 2003), (2019, 2018), (1020, 1018), (1014, 1014), (4000, 0)],
)
def test_the_merge_is_the_published_one(value, expected):
    assert relabel(np.array([value]), "dkt25") == expected
    assert relabel(np.array([value]), "dkt31") == (value if value < 3000 else 0)


def test_one_scan_is_fixed_and_all_others_move(prepared):
    header = read_header(str(prepared))
    assert (header["name"], header["orientation"], header["spacing_mm"]) == ("mindboggle", "LIA", [1, 1, 1])
    assert header["fixed"] == "NKI-RS-22-1" and len(header["labels"]) == 50
    check_datalist(read_datalist(str(prepared), "testing"))
    assert moving_of(prepared) == [name for name in SUBJECTS if name != "NKI-RS-22-1"]
    assert {Path(pair["fixed"]).name for pair in read_datalist(str(prepared), "testing")} == {"NKI-RS-22-1.nii.gz"}


def test_scans_keep_their_voxels_and_their_place(prepared, raw):
    for kind, name in (("images", IMAGE_NAME), ("labels", LABEL_NAME)):
        mine = nib.load(prepared / kind / "MMRR-21-2.nii.gz")
        theirs = nib.load(raw / "MMRR-21_volumes" / "MMRR-21-2" / name)
        assert mine.shape == OUT and "".join(nib.aff2axcodes(mine.affine)) == "LIA"
        voxels, expected = np.asarray(mine.dataobj), np.asarray(theirs.dataobj)
        where = np.argwhere(voxels != 0)
        world = nib.affines.apply_affine(mine.affine, where)
        found = expected[tuple(np.round(nib.affines.apply_affine(np.linalg.inv(theirs.affine), world)).astype(int).T)]
        if kind == "labels":
            np.testing.assert_array_equal(voxels[tuple(where.T)], relabel(found, "dkt25"))
            assert voxels.dtype.kind == "i" and (voxels > 0).sum() == (expected > 0).sum()
        else:
            top = np.percentile(expected[expected != 0], 99.9)
            np.testing.assert_allclose(voxels[tuple(where.T)], np.minimum(found / top, 1), atol=1e-5)


@pytest.mark.parametrize("size", [(5, 4, 7), (4, 5, 6), (8, 7, 6)])
def test_fitting_agrees_with_nibabels_world(size):
    voxels = np.arange(1, 6 * 5 * 4 + 1, dtype=np.int16).reshape(6, 5, 4)
    affine = np.array([[0, 0, -1.0, 5], [1, 0, 0, -7], [0, 1, 0, 3], [0, 0, 0, 1]])
    fitted, grid = fit(voxels, affine, size)
    assert fitted.shape == size and "".join(nib.aff2axcodes(grid.affine)) == "LIA"
    for index in np.argwhere(fitted):
        there = np.linalg.inv(affine) @ grid.affine @ [*index, 1]
        assert voxels[tuple(np.round(there[:3]).astype(int))] == fitted[tuple(index)]
    middles = [
        nib.affines.apply_affine(a, (np.array(n) - 1) / 2) for a, n in ((affine, voxels.shape), (grid.affine, size))
    ]
    assert np.abs(middles[0] - middles[1]).max() <= 0.5 and (fitted > 0).sum() == np.prod(np.minimum(size, (4, 5, 6)))


def test_a_mirrored_scan_is_found_reported_and_left_out_if_asked(prepared, raw, tmp_path, no_sheet):
    content = json.loads((prepared / "datalist.json").read_text())
    assert content["wrong_way_round"] == {"MMRR-21-1": "RAS instead of LAS; kept"}
    assert [n for n, row in rows_of(prepared).items() if row["wrong_way_round"]] == ["MMRR-21-1"]
    prepare(str(raw), str(tmp_path), flipped="drop", workers=1, size=OUT)
    assert moving_of(tmp_path) == ["MMRR-21-2", "MMRR-21-10", "OASIS-TRT-20-3"]
    assert read_header(str(tmp_path))["wrong_way_round"] == {"MMRR-21-1": "RAS instead of LAS; left out"}


@pytest.mark.parametrize(("axes", "codes"), [((1,), "LPS"), ((2,), "LAI"), ((0, 1), "RPS")])
def test_brains_turned_in_other_ways_are_found_too(axes, codes):
    labels = np.flip(cortex()[1], axes).astype(np.int32)
    volume = mindboggle.Volume(Path("x"), labels, GRID)
    assert mindboggle.way_round(volume) == f"{codes} instead of LAS"
    assert mindboggle.way_round(mindboggle.Volume(Path("x"), cortex()[1], GRID)) == ""


def test_the_report_has_cohort_and_leakage(prepared):
    rows = rows_of(prepared)
    assert list(rows) == list(SUBJECTS) and [row["cohort"] for row in rows.values()] == list(SUBJECTS.values())
    assert [name for name, row in rows.items() if row["person_of_oasis1"] == "yes"] == ["OASIS-TRT-20-3"]
    assert all(row["labels_found"] == "50" and row["labels_missing"] == "" for row in rows.values())
    assert all(float(row["cut_percent"]) == 0 for row in rows.values())
    assert (prepared / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_writes_the_same_bytes(prepared, raw, tmp_path, monkeypatch, no_sheet):
    prepare(str(raw), str(tmp_path), workers=1, size=OUT)
    assert contents(tmp_path) == contents(prepared)
    (tmp_path / "labels" / "MMRR-21-10.nii.gz").write_bytes(b"damaged")
    saved, save = [], mindboggle.save_nifti
    monkeypatch.setattr(mindboggle, "save_nifti", lambda *args: (saved.append(args[2].name), save(*args)))
    prepare(str(raw), str(tmp_path), workers=1, size=OUT)
    assert saved == ["MMRR-21-10.nii.gz"] * 2 and contents(tmp_path) == contents(prepared)


def test_cohorts_that_are_still_packed_are_unpacked_once(raw, tmp_path, no_sheet):
    folder = tmp_path / "Mindboggle101_volumes"
    folder.mkdir()
    for cohort in ("MMRR-21", "NKI-RS-22"):
        with tarfile.open(folder / f"{cohort}_volumes.tar.gz", "w:gz") as archive:
            archive.add(raw / f"{cohort}_volumes", f"{cohort}_volumes")
    for _ in range(2):
        prepare(str(folder), str(tmp_path / "out"), workers=1, size=OUT)
    assert moving_of(tmp_path / "out") == ["MMRR-21-1", "MMRR-21-2", "MMRR-21-10"]


def test_the_release_is_fetched_unpacked_twice_over_and_prepared_by_one_call(raw, prepared, tmp_path, no_sheet):
    folder = tmp_path / "Mindboggle101_volumes"
    folder.mkdir()
    for cohort in raw.iterdir():
        with tarfile.open(folder / f"{cohort.name}.tar.gz", "w:gz") as archive:
            archive.add(cohort, cohort.name)
    assert contents(fetch_and_prepare(SOURCES[0], folder, tmp_path, size=OUT)) == contents(prepared)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: (raw / "MMRR-21_volumes/MMRR-21-2" / LABEL_NAME).unlink(), "MMRR-21-2 has no labels"),
        (lambda raw: (raw / "MMRR-21_volumes/MMRR-21-2" / IMAGE_NAME).unlink(), "MMRR-21-2 has no t1weighted"),
        (lambda raw: (raw / "MMRR-21_volumes/MMRR-21-2" / IMAGE_NAME).write_bytes(b"x"), "MMRR-21-2"),
        (lambda raw: shutil.copytree(raw / "MMRR-21_volumes", raw / "again"), "MMRR-21-2 is there 2 times"),
        (lambda raw: move(raw / "MMRR-21_volumes/MMRR-21-2"), "lies on another grid than"),
    ],
)
def test_an_archive_that_is_not_whole_is_refused_before_any_work(copy, tmp_path, spoil, message):
    spoil(copy)
    with pytest.raises(RegInputError, match=message):
        prepare(str(copy), str(tmp_path / "out"), workers=1, size=OUT)
    assert not (tmp_path / "out").exists()


def move(folder):
    for name in (IMAGE_NAME, LABEL_NAME):
        image = nib.load(folder / name)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-2.0, 2, 2, 1])), folder / name)


def test_all_findings_come_at_once(copy, tmp_path):
    for name in ("MMRR-21-2", "MMRR-21-10"):
        (copy / "MMRR-21_volumes" / name / IMAGE_NAME).write_bytes(b"x")
    with pytest.raises(RegInputError, match=r"2 findings.*MMRR-21-2.*MMRR-21-10"):
        prepare(str(copy), str(tmp_path / "out"), workers=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "dkt"}, "labels is 'dkt', expected one of dkt31, dkt25"),
        ({"flipped": "turn"}, "expected one of keep, drop"),
        ({"fixed": "MMRR-21-1"}, "MMRR-21-1 lies RAS instead of LAS"),
        ({"fixed": "nobody"}, "nobody is not among the subjects"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(raw, tmp_path, options, message):
    with pytest.raises(RegInputError, match=message):
        prepare(str(raw), str(tmp_path / "out"), workers=1, size=OUT, **options)
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_names_the_layout(tmp_path):
    with pytest.raises(RegInputError, match=r"expected <COHORT>_volumes/<SUBJECT>"):
        prepare(str(tmp_path), str(tmp_path / "out"))


def test_the_command_prepares_them(raw, tmp_path, monkeypatch, no_sheet):
    from typer.testing import CliRunner

    monkeypatch.setattr(prepare, "__defaults__", (*prepare.__defaults__[:-1], OUT))
    words = ["data", "prepare", "mindboggle", "--raw", raw, "--out", tmp_path, "--labels", "dkt31", "--fixed"]
    result = CliRunner().invoke(app, [*map(str, words), "OASIS-TRT-20-3", "--workers", "1"])
    assert result.exit_code == 0 and result.output.strip().endswith("datalist.json")
    assert len(read_header(str(tmp_path))["labels"]) == 62 and len(moving_of(tmp_path)) == 4
