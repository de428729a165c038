import numpy as np
import pytest
import torch

from common.flow import invert
from common.geometry import ddf_to_mm, total_displacement_mm
from common.inverse import inverse_residual_mm, invert_mm
from common.regularity import folds

from .random_pairs import random_pair
from .test_geometry import smooth_ddf

AFFINE = np.array([[0.0, -1.5, 0, 10], [0.9, 0, 0, -4], [0, 0, 2.0, 7], [0, 0, 0, 1]])


def largest(residual):
    return residual[residual.isfinite()].max()


def test_the_inverse_of_a_shift_is_the_shift_back():
    """Beyond the fixed grid too, where the field goes on with its border's value."""
    ddf_mm = torch.tensor([1.0, -2, 3]).view(1, 3, 1, 1, 1).expand(1, 3, 5, 6, 7)
    inverse, residual = invert_mm(ddf_mm, AFFINE, np.eye(4), (4, 5, 6))
    torch.testing.assert_close(inverse, -ddf_mm[:, :, :1, :1, :1].expand(1, 3, 4, 5, 6), atol=1e-5, rtol=0)
    assert residual.isnan().all()  # no voxel of that moving grid comes from inside


def test_the_inverse_of_an_affine_field_is_the_inverse_affine():
    """A turn by 120 degrees, on which the plain fixed point diverges; the field of an affine is the affine minus 1."""
    turn = np.eye(4)
    turn[:3, :3] = [[0, 0, 1.2], [1, 0, 0], [0, 0.9, 0]]
    size = (8, 9, 10)
    total = total_displacement_mm(torch.zeros(1, 3, *size, dtype=torch.float64), AFFINE, AFFINE, size, turn)
    moving = turn @ AFFINE
    inverse, residual = invert_mm(total, AFFINE, moving, size)
    expected = total_displacement_mm(torch.zeros_like(total), moving, moving, size, np.linalg.inv(turn))
    torch.testing.assert_close(inverse, expected, atol=1e-9, rtol=0)
    assert largest(residual) < 1e-9


@pytest.mark.parametrize("seed", [0, 4])  # the second is 2-D
def test_an_affine_beside_the_field_and_one_inside_it_have_the_same_inverse(seed):
    pair = random_pair(seed)
    grid = pair.moving_affine, tuple(pair.moving.shape[2:])
    apart, _ = invert_mm(pair.ddf_mm, pair.affine, *grid, pair.initial)
    inside, _ = invert_mm(pair.total_mm, pair.affine, *grid)
    torch.testing.assert_close(apart, inside, atol=1e-6, rtol=0)


def squeezed(slope):
    """u(x) = slope x / (1 + (x / 5)^2) along the first axis: u'(0) is the slope, which is nowhere of larger size."""
    at = torch.arange(-20.0, 21, dtype=torch.float64)
    ddf_mm = torch.zeros(1, 2, 41, 6, dtype=torch.float64)
    ddf_mm[0, 0] = (slope * at / (1 + (at / 5) ** 2))[:, None]
    return ddf_mm


@pytest.mark.parametrize("slope", [-0.95, 2.5])
def test_strong_compression_and_stretch_are_inverted(slope):
    ddf_mm = squeezed(slope)
    assert folds(ddf_mm).count == 0
    _, residual = invert_mm(ddf_mm, np.eye(3), np.diag([0.7, 1, 1]), (57, 6))
    assert largest(residual) < 0.005


def test_the_plain_iteration_does_not_invert_that_stretch():
    """The reason for steps."""
    residual = inverse_residual_mm(squeezed(2.5), np.eye(3), invert(squeezed(2.5)), np.eye(3))
    assert largest(residual) > 0.05


def test_a_fold_leaves_a_residual():
    ddf_mm = ddf_to_mm(smooth_ddf((16, 16, 16), voxels=12), np.eye(4))
    assert folds(ddf_mm).count > 0
    _, residual = invert_mm(ddf_mm, np.eye(4), np.eye(4), (16, 16, 16))
    assert largest(residual) > 0.5


def test_slabs_change_nothing(monkeypatch):
    pair = random_pair(1)
    grid = pair.moving_affine, tuple(pair.moving.shape[2:])
    whole, residual = invert_mm(pair.ddf_mm, pair.affine, *grid, pair.initial)
    monkeypatch.setattr("common.inverse.SLAB_VOXELS", 300)
    parts, again = invert_mm(pair.ddf_mm, pair.affine, *grid, pair.initial)
    torch.testing.assert_close(whole, parts, atol=0.02, rtol=0)  # each slab stops at its own tolerance
    assert max(largest(residual), largest(again)) < 0.01


def test_the_residual_of_a_wrong_inverse_is_its_distance_in_mm():
    """An inverse that is off by 2 mm, then by 2 mm times the affine's scale."""
    ddf_mm, inverse = torch.zeros(1, 3, 8, 8, 8), torch.zeros(1, 3, 8, 8, 8)
    inverse[:, 1] = 2.0
    residual = inverse_residual_mm(ddf_mm, np.eye(4), inverse, np.eye(4))
    torch.testing.assert_close(residual[:, :6], torch.full((8, 6, 8), 2.0))
    assert residual[:, 6:].isnan().all()
    scale = np.diag([3.0, 3, 3, 1])
    inverse[:] = 0
    residual = inverse_residual_mm(ddf_mm, np.eye(4), inverse, np.eye(4), scale)
    torch.testing.assert_close(residual[0, 0], 2 * torch.arange(8.0))
