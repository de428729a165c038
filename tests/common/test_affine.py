import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from common.affine import check_alignment, itk_transform, matrix_of, register_affine
from common.errors import RegInputError, RegNumericsError
from common.geometry import voxels_to_mm

from .test_geometry import affine_of

SIZE = (30, 28, 25)  # voxels of 3 mm
FIXED = affine_of((0, 0, 0), (3, 3, 3), (-43.5, -40.5, -36))
OTHER = affine_of((15, -10, 160), (2.7, 3.2, 3.4), (0, 0, 0), flip=(2,))  # oblique, anisotropic, left-handed
OTHER_SIZE = (34, 30, 26)


def body(points):
    """An asymmetric "organ" about the world's origin, at points (..., N) mm: an ellipsoid of 1 with sixty blobs."""
    ndim = points.shape[-1]
    rng = np.random.default_rng(5)
    radii = np.array([34.0, 30, 26])[:ndim]
    soft = 1 / (1 + np.exp((np.linalg.norm(points / radii, axis=-1) - 1) * 12))
    for _ in range(60):
        center, width, height = rng.uniform(-0.8, 0.8, ndim) * radii, rng.uniform(4, 7), rng.uniform(-0.7, 0.9)
        soft = soft + height * np.exp(-((points - center) ** 2).sum(-1) / (2 * width**2))
    return soft


def centered(affine, size, at):
    matrix = affine.copy()
    matrix[:-1, -1] = np.asarray(at) - affine[:-1, :-1] @ ((np.array(size) - 1) / 2)
    return matrix


def sample(affine, size, to_body=None):
    """The organ on a grid, without any interpolation; ``to_body`` takes the grid's world to the organ's."""
    points = voxels_to_mm(np.stack(np.indices(size), -1).reshape(-1, len(size)), affine)
    if to_body is not None:
        points = voxels_to_mm(points, to_body)  # the same arithmetic: a matrix on points
    return body(points).reshape(size)


