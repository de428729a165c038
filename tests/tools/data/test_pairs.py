"""Pairs of small scans go the whole way."""

import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tools.__main__ import app
from tools.data import prepared as prepared_module
from tools.data.pairs import prepare
from tools.data.recipe import Recipe

from .own_scans import GRID, POINTS, SIZE, brain, contents, write, write_points, write_table

OTHER = Recipe("other")
SHIFT_MM = np.array([8.0, -6, 6])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pictures: those of a cohort are tested beside it."""
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


@pytest.fixture
def table(tmp_path):
    """One fixed scan and two moving ones: one on its grid, one with other voxels and elsewhere by its header."""
    image, labels = brain()
    moved = GRID.copy()
    moved[:3, 3] += SHIFT_MM
    for name, grid, cut in (("fix", GRID, 0), ("near", GRID, 0), ("far", moved, 3)):
        write(image[cut:], tmp_path / f"{name}.nii.gz", shifted(grid, cut))
        write(labels[cut:], tmp_path / f"{name}_l.nii.gz", shifted(grid, cut))
        write_points(tmp_path / f"{name}.csv", POINTS - [cut, 0, 0], shifted(grid, cut))
    rows = []
    for name in ("near", "far"):
        row = {"fixed": "fix.nii.gz", "moving": f"{name}.nii.gz", "subject": "ann"}
        row |= {"fixed_label": "fix_l.nii.gz", "moving_label": f"{name}_l.nii.gz"}
        rows.append(row | {"fixed_landmarks": "fix.csv", "moving_keypoints": f"{name}.csv"})
    return write_table(tmp_path / "pairs.csv", rows)


def shifted(grid, cut):
    return grid @ np.array([[1.0, 0, 0, cut], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def first_row(table, **more):
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:2]) + "\n")
    return table


def test_a_pair_on_one_grid_keeps_it(table, tmp_path):
    prepare(str(first_row(table)), str(tmp_path / "out"), OTHER, workers=1, license="mine")
    header, (pair,) = read_header(str(tmp_path / "out")), read_datalist(str(tmp_path / "out"), "testing")
    check_datalist([pair])
    assert header["licence"] == "mine" and header["split"] == "none: all pairs are for testing"
    assert set(pair) == {f"{r}{p}" for r in ("fixed", "moving") for p in ("", "_label", "_keypoints")}
    assert np.array_equal(nib.load(pair["moving_label"]).dataobj, brain()[1])


def test_a_pair_on_two_grids_is_refused_with_what_would_help(table, tmp_path):
    with pytest.raises(RegInputError, match=r"fix, far cover different fields of view .*--align affine"):
        prepare(str(table), str(tmp_path / "out"), OTHER, workers=1)
    assert not (tmp_path / "out").exists()


def test_by_the_headers_a_moving_scan_is_where_its_header_has_it(table, tmp_path):
    prepare(str(table), str(tmp_path / "out"), OTHER._replace(align="header"), workers=1)
    near, far = read_datalist(str(tmp_path / "out"), "testing")
    check_datalist([near, far])
    assert far["moving"].endswith("images/far_on_fix.nii.gz") and near["fixed"] == far["fixed"]
    assert nib.load(far["moving"]).shape == SIZE
    points = np.loadtxt(far["moving_keypoints"], delimiter=",")
    np.testing.assert_allclose(points, POINTS + SHIFT_MM / [-6, 6, 6], atol=1e-3)
    fixed, moving = (np.asarray(nib.load(far[f"{role}_label"]).dataobj) for role in ("fixed", "moving"))
    assert np.array_equal(moving[1:-1, :-1, 1:], fixed[2:, 1:, :-1])  # 8 mm of 6 mm voxels are 1, nearest


def test_by_content_a_moving_scan_lies_on_its_fixed_one(table, tmp_path):
    """To a voxel, 1.9 by the header; how exact alignment is stands elsewhere."""
    prepare(str(table), str(tmp_path / "out"), Recipe("brain", align="rigid"), workers=1)
    _, far = read_datalist(str(tmp_path / "out"), "testing")
    points = np.loadtxt(far["moving_keypoints"], delimiter=",")
    assert np.linalg.norm(points - POINTS, axis=1).max() < 1.0
    fixed, moving = (np.asarray(nib.load(far[f"{role}_label"]).dataobj) for role in ("fixed", "moving"))
    assert np.mean(fixed[fixed > 0] == moving[fixed > 0]) > 0.9


def test_a_second_run_writes_the_same_bytes(table, tmp_path):
    for out in ("one", "two"):
        prepare(str(table), str(tmp_path / out), OTHER._replace(align="header"), workers=1, name="x")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    prepare(str(table), str(tmp_path / "one"), OTHER._replace(align="header"), workers=1, name="x")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_landmarks_of_a_pair_correspond(table, tmp_path):
    write_points(tmp_path / "near.csv", POINTS[:2])
    with pytest.raises(RegInputError, match=r"fix.csv has 3 landmarks and .*near.csv 2"):
        prepare(str(first_row(table)), str(tmp_path / "out"), OTHER, workers=1)


def test_a_landmark_that_falls_outside_of_the_prepared_grid_is_told(table, tmp_path):
    recipe = OTHER._replace(align="header", size=(4, 28, 26))
    with pytest.raises(RegInputError, match=r"outside of the prepared grid, the first number \d"):
        prepare(str(table), str(tmp_path / "out"), recipe, workers=1)
    assert not (tmp_path / "out" / "datalist.json").exists()


def test_landmarks_of_an_unsaid_space_need_one_and_tables_of_voxels_are_read(table, tmp_path):
    for name in ("fix", "near"):
        (tmp_path / f"{name}.csv").write_text("10,12,9\n12,15,14\n14,10,13\n")
    with pytest.raises(RegInputError, match="does not say whether its points are in LPS or RAS"):
        prepare(str(first_row(table)), str(tmp_path / "out"), OTHER, workers=1)
    prepare(str(table), str(tmp_path / "out"), OTHER._replace(points_space="voxel"), workers=1)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "out/keypoints/near.csv", delimiter=","), POINTS, atol=1e-5)


def test_pairs_that_share_a_subject_stay_together(tmp_path):
    image, _ = brain()
    rows = []
    for fixed, moving in (("a", "b"), ("b", "c"), ("d", "e"), ("f", "g")):
        for name in (fixed, moving):
            write(image, tmp_path / f"{name}.nii.gz")
        rows.append({"fixed": f"{fixed}.nii.gz", "moving": f"{moving}.nii.gz"})
    table = write_table(tmp_path / "pairs.csv", rows)
    prepare(str(table), str(tmp_path / "out"), Recipe("brain"), validation=1, testing=1, workers=1)
    content = json.loads((tmp_path / "out/datalist.json").read_text())
    sections = {}
    for section in ("training", "validation", "testing"):
        for pair in content[section]:
            sections.setdefault(pair["fixed"][7], section)
    assert sections["a"] == sections["b"] and set(sections.values()) == {"training", "validation", "testing"}
    with pytest.raises(RegInputError, match="the 3 groups"):
        prepare(str(table), str(tmp_path / "more"), Recipe("brain"), validation=2, testing=2, workers=1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"section": "training"}, "1 of 2 in testing have no label"),
        ({"subject": "ann"}, "subject ann is in training and testing"),
    ],
)
def test_sections_of_a_table_are_checked(table, tmp_path, change, words):
    image, _ = brain()
    rows = []
    for k, name in enumerate("bcd"):
        write(image, tmp_path / f"{name}.nii.gz")
        write(image, tmp_path / f"{name}2.nii.gz")
        row = {"fixed": f"{name}.nii.gz", "moving": f"{name}2.nii.gz", "section": "testing" if k else "training"}
        rows.append({**row, "subject": change.get("subject", name)})
    if "section" in change:
        label = write(brain()[1], tmp_path / "l.nii.gz")
        rows[1] |= {"fixed_label": label, "moving_label": label}
    with pytest.raises(RegInputError, match=words):
        prepare(str(write_table(tmp_path / "t.csv", rows)), str(tmp_path / "out"), Recipe("brain"), workers=1)


def test_ct_is_windowed_and_what_is_no_ct_refused(table, tmp_path):
    recipe = OTHER._replace(modality="ct", window=(0.0, 500.0))
    prepare(str(first_row(table)), str(tmp_path / "out"), recipe, workers=1)
    found = nib.load(tmp_path / "out/images/near.nii.gz").get_fdata()
    np.testing.assert_allclose(found, np.clip(brain()[0] / 500, 0, 1), atol=1e-6)
    write(brain()[0] / np.float32(1000), tmp_path / "near.nii.gz")
    with pytest.raises(RegInputError, match="expected CT in Hounsfield units"):
        prepare(str(table), str(tmp_path / "two"), OTHER._replace(modality="ct"), workers=1)


def test_the_commands_prepare(table, tmp_path):
    words = ["data", "prepare", "pairs", "--pairs", table, "--out", tmp_path / "out", "--anatomy", "other"]
    words += ["--align", "header", "--spacing", "6", "--orientation", "LAS", "--workers", "1"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0 and result.output.strip().endswith("datalist.json"), result.output
    assert len(read_datalist(str(tmp_path / "out"), "testing")) == 2

    rows = [{"image": f"{name}.nii.gz"} for name in ("fix", "near")]
    table = write_table(tmp_path / "scans.csv", rows)
    words = ["data", "prepare", "folder", "--images", table, "--out", tmp_path / "cohort", "--anatomy", "brain"]
    result = CliRunner().invoke(app, list(map(str, [*words, "--testing", "2", "--workers", "1"])))
    assert result.exit_code == 0, result.output
    assert len(read_datalist(str(tmp_path / "cohort"), "testing")) == 2


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--spacing", "1,2"), "expected 3 numbers"),
        (("--size", "1.5,2,2"), "whole numbers"),
        (("--window", "a,b"), "2 numbers"),
    ],
)
def test_numbers_that_are_none_are_refused(table, tmp_path, option, words):
    arguments = ["data", "prepare", "pairs", "--pairs", table, "--out", tmp_path / "out", "--anatomy", "other", *option]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(result.exception, RegInputError) and words in str(result.exception)
