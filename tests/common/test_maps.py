import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from common.errors import RegInputError
from common.maps import Field, Linear, Map, Spline, concatenate

SHIFT = Linear(np.array([[1.0, 0, 3], [0, 1, 0], [0, 0, 1]]))
DOUBLE = Linear(np.diag([2.0, 2, 1]))


def test_the_first_part_is_applied_first():
    np.testing.assert_array_equal(Map((SHIFT, DOUBLE)).points([[1.0, 1]]), [[8, 2]])
    np.testing.assert_array_equal(Map((DOUBLE, SHIFT)).points([[1.0, 1]]), [[5, 2]])
    np.testing.assert_array_equal(concatenate([Map((SHIFT,)), Map((DOUBLE,))]).points([[1.0, 1]]), [[8, 2]])


def test_affines_in_a_row_are_one_matrix():
    whole = Map((SHIFT, DOUBLE, SHIFT, SHIFT))  # another map when read backwards
    assert len(whole.merged().parts) == 1
    np.testing.assert_array_equal(whole.matrix @ [1, 1, 1], [14, 2, 1])


def test_a_field_between_affines_keeps_its_place():
    field = Field(torch.ones(1, 2, 5, 5), np.diag([10.0, 10, 1]))
    whole = Map((DOUBLE, SHIFT, field, DOUBLE))
    assert whole.matrix is None and [type(part) for part in whole.merged().parts] == [Linear, Field, Linear]
    np.testing.assert_array_equal(whole.points([[1.0, 1]]), [[12, 6]])
    assert whole.volume == 16


def test_a_field_reaches_half_a_voxel_beyond_its_outermost_voxels_and_ends_there():
    field = Field(torch.ones(1, 2, 3, 3), np.diag([2.0, 2, 1]))
    points = np.array([[-0.99, 2], [-1.01, 2], [4.99, 2], [5.01, 2]])
    np.testing.assert_array_equal(field.points(points) - points, [[1, 1], [0, 0], [1, 1], [0, 0]])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_spline_is_the_sum_of_its_basis_functions(order):
    """scipy's one-dimensional B-splines, multiplied."""
    coefficients = np.random.default_rng(0).normal(size=(2, 7, 8))
    points = np.random.default_rng(1).uniform(1, 5, (50, 2))
    basis = BSpline.basis_element(np.arange(order + 2) - (order + 1) / 2, extrapolate=False)
    weights = [np.nan_to_num(basis(points[:, [k]] - np.arange(n))) for k, n in enumerate((7, 8))]
    expected = points + np.einsum("cij,pi,pj->pc", coefficients, *weights)
    np.testing.assert_allclose(Spline(coefficients, np.eye(3), order).points(points), expected, atol=1e-12)


def test_a_map_on_a_grid_is_the_map_of_its_voxels(monkeypatch):
    """In slabs, which are thinner here than a plane."""
    affine = np.array([[0, -1.4, 5], [0.8, 0, -3], [0, 0, 1]])
    field = Field(torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(0)), np.diag([3.0, 2, 1]))
    whole = Map((field, SHIFT))
    monkeypatch.setattr("common.maps.POINTS", 20)
    grid = whole.on_grid((7, 9), affine)
    assert grid.shape == (1, 2, 7, 9) and grid.dtype == torch.float32
    for index in [(0, 0), (3, 8), (6, 4)]:
        world = (affine @ [*index, 1])[:2]
        np.testing.assert_allclose(grid[0, :, *index], (whole.points([world]) - world)[0], atol=1e-5)


def test_many_points_are_moved_in_pieces(monkeypatch):
    monkeypatch.setattr("common.maps.POINTS", 3)
    points = np.random.default_rng(0).normal(size=(10, 2))
    np.testing.assert_allclose(Map((SHIFT, DOUBLE)).points(points), 2 * (points + np.array([3, 0])))


def test_maps_of_two_dimensions_are_not_joined():
    with pytest.raises(RegInputError, match=r"\[2, 3\] dimensions"):
        concatenate([Map((SHIFT,)), Map((Linear(np.eye(4)),))])