def pull(linear, shift):
    matrix = np.eye(len(shift) + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, shift
    return matrix


def error_mm(found, true, affine, size):
    """Largest distance between where two matrices take the fixed points of the organ."""
    points = voxels_to_mm(np.stack(np.indices(size), -1).reshape(-1, len(size)), affine)
    points = points[body(points) > 0.5]
    return np.linalg.norm(voxels_to_mm(points, found) - voxels_to_mm(points, true), axis=1).max()


def rotation(*degrees):
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


TRUE = pull(
    rotation(7, -6, 10) @ np.diag([1.1, 0.92, 1.05]) @ (np.eye(3) + np.triu(np.full((3, 3), 0.04), 1)), (9, -7, 5)
)


@pytest.fixture(scope="module")
def fixed():
    return sample(FIXED, SIZE), FIXED


@pytest.fixture(scope="module")
def moving():
    """The organ after ``TRUE``, on a grid of another kind, in another contrast."""
    affine = centered(OTHER, OTHER_SIZE, (12, -5, 4))
    return 3 - np.sqrt(np.abs(sample(affine, OTHER_SIZE, np.linalg.inv(TRUE)) + 1)), affine


def test_a_known_affine_is_found_between_grids_and_contrasts(fixed, moving):
    """Pull direction, world coordinates and all twelve numbers at once; half a voxel at the worst point."""
    assert error_mm(np.eye(4), TRUE, FIXED, SIZE) > 12
    assert error_mm(register_affine(fixed, moving).matrix, TRUE, FIXED, SIZE) < 1


def test_a_large_turn_is_found(fixed):
    """45 degrees: all twelve numbers at once end 26 mm off; turning first and stretching then does not."""
    true = pull(rotation(0, 0, 45) @ np.diag([1.1, 0.95, 1.05]), (9, -7, 5))
    affine = centered(OTHER, OTHER_SIZE, (9, -7, 5))
    found = register_affine(fixed, (sample(affine, OTHER_SIZE, np.linalg.inv(true)), affine)).matrix
    assert error_mm(found, true, FIXED, SIZE) < 1


@pytest.mark.parametrize("degrees", [(0, 0, 90), (180, 0, 0), (70, -40, 120)], ids=str)
def test_any_orientation_is_found_without_a_start(fixed, degrees):
    true = pull(rotation(*degrees) @ np.diag([1.05, 0.97, 1.03]), (9, -7, 5))
    affine = centered(OTHER, OTHER_SIZE, (9, -7, 5))
    result = register_affine(fixed, (sample(affine, OTHER_SIZE, np.linalg.inv(true)), affine))
    assert error_mm(result.matrix, true, FIXED, SIZE) < 1
    assert result.lead > 1.2 and result.overlap > 0.7


def test_any_orientation_is_found_in_2d():
    size, affine = (120, 104), np.array([[0, -0.75, 38], [0.75, 0, -44], [0, 0, 1]])
    turn = np.radians(130)
    true = pull([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], (6, -4))
    moving = sample(affine, size, np.linalg.inv(true)), affine
    assert error_mm(register_affine((sample(affine, size), affine), moving).matrix, true, affine, size) < 0.75


def test_a_result_that_another_orientation_surpasses_is_told(fixed, caplog):
    true = pull(rotation(0, 0, 175), (0, 0, 0))
    moving = sample(FIXED, SIZE, np.linalg.inv(true)), FIXED
    assert register_affine(fixed, moving, initial=np.eye(4)).lead < 1
    assert "as similar as other orientations" in caplog.text


def test_a_wrong_origin_in_a_header_does_not_matter(fixed, moving):
    away, here = pull(np.eye(3), (900, -400, 250)), pull(np.eye(3), (-300, 200, 100))
    found = register_affine((fixed[0], here @ FIXED), (moving[0], away @ moving[1])).matrix
    assert error_mm(np.linalg.inv(away) @ found @ here, TRUE, FIXED, SIZE) < 1


def test_a_matrix_survives_its_way_through_itk_whatever_the_center():
    for name, suffix, matrix in (
        ("AffineTransform", "D3", TRUE),
        ("Euler3DTransform", "D", pull(rotation(3, 4, 5), (6, 7, 8))),
    ):
        there = itk_transform(name, suffix, matrix, np.array([30.0, -200, 1000]))
        np.testing.assert_allclose(matrix_of(there), matrix, atol=1e-9)


def test_the_same_seed_gives_the_same_bytes(fixed, moving):
    first, second = (register_affine(fixed, moving, seed=3) for _ in range(2))
    assert first.matrix.tobytes() == second.matrix.tobytes()
    assert first.metric == second.metric


def test_the_seed_chooses_the_voxels_where_not_all_are_taken(fixed, moving, monkeypatch):
    monkeypatch.setattr("common.affine.SAMPLES", 3000)
    first, second, other = (register_affine(fixed, moving, rigid=True, seed=seed).matrix for seed in (3, 3, 4))
    assert first.tobytes() == second.tobytes()
    assert 0 < error_mm(first, other, FIXED, SIZE) < 2


def test_rigid_alignment_finds_a_rotation_and_nothing_else(fixed):
    true = pull(rotation(8, 5, -12), (-6, 4, 8))
    moving = sample(FIXED, SIZE, np.linalg.inv(true)), FIXED
    found = register_affine(fixed, moving, rigid=True).matrix
    np.testing.assert_allclose(found[:3, :3].T @ found[:3, :3], np.eye(3), atol=1e-9)
    assert error_mm(found, true, FIXED, SIZE) < 0.5


def test_a_known_affine_is_found_in_2d():
    size, affine = (120, 104), np.array([[0, -0.75, 38], [0.75, 0, -44], [0, 0, 1]])
    true = pull([[1.05, 0.2], [-0.15, 0.95]], (6, -4))
    moving_affine = np.array([[0.7, 0, -42], [0, -0.7, 40], [0, 0, 1]])
    moving = sample(moving_affine, (120, 113), np.linalg.inv(true)), moving_affine
    found = register_affine((sample(affine, size), affine), moving).matrix
    assert found.shape == (3, 3)
    assert error_mm(np.eye(3), true, affine, size) > 8
    assert error_mm(found, true, affine, size) < 0.75


def test_the_metric_says_which_of_two_is_the_better_match(fixed, moving):
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SIZE), 2)
    assert register_affine(fixed, moving).metric < register_affine(fixed, (noise, FIXED)).metric - 0.2


