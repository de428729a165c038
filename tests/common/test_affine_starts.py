import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from common.affine_starts import BINS, Starts, angle_deg, mutual_information_of, rotation_of, rotations

from .test_affine import FIXED, SIZE, error_mm, pull, rotation, sample

COARSE = tuple(n // 2 for n in SIZE)
GRID = FIXED @ np.diag([2, 2, 2, 1])


def unit(voxels):
    return (voxels - voxels.min()) / np.ptp(voxels)


def coarse(to_body=None, affine=GRID):
    return unit(sample(affine, COARSE, to_body)), affine, None


@pytest.mark.parametrize(("ndim", "furthest"), [(2, 7.5), (3, 31)])
def test_every_orientation_is_near_one_of_the_rotations(ndim, furthest):
    turns = rotations(ndim)
    np.testing.assert_allclose(turns[0], np.eye(ndim), atol=1e-12)
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(ndim), turns.shape), atol=1e-9)
    assert (np.linalg.det(turns) > 0).all()
    angles = np.random.default_rng(0).uniform(0, 7, (300, 1))
    tried = Rotation.random(300, random_state=0).as_matrix() if ndim == 3 else np.array([*map(rotation_of, angles)])
    cosines = (np.einsum("aij,bij->ab", tried, turns).max(axis=1) - (ndim - 2)) / 2
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < furthest + 0.01


def test_right_angles_are_among_them():
    turns = rotations(3)
    for degrees in ((90, 0, 0), (0, -90, 180), (180, 0, 0)):
        assert np.abs(turns - rotation(*degrees)).max(axis=(1, 2)).min() < 1e-12


def test_mutual_information_of_an_image_with_itself_is_its_entropy_and_with_noise_none():
    """Four equally frequent values: log 4. Independent values: nothing but the histogram's bias."""
    rng = np.random.default_rng(0)
    values = rng.permutation(np.repeat([0, 0.3, 0.6, 1.0], 2000)).reshape(20, 20, 20)
    image = values, np.eye(4), None
    assert mutual_information_of(image, image)(np.eye(4)) == pytest.approx(np.log(4))
    noise = rng.permutation(values.ravel()).reshape(values.shape), np.eye(4), None
    assert mutual_information_of(image, noise)(np.eye(4)) < 2 * 9 / (2 * values.size)
    assert mutual_information_of(image, image)(pull(np.eye(3), (500, 0, 0))) == 0
    assert BINS > 4


def test_masks_leave_out_what_does_not_belong():
    rng = np.random.default_rng(0)
    image, mask = rng.random((12, 12, 12)), np.zeros((12, 12, 12), bool)
    mask[:6] = True
    spoiled = np.where(mask, image, rng.random(image.shape))
    clean = mutual_information_of((image, np.eye(4), mask), (image, np.eye(4), None))(np.eye(4))
    for moving_mask in (None, mask):
        found = mutual_information_of((spoiled, np.eye(4), mask), (image, np.eye(4), moving_mask))(np.eye(4))
        assert found == pytest.approx(clean)


def test_the_angle_of_a_rotation_is_its_own():
    assert angle_deg(rotation(0, 0, 37)) == pytest.approx(37)
    assert angle_deg(rotation_of(np.array([-2.0]))) == pytest.approx(np.degrees(2))


def test_the_headers_are_a_start_where_the_centers_mislead():
    starts = Starts(coarse(), coarse(), (np.zeros(3), np.array([0.0, 0, 45])))
    assert error_mm(starts.best(), np.eye(4), FIXED, SIZE) < 3


@pytest.mark.parametrize("degrees", [(5, -4, 3), (0, 0, 40), (50, 60, -70), (0, 180, 0)], ids=str)
def test_a_turned_image_is_started_near_its_turn(degrees):
    """Within a voxel of the coarse grid, though the centers are 6 mm off; other orientations are worse."""
    true = pull(rotation(*degrees), (12, 3, -8))
    starts = Starts(coarse(), coarse(np.linalg.inv(true)), (np.zeros(3), np.array([16.0, 0, -5])))
    found = starts.best()
    assert error_mm(found, true, FIXED, SIZE) < 6
    elsewhere = starts.about_centers(rotation(*degrees) @ rotation(100, 0, 0))
    assert starts.lead(found) > 1.2 and starts.lead(elsewhere) < 1
