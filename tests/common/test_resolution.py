"""One resolution for two images: moments of Gaussians, voxels of known boxes."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from common.resolution import MatchResolutiond, resolution_gap, smooth_by_covariance


def moments(image):
    """Mass and covariance of an image (1, 1, *S), in voxels."""
    weights = image[0, 0].double().numpy()
    places = np.stack(np.meshgrid(*map(np.arange, weights.shape), indexing="ij"), -1).reshape(-1, weights.ndim)
    centered = places - np.average(places, axis=0, weights=weights.ravel())
    return weights.sum(), (centered.T * weights.ravel()) @ centered / weights.sum()


@pytest.mark.parametrize("size", [(31, 32, 33), (40, 41)])
def test_a_point_becomes_a_gaussian_of_the_covariance(size):
    ndim = len(size)
    turn = Rotation.from_rotvec([0.4, 0.3, 0.8]).as_matrix()[:ndim, :ndim] if ndim == 3 else rotation_2d(0.6)
    covariance = turn @ np.diag([4.0, 1.5, 1.0][:ndim]) @ turn.T
    image = torch.zeros(1, 1, *size, dtype=torch.float64)
    image[(0, 0, *[n // 2 for n in size])] = 1
    mass, found = moments(smooth_by_covariance(image, covariance))
    assert mass == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, covariance, atol=0.02)


def rotation_2d(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_along_the_axes_it_is_scipys_gaussian_filter_the_border_continued():
    image = torch.rand(1, 2, 12, 13, 14, generator=torch.Generator().manual_seed(0))
    found = smooth_by_covariance(image, np.diag([4.0, 0.0, 1.0]))
    expected = [gaussian_filter(x.double().numpy(), (2, 0, 1), mode="nearest", truncate=6) for x in image[0]]
    np.testing.assert_allclose(found[0].numpy(), np.stack(expected), atol=2e-3)


def test_voxels_of_one_size_leave_no_gap_however_they_are_turned():
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_rotvec([0.1, -0.7, 0.4]).as_matrix()
    np.testing.assert_allclose(resolution_gap(np.eye(4), np.eye(4), turned), 0, atol=1e-12)


def test_a_thick_slice_exceeds_a_cube_by_the_difference_of_their_variances_along_its_normal():
    turn = Rotation.from_rotvec([0.5, 0.2, -0.3]).as_matrix()
    thick = np.eye(4)
    thick[:3, :3] = turn @ np.diag([0.5, 0.5, 5.0])
    gap = resolution_gap(np.eye(4), np.eye(4), thick)
    np.testing.assert_allclose(gap, np.outer(turn[:, 2], turn[:, 2]) * (25 - 1) / 12, atol=1e-12)
    coarser = np.diag([2.0, 2.0, 2.0, 1.0])  # in voxels of a grid twice as coarse; none is below a voxel of it
    np.testing.assert_allclose(
        resolution_gap(coarser, np.eye(4), thick), np.outer(turn[:, 2], turn[:, 2]) * (25 / 4 - 1) / 12, atol=1e-12
    )


def item(fixed, moving, **more):
    generator = torch.Generator().manual_seed(0)
    images = {key: MetaTensor(torch.rand(1, 20, 20, 20, generator=generator)) for key in ("fixed", "moving")}
    return {**images, "fixed_affine": fixed, "moving_affine": moving, "network_affine": np.eye(4), **more}


def test_the_finer_image_is_smoothed_across_the_other_ones_slices_and_the_coarser_one_kept():
    thick, fine = np.diag([0.5, 0.5, 5.0, 1.0]), np.eye(4)
    for fixed, moving, smoothed, kept in ((fine, thick, "fixed", "moving"), (thick, fine, "moving", "fixed")):
        before = item(fixed, moving)
        after = MatchResolutiond()(before)
        assert torch.equal(after[kept], before[kept])
        expected = smooth_by_covariance(before[smoothed].as_tensor()[None], np.diag([0, 0, 2.0]))[0]
        torch.testing.assert_close(after[smoothed].as_tensor(), expected)
        assert torch.equal(after[smoothed].affine, before[smoothed].affine)


def test_the_initial_alignment_turns_the_slices():
    turn = np.array([[0, 0, 1.0, 3], [0, 1, 0, 0], [-1, 0, 0, 5], [0, 0, 0, 1]])  # fixed world -> moving world
    before = item(np.eye(4), np.diag([0.5, 0.5, 5.0, 1.0]), initial=turn)
    expected = smooth_by_covariance(before["fixed"].as_tensor()[None], np.diag([2.0, 0, 0]))[0]
    torch.testing.assert_close(MatchResolutiond()(before)["fixed"].as_tensor(), expected)


@pytest.mark.parametrize("moving", [np.eye(4), np.diag([1.4, 1.2, 1.9, 1.0]), np.diag([0.3, 0.3, 0.3, 1.0])])
def test_pairs_of_like_resolution_are_left_as_they_are(moving):
    before = item(np.eye(4), moving)
    after = MatchResolutiond()(before)
    assert after["fixed"] is before["fixed"] and after["moving"] is before["moving"]