@pytest.mark.parametrize("masks", [("fixed_mask",), ("moving_mask",), ("fixed_mask", "moving_mask"), ()])
def test_either_mask_keeps_out_what_does_not_belong_to_the_organ(fixed, masks):
    """A third of the grid is strong texture that moves the other way; without a mask that wins."""
    true = pull(np.eye(3), (5, 0, 0))
    moving = sample(FIXED, SIZE, np.linalg.inv(true))
    texture = 20 * gaussian_filter(np.random.default_rng(2).normal(size=(*SIZE[:2], 9)), 1.2)
    spoiled_fixed, spoiled_moving = fixed[0].copy(), moving.copy()
    spoiled_fixed[..., :9], spoiled_moving[..., :9] = texture, np.roll(texture, -3, axis=0)
    mask = np.zeros(SIZE)
    mask[..., 9:] = 1
    images = (spoiled_fixed, FIXED), (spoiled_moving, FIXED)
    error = error_mm(register_affine(*images, rigid=True, **dict.fromkeys(masks, mask)).matrix, true, FIXED, SIZE)
    assert error < 1 if masks else error > 3


def test_a_start_is_used(fixed):
    """A start is not searched for where one is given: near half a turn it is found, from no turn it is not."""
    true = pull(rotation(0, 0, 175), (0, 0, 0))
    moving = sample(FIXED, SIZE, np.linalg.inv(true)), FIXED
    near = pull(rotation(0, 0, 165), (2, 0, 0))
    assert error_mm(register_affine(fixed, moving, initial=near).matrix, true, FIXED, SIZE) < 1
    assert error_mm(register_affine(fixed, moving, initial=np.eye(4)).matrix, true, FIXED, SIZE) > 10
    sheared = near @ pull(np.diag([1.1, 1, 0.9]), (0, 0, 0))
    assert error_mm(register_affine(fixed, moving, initial=sheared).matrix, true, FIXED, SIZE) < 1


def test_a_start_that_scales_is_refused_for_rigid_alignment(fixed, moving):
    with pytest.raises(RegInputError, match="no rigid motion"):
        register_affine(fixed, moving, rigid=True, initial=np.diag([1.2, 1, 1, 1]))


def test_images_that_never_meet_are_a_numerical_fault(fixed, moving):
    with pytest.raises(RegNumericsError, match="same body part"):
        register_affine(fixed, moving, initial=pull(np.eye(3), (5000, 0, 0)))


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        (pull(np.eye(3), (95, 0, 0)), "0% overlap"),
        (np.diag([3.0, 3, 3, 1]), "27 times the volume"),
        (np.diag([-1.0, 1, 1, 1]), "-1 times the volume"),
        (np.full((4, 4), np.nan), "nan times the volume"),
    ],
)
def test_a_result_that_cannot_be_an_alignment_is_a_numerical_fault(matrix, text):
    image = np.zeros(SIZE), FIXED, None
    assert 0.5 < check_alignment(TRUE, [image, image]) < 1
    assert check_alignment(np.eye(4), [image, image]) == 1
    with pytest.raises(RegNumericsError, match=text):
        check_alignment(matrix, [image, image])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"moving": (np.zeros((9, 9)), np.eye(3))}, "3 and 2 axes"),
        ({"moving": (np.ones((9, 9, 9)), np.eye(4))}, "moving image runs from 1 to 1"),
        ({"fixed": (np.full((9, 9, 9), np.nan), np.eye(4))}, "fixed image runs from nan"),
        ({"fixed_mask": np.ones((3, 3, 3))}, r"fixed mask has shape \(3, 3, 3\)"),
        ({"moving_mask": np.zeros(OTHER_SIZE)}, "moving mask has shape .* and 0 voxels"),
    ],
)
def test_input_that_cannot_be_aligned_is_refused(fixed, moving, change, text):
    arguments = {"fixed": fixed, "moving": moving} | change
    with pytest.raises(RegInputError, match=text):
        register_affine(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("1001", 0.40), ("1002", 0.42), ("1006", 0.39), ("1007", 0.41)])
