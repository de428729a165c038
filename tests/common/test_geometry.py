import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from common.errors import RegInputError
from common.geometry import (
    ddf_to_mm,
    inverse_displacement_mm,
    mm_to_ddf,
    mm_to_voxels,
    ras_to_lps,
    resample_mm,
    spatial_affine,
    total_displacement_mm,
    transform_points,
    voxel_offset,
    voxels_to_mm,
    warp_mm,
)

SIZE = (14, 12, 10)


def affine_of(rotation_deg, spacing_mm, origin_mm, flip=()):
    matrix = np.eye(4)
    signs = [-1.0 if k in flip else 1.0 for k in range(3)]
    turn = Rotation.from_euler("xyz", rotation_deg, degrees=True).as_matrix()
    matrix[:3, :3] = turn @ np.diag(np.array(spacing_mm) * signs)
    matrix[:3, 3] = origin_mm
    return matrix


GRIDS = {
    "axis aligned 1 mm": affine_of((0, 0, 0), (1, 1, 1), (0, 0, 0)),
    "flipped, anisotropic": affine_of((0, 0, 0), (1, 1.3, 2), (40, -25, 7), flip=(0, 1)),
    "oblique, anisotropic": affine_of((20, -15, 30), (1.2, 0.9, 1.7), (-12, 31, 5)),
    "oblique, left-handed": affine_of((-25, 10, 40), (0.8, 1.5, 1.1), (9, -8, 60), flip=(2,)),
}
INITIAL = np.array([[1.02, 0.05, 0, 1.5], [-0.04, 0.97, 0.03, -2.0], [0.01, 0, 1.04, 1.0], [0, 0, 0, 1]])


@pytest.fixture(params=list(GRIDS), ids=list(GRIDS))
def fixed_affine(request):
    return GRIDS[request.param]


def smooth_ddf(size, voxels=1.2, seed=0):
    noise = np.random.default_rng(seed).normal(size=(1, len(size), *size))
    smooth = gaussian_filter(noise, (0, 0, *[2] * len(size)))
    return torch.from_numpy(smooth * voxels / np.abs(smooth).max())


def smooth_image(size, seed=1):
    image = gaussian_filter(np.random.default_rng(seed).normal(size=size), 1)
    return torch.from_numpy((image - image.min()) / np.ptp(image))[None, None]


def about_center(linear, affine, size):
    """A world affine that keeps the middle of a grid where it is, so that samples stay inside."""
    center = affine @ np.append((np.array(size) - 1) / 2, 1)
    shift, back = np.eye(len(size) + 1), np.eye(len(size) + 1)
    shift[:-1, -1], back[:-1, -1] = center[:-1], -center[:-1]
    return shift @ linear @ back


