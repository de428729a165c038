import pytest
import torch

from common.registration import inverse_scores


def test_an_inverse_is_told_by_its_worst_voxel_and_by_how_many_are_off():
    """Four of ninety that are known are off by more than 0.05 mm."""
    residual = torch.full((10, 10), 0.04)
    residual[0, :4], residual[1, 1], residual[9] = 0.06, 0.7, float("nan")
    residual[0, 0] = 0.05
    scores = inverse_scores(residual)
    assert scores["inverse_residual_mm"] == pytest.approx(0.7)
    assert scores["inverse_residual_over_percent"] == pytest.approx(100 * 4 / 90)


def test_where_nothing_is_known_nothing_is_told():
    assert set(inverse_scores(torch.full((3, 3), float("nan"))).values()) == {None}