def test_real_brains_overlap_after_alignment_as_after_a_plain_affine(name, least):
    """Mean Dice over shared labels onto subject 1000, whose headers say nothing; 0.01 under the published trial."""
    root = os.environ.get("REGBUNDLES_TEST_DATA")
    if not root:
        pytest.skip("REGBUNDLES_TEST_DATA is not set: it names the folder of real scans")
    scans = {key: load_malc(Path(root, "malc"), key) for key in ("1000", name)}
    assert dice_after_alignment(scans["1000"], scans[name]) >= least


@pytest.mark.slow
@pytest.mark.parametrize("resampled", [False, True], ids=["header turned", "voxels turned"])
@pytest.mark.parametrize("degrees", [40, 90, 180])
def test_a_turned_real_brain_is_aligned_as_well_as_the_one_that_was_not(degrees, resampled):
    """Mean Dice of 1001 onto 1000 within 0.01."""
    root = os.environ.get("REGBUNDLES_TEST_DATA")
    if not root:
        pytest.skip("REGBUNDLES_TEST_DATA is not set: it names the folder of real scans")
    fixed, moving = (load_malc(Path(root, "malc"), key) for key in ("1000", "1001"))
    turn = pull(Rotation.from_rotvec(np.radians(degrees) * np.array([1, 2, 3]) / np.sqrt(14)).as_matrix(), (5, 0, -9))
    turned = resampled_volume(*moving, turn) if resampled else (*moving[:2], turn @ moving[2])
    assert dice_after_alignment(fixed, turned) >= dice_after_alignment(fixed, moving) - 0.01


def resampled_volume(voxels, labels, affine, turn):
    """The scan turned about its center inside a grid large enough, in its own world."""
    size = np.full(3, int(np.ceil(np.linalg.norm(voxels.shape))))
    onto = np.linalg.inv(turn[:3, :3])
    shift = (np.array(voxels.shape) - 1) / 2 - onto @ ((size - 1) / 2)
    turned = [affine_transform(array, onto, shift, size, order=order) for array, order in ((voxels, 1), (labels, 0))]
    return (*turned, affine)


def dice_after_alignment(fixed_scan, moving_scan):
    """Mean over shared labels, nearest neighbor."""
    (fixed, fixed_labels, fixed_affine), (moving, moving_labels, moving_affine) = fixed_scan, moving_scan
    found = register_affine((fixed, fixed_affine), (moving, moving_affine)).matrix
    onto = np.linalg.inv(moving_affine) @ found @ fixed_affine
    warped = affine_transform(moving_labels, onto[:3, :3], onto[:3, 3], fixed.shape, order=0)
    shared = (set(np.unique(fixed_labels)) & set(np.unique(moving_labels))) - {0}
    dice = [
        2 * ((fixed_labels == v) & (warped == v)).sum() / ((fixed_labels == v).sum() + (warped == v).sum())
        for v in shared
    ]
    return np.mean(dice)


def load_malc(folder, name):
    image, labels = nib.load(folder / f"{name}_SS.nii.gz"), nib.load(folder / f"{name}_glm.nii.gz")
    return image.get_fdata(dtype=np.float32), np.asarray(labels.dataobj), image.affine
