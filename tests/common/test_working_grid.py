import numpy as np
import pytest

from common.working_grid import working_spacing

from .test_geometry import affine_of


def spacing(fixed, moving, size=(40, 50, 20), **limits):
    """Of oblique grids with these voxel sizes, the moving image's axes in the fixed image's order."""
    fixed_affine, moving_affine = (affine_of((20, -15, 30), edges, (3, 4, 5), flip=(1,)) for edges in (fixed, moving))
    return working_spacing(fixed_affine, size, np.linalg.solve(moving_affine, fixed_affine), **limits)


@pytest.mark.parametrize("edges", [(1, 1, 1), (1.366, 1.366, 2.5), (0.8, 1.6, 1)])
def test_nearly_even_voxels_are_kept(edges):
    np.testing.assert_allclose(spacing(edges, (0.5, 0.5, 5)), edges)


def test_thick_slices_are_evened_out_with_as_many_voxels():
    found = spacing((0.5, 0.5, 5), (1, 1, 1))
    mean = 1.25 ** (1 / 3)
    np.testing.assert_allclose(found, [mean / np.sqrt(2), mean / np.sqrt(2), mean * np.sqrt(2)])


def test_no_axis_becomes_finer_than_both_images_along_it():
    np.testing.assert_allclose(spacing((0.5, 0.5, 5), (1, 1, 3))[2], 3)
    np.testing.assert_allclose(spacing((0.5, 0.5, 5), (0.5, 0.5, 6))[2], 5)


def test_the_moving_image_counts_along_the_fixed_images_axes_whatever_its_own_are():
    """Sagittal slices of 5 mm under axial ones: along the fixed image's z the moving image has 0.5 mm."""
    fixed = np.diag([0.5, 0.5, 5, 1])
    sagittal = np.array([[0, 0, 5, 0], [0.5, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1.0]])
    found = working_spacing(fixed, (40, 50, 20), np.linalg.solve(sagittal, fixed))
    np.testing.assert_allclose(found, spacing((0.5, 0.5, 5), (1, 1, 1)))


@pytest.mark.parametrize("edges", [(0.7, 0.7, 1), (0.5, 0.5, 5)])
def test_too_many_voxels_are_made_fewer_along_all_axes(edges):
    size = (512, 512, 300)
    free, limited = (spacing(edges, (1, 1, 1), size, max_voxels=limit) for limit in (2**40, 10**6))
    assert np.prod(np.array(edges) * size / limited) == pytest.approx(10**6)
    np.testing.assert_allclose(limited / free, (limited / free)[0])