def centered_on(fixed_affine, affine, size):
    """``affine`` with the middle of its grid where the fixed grid has its middle."""
    matrix = affine.copy()
    middle = fixed_affine @ np.append((np.array(SIZE) - 1) / 2, 1)
    matrix[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return matrix


def explicit_total(ddf, network, fixed, size, initial):
    """The definition, point by point with scipy: initial @ (x + A_network u(x)) - x at each fixed voxel."""
    ndim = len(size)
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")).reshape(ndim, -1)
    world = fixed[:-1, :-1] @ index + fixed[:-1, -1:]
    at = np.linalg.inv(network) @ np.vstack([world, np.ones(world.shape[1])])
    moved = np.stack([map_coordinates(c, at[:-1], order=1, mode="nearest") for c in ddf[0].numpy()])
    there = initial @ np.vstack([world + network[:-1, :-1] @ moved, np.ones(world.shape[1])])
    return (there[:-1] - world).reshape(ndim, *size)


def test_total_displacement_is_its_definition_on_another_grid_with_an_affine(fixed_affine):
    network = affine_of((5, 10, -8), (1.5, 1.4, 1.6), fixed_affine[:3, 3] - 1, flip=(0,))
    ddf = smooth_ddf((11, 9, 12))
    initial = about_center(INITIAL, fixed_affine, SIZE)
    total = total_displacement_mm(ddf, network, fixed_affine, SIZE, initial)
    np.testing.assert_allclose(total[0], explicit_total(ddf, network, fixed_affine, SIZE, initial), atol=1e-9)


def test_total_displacement_of_a_float32_field_is_good_to_a_thousandth_of_a_millimeter_far_from_the_origin():
    fixed = affine_of((20, -15, 30), (1.2, 0.9, 1.7), (900, -1200, 700))
    network = affine_of((0, 0, 0), (2, 2, 2), (895, -1205, 700))
    ddf = smooth_ddf((11, 9, 12))
    total = total_displacement_mm(ddf.float(), network, fixed, SIZE, INITIAL)
    assert total.dtype == torch.float32
    np.testing.assert_allclose(total[0], explicit_total(ddf, network, fixed, SIZE, INITIAL), atol=1e-3)


def test_total_displacement_on_the_networks_own_grid_is_the_field_in_mm(fixed_affine):
    ddf = smooth_ddf(SIZE)
    total = total_displacement_mm(ddf, fixed_affine, fixed_affine, SIZE)
    torch.testing.assert_close(total, ddf_to_mm(ddf, fixed_affine), atol=1e-9, rtol=0)


def test_total_displacement_keeps_its_border_value_outside_the_networks_grid():
    ddf = torch.full((1, 3, 4, 4, 4), 0.5)
    total = total_displacement_mm(ddf, np.diag([2.0, 2, 2, 1]), np.eye(4), (20, 20, 20))
    torch.testing.assert_close(total, torch.ones(1, 3, 20, 20, 20))


@pytest.mark.parametrize("initial", [None, INITIAL], ids=["headers", "affine"])
def test_the_way_back_is_its_definition_on_the_moving_grid(fixed_affine, initial):
    """``x = z + w(z)`` at ``z = initial^-1 y``: an affine w, which linear interpolation keeps, is known everywhere."""
    network = affine_of((5, 10, -8), (1.5, 1.4, 1.6), fixed_affine[:3, 3] - 1, flip=(0,))
    moving, size = affine_of((-20, 8, 3), (1.1, 1.3, 1.2), fixed_affine[:3, 3] + 2), (8, 9, 7)
    start = np.eye(4) if initial is None else about_center(initial, fixed_affine, SIZE)
    slope, shift = 0.02 * np.random.default_rng(0).standard_normal((3, 3)), np.array([0.4, -0.3, 0.2])
    index = np.moveaxis(np.indices((60, 60, 60)), 0, -1) - 20.0  # so large that the moving grid lies inside
    wide = network.copy()
    wide[:3, 3] = network[:3, :3] @ [-20, -20, -20] + network[:3, 3]
    inverse = torch.from_numpy(np.moveaxis(index @ slope.T + shift, -1, 0))[None]
    found = inverse_displacement_mm(inverse, wide, moving, size, None if initial is None else start)
    y = voxels_to_mm(np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 3), moving)
    z = voxels_to_mm(y, np.linalg.inv(start))
    voxels = mm_to_voxels(z, network)
    assert (voxels > -20).all() and (voxels < 39).all()
    expected = z + (voxels @ slope.T + shift) @ network[:3, :3].T - y
    np.testing.assert_allclose(np.moveaxis(found[0].numpy(), 0, -1).reshape(-1, 3), expected, atol=1e-6)


def test_total_displacement_handles_a_batch_in_2d():
    ddf = torch.cat([smooth_ddf((9, 8), seed=s) for s in (0, 1)])
    network, fixed = np.diag([2.0, -1.5, 1]), np.array([[0, 1.2, 3], [-1.1, 0, -2], [0, 0, 1.0]])
    initial = np.array([[1.1, 0.2, -1], [0, 0.9, 2], [0, 0, 1]])
    total = total_displacement_mm(ddf, network, fixed, (10, 7), initial)
    for one, field in zip(total, ddf, strict=True):
        np.testing.assert_allclose(one, explicit_total(field[None], network, fixed, (10, 7), initial), atol=1e-9)


def test_voxels_and_mm_are_inverse_and_agree_with_the_matrix(fixed_affine):
    points = np.random.default_rng(0).uniform(0, 10, (20, 3))
    world = voxels_to_mm(points, fixed_affine)
    np.testing.assert_allclose(world[4], (fixed_affine @ np.append(points[4], 1))[:3], atol=1e-12)
    np.testing.assert_allclose(mm_to_voxels(world, fixed_affine), points, atol=1e-10)


def test_a_field_goes_to_mm_and_back(fixed_affine):
    ddf = smooth_ddf(SIZE)
    torch.testing.assert_close(mm_to_ddf(ddf_to_mm(ddf, fixed_affine), fixed_affine), ddf)


def test_a_field_in_mm_is_the_difference_of_two_world_points(fixed_affine):
    ddf = smooth_ddf(SIZE)
    voxel = np.array([3, 7, 4])
    step = ddf[0, :, 3, 7, 4].numpy()
    expected = voxels_to_mm([voxel + step], fixed_affine) - voxels_to_mm([voxel], fixed_affine)
    np.testing.assert_allclose(ddf_to_mm(ddf, fixed_affine)[0, :, 3, 7, 4], expected[0], atol=1e-10)


