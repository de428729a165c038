import numpy as np
import pytest

from common.working_grid import working_spacing

from .test_geometry import affine_of


def spacing(edges, size=(40, 50, 20), **limits):
    """Of an oblique grid with these voxel edges."""
    return working_spacing(affine_of((20, -15, 30), edges, (3, 4, 5), flip=(1,)), size, **limits)


@pytest.mark.parametrize("edges", [(1, 1, 1), (1.366, 1.366, 2.5), (0.8, 1.6, 1)])
def test_nearly_even_voxels_are_kept(edges):
    np.testing.assert_allclose(spacing(edges), edges)


@pytest.mark.parametrize("edges", [(1, 1, 2.5), (5, 1, 1), (0.8, 0.9, 3)])
def test_thick_slices_become_as_many_cubes(edges):
    np.testing.assert_allclose(spacing(edges), np.full(3, np.prod(edges) ** (1 / 3)))


def test_cubes_are_no_finer_than_a_third_of_a_slice():
    np.testing.assert_allclose(spacing((0.5, 0.5, 5)), np.full(3, 5 / 3))
    np.testing.assert_allclose(spacing((0.25, 6, 0.25)), np.full(3, 2))


def test_in_2d_too():
    np.testing.assert_allclose(working_spacing(np.diag([1.0, 4, 1]), (30, 40)), [2, 2])


@pytest.mark.parametrize("edges", [(0.7, 0.7, 1), (0.5, 0.5, 5)])
def test_too_many_voxels_are_made_fewer_along_all_axes(edges):
    size = (512, 512, 300)
    free, limited = (spacing(edges, size, max_voxels=limit) for limit in (2**40, 10**6))
    assert np.prod(np.array(edges) * size / limited) == pytest.approx(10**6)
    np.testing.assert_allclose(limited / free, (limited / free)[0])
