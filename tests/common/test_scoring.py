import csv
import math

import pytest
import torch
from ignite.engine import Engine

from common.scoring import MeanDice, MeanTRE, NonDiffeomorphicVolume, SDLogJ, WritePairMetrics


def shifted_pair() -> tuple[torch.Tensor, dict]:
    """A cube of label 2 (and a moving-only label 5), moved by one voxel, and the field that undoes it."""
    fixed, moving = torch.zeros(2, 1, 8, 8, 8, dtype=torch.int32)
    fixed[:, 2:5, 2:5, 2:5] = 2
    moving[:, 3:6, 2:5, 2:5] = 2
    moving[:, 7, 7, 7] = 5
    ddf = torch.zeros(3, 8, 8, 8)
    ddf[0] = 1
    return ddf, {"fixed_label": fixed, "moving_label": moving}


@pytest.mark.parametrize(("use_field", "expected"), [(True, 1.0), (False, 2 / 3)])
def test_mean_dice_is_that_of_the_warped_label(use_field, expected):
    ddf, pair = shifted_pair()
    metric = MeanDice()
    metric.update([{"pred": ddf * use_field, "label": pair}])
    assert metric.compute() == pytest.approx(expected)


def test_mean_dice_without_labels_is_nan_and_does_not_count():
    ddf, pair = shifted_pair()
    metric = MeanDice()
    metric.update([{"pred": ddf, "label": {}}])
    assert math.isnan(metric.compute())
    metric.update([{"pred": ddf, "label": pair}])
    assert metric.compute() == pytest.approx(1)


def test_the_landmark_error_is_in_mm_of_the_grid_and_needs_landmarks():
    """Two voxels apart along an axis of 1.5 mm voxels, of which the field takes one."""
    ddf, _ = shifted_pair()
    fixed = torch.tensor([[2.0, 3.0, 4.0], [4.0, 4.0, 4.0]])
    pair = {"fixed_keypoints": fixed, "moving_keypoints": fixed + torch.tensor([2.0, 0.0, 0.0])}
    metric = MeanTRE([1.5, 1, 1])
    metric.update([{"pred": ddf, "label": pair}, {"pred": ddf, "label": {}}])
    assert metric.values[0] == pytest.approx(1.5) and math.isnan(metric.values[1])
    assert metric.compute() == pytest.approx(1.5)


def test_regularity_metrics_are_zero_for_a_translation_and_see_a_reflection():
    ddf, pair = shifted_pair()
    reflection = torch.zeros(3, 8, 8, 8)
    reflection[0] = -2 * torch.arange(8).view(8, 1, 1)
    for metric, reflected in ((SDLogJ(), 0.0), (NonDiffeomorphicVolume(), 100.0)):
        metric.update([{"pred": ddf, "label": pair}])
        assert metric.compute() == pytest.approx(0, abs=1e-6)
        metric.reset()
        metric.update([{"pred": reflection, "label": pair}])
        assert metric.compute() == pytest.approx(reflected, abs=1e-4)


def test_pair_metrics_are_written_one_row_a_pair_and_their_mean(tmp_path):
    metrics = {"dice": MeanDice(), "ndv": SDLogJ()}
    metrics["dice"].values, metrics["ndv"].values = [0.5, 0.7], [0.0, 1.0]
    pairs = [{"fixed": "/x/a.nii.gz", "moving": "/x/b.nii.gz"}, {"fixed": "/x/b.nii.gz", "moving": "/x/a.nii.gz"}]
    WritePairMetrics(str(tmp_path / "m.csv"), pairs, metrics)(Engine(lambda *_: None))
    rows = list(csv.reader((tmp_path / "m.csv").open()))
    assert rows[0] == ["fixed", "moving", "dice", "ndv"] and rows[1][:3] == ["a.nii.gz", "b.nii.gz", "0.5"]
    assert rows[3][0] == "mean" and [float(v) for v in rows[3][2:]] == pytest.approx([0.6, 0.5])