def test_lps_negates_right_and_anterior_in_3d_and_2d():
    np.testing.assert_array_equal(ras_to_lps([[1.0, 2, 3]]), [[-1, -2, 3]])
    np.testing.assert_array_equal(ras_to_lps([[1.0, 2]]), [[-1, -2]])


def test_warping_through_mm_equals_simpleitk_on_another_moving_grid(fixed_affine):
    """SimpleITK gets both grids and the field as a transform, made here without our files."""
    moving = smooth_image((18, 17, 16))
    moving_affine = centered_on(
        fixed_affine, affine_of((10, 5, -20), (1.1, 1.0, 1.3), (0, 0, 0), flip=(1,)), (18, 17, 16)
    )
    ddf_mm = ddf_to_mm(smooth_ddf(SIZE), fixed_affine)
    ours = warp_mm(moving, moving_affine, ddf_mm, fixed_affine)[0, 0].numpy()
    theirs, inside = sitk_resample(moving[0, 0].numpy(), moving_affine, ddf_mm[0].numpy(), fixed_affine)
    assert inside.mean() > 0.2
    assert np.abs(ours - theirs)[inside].max() <= 1e-4


@pytest.mark.parametrize("fault", ["no LPS flip", "voxels for mm", "axes reversed"])
def test_each_wrong_convention_is_seen_by_the_comparison_with_simpleitk(fault):
    """Negative controls: were a fault invisible here (it is on 1 mm identity grids), the test above would be void."""
    fixed_affine = GRIDS["oblique, left-handed"]
    moving = smooth_image(SIZE)
    ddf = smooth_ddf(SIZE, voxels=2)
    ddf_mm = ddf_to_mm(ddf, fixed_affine)
    wrong = {
        "no LPS flip": ddf_mm * torch.tensor([-1.0, -1, 1]).view(1, 3, 1, 1, 1),
        "voxels for mm": ddf,
        "axes reversed": ddf_mm.flip(1),
    }[fault]
    theirs, inside = sitk_resample(moving[0, 0].numpy(), fixed_affine, wrong[0].numpy(), fixed_affine)
    ours = warp_mm(moving, fixed_affine, ddf_mm, fixed_affine)[0, 0].numpy()
    assert np.abs(ours - theirs)[inside].max() >= 0.05


def sitk_image(array, affine, vector=False):
    """A SimpleITK image of (X, Y, Z[, component]) on a RAS grid; vectors are turned to LPS here."""
    flip = np.diag([-1.0, -1, 1])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.moveaxis(array, (0, 1, 2), (2, 1, 0)).astype(np.float64), isVector=vector)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((flip @ affine[:3, 3]).tolist())
    image.SetDirection((flip @ affine[:3, :3] / spacing).ravel().tolist())
    return image


def sitk_resample(moving, moving_affine, ddf_mm, fixed_affine):
    """(image, where it is inside) by SimpleITK; ddf_mm is (3, *S), RAS."""
    field = sitk_image(np.moveaxis(ddf_mm, 0, -1) * [-1, -1, 1], fixed_affine, vector=True)
    transform = sitk.DisplacementFieldTransform(field)
    grid = sitk_image(np.zeros(ddf_mm.shape[1:]), fixed_affine)
    results = [
        sitk.GetArrayFromImage(sitk.Resample(sitk_image(voxels, moving_affine), grid, transform, sitk.sitkLinear)).T
        for voxels in (moving, np.pad(np.ones(np.array(moving.shape) - 2), 1))  # ours fades within the last half voxel
    ]
    return results[0], results[1] > 1 - 1e-9


def test_labels_stay_whole_numbers_and_shift_by_one_voxel_on_an_oblique_grid():
    affine = GRIDS["oblique, left-handed"]
    labels = torch.randint(0, 200, (1, 1, *SIZE), dtype=torch.uint8)
    ddf = torch.zeros(1, 3, *SIZE)
    ddf[:, 1] = 1
    warped = warp_mm(labels, affine, ddf_to_mm(ddf, affine), affine, mode="nearest")
    assert warped.dtype == torch.uint8
    assert torch.equal(warped[..., :-1, :], labels[..., 1:, :])
    assert not warped[..., -1, :].any()


def test_resampling_to_the_same_world_points_of_a_finer_grid_keeps_a_linear_image():
    affine, fine = np.diag([2.0, -2, 3, 1]), np.diag([1.0, -1, 1, 1])
    ramp = torch.from_numpy(sum(np.indices((5, 6, 4)) * np.array([2, -2, 3]).reshape(3, 1, 1, 1)).astype(float))
    expected = sum(np.indices((9, 11, 10)) * np.array([1, -1, 1]).reshape(3, 1, 1, 1))
    ours = resample_mm(ramp[None, None], affine, fine, (9, 11, 10))
    np.testing.assert_allclose(ours[0, 0], expected, atol=1e-5)


