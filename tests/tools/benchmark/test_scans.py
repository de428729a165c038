"""The measurements on real scans: their parts on small cases, and on the scans where they are at hand."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import RegInputError
from tools.benchmark.scans import (
    CONTRASTS,
    benchmark_liver,
    benchmark_lung,
    landmark_errors,
    overlap,
    read_vtk_points,
    regularity,
)

DATA = os.environ.get("REGBUNDLES_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_points_of_a_vtk_file_come_in_ras(tmp_path):
    head = "# vtk DataFile Version 3.0\nvtk output\nASCII\nDATASET POLYDATA\n"
    (tmp_path / "p.vtk").write_text(head + "POINTS 2 float\n1 2 3 -4.5 5e1 6 \n\nVERTICES 1 3")
    assert read_vtk_points(tmp_path / "p.vtk").tolist() == [[-1, -2, 3], [4.5, -50, 6]]


def test_a_file_without_points_is_refused(tmp_path):
    (tmp_path / "p.vtk").write_text("# vtk DataFile Version 3.0\nBINARY")
    with pytest.raises(RegInputError, match="no ASCII POINTS"):
        read_vtk_points(tmp_path / "p.vtk")


def test_missing_scans_are_told_before_any_work(tmp_path):
    with pytest.raises(RegInputError, match="exhMaster"):
        benchmark_liver(tmp_path, tmp_path / "out")
    with pytest.raises(RegInputError, match="baseline"):
        benchmark_lung(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_landmark_error_of_a_shift_is_its_length():
    field = torch.zeros(1, 3, 8, 8, 8)
    field[:, 0] = 3
    fixed = np.array([[4.0, 4.0, 4.0], [2.0, 3.0, 4.0]])
    errors = landmark_errors(fixed, fixed + np.array([3, 4, 0]), field, np.eye(4), "liver")
    assert errors == {"liver_before_mm": 5.0, "liver_after_mm": 4.0}


def test_overlap_of_halves():
    mask, truth = torch.zeros(2, 1, 1, 4, 4, 4).unbind()
    mask[..., :2], truth[..., 1:3] = 1, 1
    assert overlap(mask, truth) == 0.5


def test_regularity_of_a_dilation_is_constant():
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))[None]
    assert regularity(0.1 * grid, np.eye(4)) == {"sdlogj": 0.0, "ndv_percent": 0.0, "folded_percent": 0.0}


def test_contrasts_turn_round_what_they_should():
    image = np.array([0.0, 300, 600, 1000] * 50).reshape(2, 10, 10)
    for name, order in (("T1", 1), ("inverted", -1), ("T2-like", -1)):
        values = CONTRASTS[name](image).ravel()[:4]
        assert values[0] == 0 and (np.sign(np.diff(values[1:])) == order).all()


@pytest.mark.slow
@needs_data
def test_svf_brings_the_breathing_liver_within_its_bound(tmp_path):
    rows = rows_of(benchmark_liver(Path(DATA) / "liver_mr", tmp_path))
    means = {key: np.mean([float(row[key]) for row in rows]) for key in rows[0] if key.endswith("_mm")}
    assert len(rows) == 4 and means["liver_before_mm"] > 12
    assert means["liver_after_mm"] < 4 and means["outside_after_mm"] < 0.7 * means["outside_before_mm"]
    assert all(float(row["folded_percent"]) == 0 for row in rows)


@pytest.mark.slow
@needs_data
def test_svf_aligns_the_breathing_lung_within_its_bound(tmp_path):
    (row,) = rows_of(benchmark_lung(Path(DATA) / "lung_ct", tmp_path, ["svf"]))
    assert float(row["dice_affine"]) < 0.96 < 0.98 < float(row["dice"]) and float(row["folded_percent"]) == 0