def test_resampling_through_an_affine_reads_the_image_at_its_image():
    shift = np.eye(4)
    shift[:3, 3] = 2, 0, 0  # 2 mm right in the world is one voxel to the left of this image
    image = torch.rand(1, 1, 5, 4, 3)
    moved = resample_mm(image, np.diag([-2.0, 1, 1, 1]), np.diag([-2.0, 1, 1, 1]), (5, 4, 3), shift)
    torch.testing.assert_close(moved[:, :, 1:], image[:, :, :-1])


def test_resampling_through_a_full_affine_is_its_definition(fixed_affine):
    """Each target voxel reads the image at ``inv(affine) @ initial @ target_affine @ voxel``, by scipy."""
    image, initial = smooth_image(SIZE), about_center(INITIAL, fixed_affine, SIZE)
    target_size = (9, 10, 11)
    target = centered_on(fixed_affine, GRIDS["flipped, anisotropic"], target_size)
    onto = np.linalg.inv(fixed_affine) @ initial @ target
    at = voxels_to_mm(np.indices(target_size).reshape(3, -1).T, onto)
    expected = map_coordinates(image[0, 0].numpy(), at.T, order=1, mode="grid-constant").reshape(target_size)
    ours = resample_mm(image, fixed_affine, target, target_size, initial)[0, 0]
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_integer_images_are_resampled():
    image = torch.arange(8, dtype=torch.int16).view(1, 1, 2, 2, 2)
    assert torch.equal(resample_mm(image, np.eye(4), np.eye(4), (2, 2, 2), mode="nearest"), image)


def test_points_move_to_where_the_warped_image_looks(fixed_affine):
    """Sampling the moving image at transformed points gives the warped image."""
    moving, ddf_mm = smooth_image(SIZE), ddf_to_mm(smooth_ddf(SIZE), fixed_affine)
    warped = warp_mm(moving, fixed_affine, ddf_mm, fixed_affine, padding_mode="border")[0, 0].numpy()
    voxels = np.array([[3, 4, 5], [7, 2, 6], [10, 9, 3]])
    there = transform_points(voxels_to_mm(voxels, fixed_affine), ddf_mm, fixed_affine)
    seen = map_coordinates(moving[0, 0].numpy(), mm_to_voxels(there, fixed_affine).T, order=1, mode="nearest")
    np.testing.assert_allclose(seen, warped[tuple(voxels.T)], atol=1e-9)


def test_a_voxel_offset_leads_from_fixed_indices_to_where_its_world_point_lies_in_the_moving_voxels(fixed_affine):
    moving_affine = affine_of((5, 25, -10), (1.1, 1.4, 0.7), (3, -4, 5))
    ddf_mm = 5 * smooth_ddf(SIZE)
    indices = np.indices(SIZE).reshape(3, -1).T
    there = voxels_to_mm(indices, fixed_affine) + ddf_mm[0].reshape(3, -1).T.numpy()
    expected = mm_to_voxels(there, moving_affine) - indices
    offset = voxel_offset(ddf_mm, fixed_affine, moving_affine)[0].reshape(3, -1).T
    np.testing.assert_allclose(offset.numpy(), expected, atol=1e-9)


def test_a_voxel_offset_within_one_grid_is_the_field_in_its_voxels(fixed_affine):
    ddf_mm = smooth_ddf(SIZE)
    assert torch.equal(voxel_offset(ddf_mm, fixed_affine, fixed_affine), mm_to_ddf(ddf_mm, fixed_affine))


def test_points_between_voxels_move_linearly_and_keep_the_border_value_outside():
    ddf_mm = torch.zeros(1, 2, 3, 3)
    ddf_mm[0, 1, 2] = 4
    points = np.array([[1.25, 1.0], [9.0, 1.0]])
    np.testing.assert_allclose(transform_points(points, ddf_mm, np.eye(3)), points + np.array([[0, 1], [0, 4]]))


def test_a_nifti_affine_of_a_2d_image_loses_its_third_axis():
    full = np.array([[2.0, 0, 0, 5], [0, -3, 0, 6], [0, 0, 1, 9], [0, 0, 0, 1]])
    np.testing.assert_array_equal(spatial_affine(full, 2), [[2, 0, 5], [0, -3, 6], [0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "text"),
    [
        (np.eye(3), r"shape \(3, 3\), expected \(4, 4\)"),
        (np.diag([1, 0, 1, 1.0]), "cannot be inverted"),
        (np.diag([1, np.nan, 1, 1.0]), "cannot be inverted"),
    ],
)
def test_unusable_affines_are_refused(affine, text):
    with pytest.raises(RegInputError, match=text):
        spatial_affine(affine, 3)
