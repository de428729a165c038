import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, Orientation, RandFlipd, ResampleToMatch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from common.errors import RegInputError
from common.transforms import ScaleForegroundPercentiled, StackPaird, ToIntegerLabeld, ToNetworkGridd

CODES = ["LIA", "RAS", "PSR", "SLA"]


def affine_of(spacing, angles=(0, 0, 0), flips=(1, 1, 1), origin=(0, 0, 0)):
    """Voxel -> RAS mm of a turned, flipped, anisotropic grid."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(np.multiply(spacing, flips))
    affine[:3, 3] = origin
    return affine


FIXED = {
    "plain": affine_of((2, 2, 2)),
    "anisotropic": affine_of((1, 2, 3.5), origin=(4, -9, 30)),
    "oblique": affine_of((1.5, 2, 2.5), (20, -15, 30), origin=(-8, 3, 5)),
    "left-handed": affine_of((1.5, 2, 2.5), flips=(1, -1, 1), origin=(2, 20, 5)),
    "oblique left-handed": affine_of((1.2, 1.4, 3), (10, 25, -12), (-1, 1, 1), (12, -6, 3)),
}


def image_on(affine, size, seed=0):
    return MetaTensor(torch.from_numpy(np.random.default_rng(seed).random((1, *size))).float(), affine=affine)


def at_world(image, affine, points_mm):
    """Independent oracle: scipy's linear interpolation at world coordinates (3, ...), its minimum outside."""
    voxels = np.linalg.solve(affine, np.concatenate([points_mm, np.ones_like(points_mm[:1])]).reshape(4, -1))[:3]
    array = np.asarray(image[0], dtype=float)
    values = map_coordinates(array, voxels, order=1, mode="nearest")
    limit = np.array(array.shape)[:, None] - 0.5
    inside = ((voxels >= -0.5) & (voxels <= limit)).all(axis=0)
    sure = (np.abs(voxels + 0.5) > 1e-4).all(axis=0) & (np.abs(voxels - limit) > 1e-4).all(axis=0)  # not on the edge
    return np.where(inside, values, array.min()).reshape(points_mm.shape[1:]), sure.reshape(points_mm.shape[1:])


def world_of_grid(affine, size):
    return np.einsum("ij,j...->i...", affine[:3, :3], np.indices(size)) + affine[:3, 3].reshape(3, 1, 1, 1)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("case", FIXED)
def test_both_images_are_what_they_are_at_the_grids_world_coordinates(case, codes):
    """Fine grid, so that nothing is blurred; the moving image has its own oblique header and an initial transform."""
    initial = affine_of((1.1, 0.95, 1), (5, -8, 3), origin=(1.5, -2, 0.5))
    moving_affine = affine_of((2.5, 2, 3), (-12, 8, 17), (1, 1, -1))
    moving_affine[:, 3] += initial @ FIXED[case] @ [4, 5, 3, 1] - moving_affine @ [5, 4, 4, 1]  # center on center
    fixed, moving = image_on(FIXED[case], (9, 11, 7)), image_on(moving_affine, (10, 9, 8), seed=1)
    item = ToNetworkGridd(codes, (0.9, 0.8, 1.0))({"fixed": fixed, "moving": moving, "initial": initial.tolist()})
    points = world_of_grid(item["network_affine"], item["fixed"].shape[1:])
    moved = np.einsum("ij,j...->i...", initial[:3, :3], points) + initial[:3, 3].reshape(3, 1, 1, 1)
    for key, image, affine, where in (("fixed", fixed, FIXED[case], points), ("moving", moving, moving_affine, moved)):
        expected, sure = at_world(image, affine, where)
        assert sure.mean() > 0.9 and (expected[sure] != expected.min()).mean() > 0.4
        np.testing.assert_allclose(item[key][0].numpy()[sure], expected[sure], atol=2e-5)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("case", FIXED)
def test_the_grid_has_the_asked_orientation_and_spacing(case, codes):
    fixed = image_on(FIXED[case], (9, 11, 7))
    affine = ToNetworkGridd(codes, (1, 1.5, 2))({"fixed": fixed, "moving": fixed})["network_affine"]
    assert "".join(nib.aff2axcodes(affine)) == codes
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (1, 1.5, 2), rtol=1e-9)


@pytest.mark.parametrize("case", FIXED)
def test_the_grid_covers_the_fixed_field_of_view_and_little_more(case):
    """Every fixed voxel's cell, corners at -0.5 and n - 0.5, lies in the grid's cells; at most one voxel is added."""
    size, spacing = (9, 11, 7), (1.3, 0.7, 2.2)
    fixed = image_on(FIXED[case], size)
    item = ToNetworkGridd("LIA", spacing)({"fixed": fixed, "moving": fixed})
    corners = np.array([[x, y, z, 1] for x in (-0.5, 8.5) for y in (-0.5, 10.5) for z in (-0.5, 6.5)]).T
    voxels = (np.linalg.inv(item["network_affine"]) @ FIXED[case] @ corners)[:3]
    margin = np.array(item["fixed"].shape[1:]) - 0.5 - voxels.max(axis=1)
    assert (voxels.min(axis=1) >= -0.5 - 2e-3).all() and (margin >= -2e-3).all() and (margin < 0.5 + 1e-6).all()


def test_in_its_own_orientation_and_spacing_the_fixed_image_stays_as_it_is():
    affine = affine_of((1, 1.5, 2), (20, -15, 10), origin=(3, 4, 5))
    fixed = image_on(affine, (6, 7, 8))
    item = ToNetworkGridd("RAS", (1, 1.5, 2))({"fixed": fixed, "moving": fixed})
    np.testing.assert_allclose(item["network_affine"], affine, atol=1e-9)
    torch.testing.assert_close(item["fixed"].as_tensor(), fixed.as_tensor(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", FIXED)
def test_in_the_standard_orientation_a_grid_has_its_voxels_where_they_were(case):
    fixed = image_on(FIXED[case], (6, 7, 8))
    item = ToNetworkGridd("standard", None)({"fixed": fixed, "moving": fixed})
    assert "".join(nib.aff2axcodes(item["network_affine"])) == "LIA"
    values, there = at_world(fixed, FIXED[case], world_of_grid(item["network_affine"], item["fixed"].shape[1:]))
    assert sorted(item["fixed"].shape[1:]) == [6, 7, 8] and there.all()
    np.testing.assert_allclose(item["fixed"][0].numpy(), values, atol=1e-5)


def test_the_standard_orientation_of_slices_is_la():
    fixed = MetaTensor(torch.rand(1, 6, 7), affine=torch.eye(4).double())
    item = ToNetworkGridd("standard", None)({"fixed": fixed, "moving": fixed})
    assert "".join(nib.aff2axcodes(item["network_affine"])) == "LA"
    torch.testing.assert_close(item["fixed"].as_tensor(), fixed.as_tensor().flip(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", FIXED)
def test_by_default_the_grid_is_the_fixed_images_own(case):
    fixed = image_on(FIXED[case], (6, 7, 8))
    item = ToNetworkGridd(None, None)({"fixed": fixed, "moving": fixed})
    np.testing.assert_allclose(item["network_affine"], FIXED[case], atol=1e-9)
    torch.testing.assert_close(item["fixed"].as_tensor(), fixed.as_tensor(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("case", FIXED)
def test_a_turned_grid_keeps_each_axis_spacing(case, codes):
    """Its columns are the fixed ones, permuted and flipped."""
    fixed = image_on(FIXED[case], (6, 7, 8))
    affine = ToNetworkGridd(codes, None)({"fixed": fixed, "moving": fixed})["network_affine"]
    assert "".join(nib.aff2axcodes(affine)) == codes
    for column in affine[:3, :3].T:
        assert min(min(abs(column - o).max(), abs(column + o).max()) for o in FIXED[case][:3, :3].T) < 1e-9


def test_auto_makes_cubes_of_thick_slices_and_leaves_other_grids_alone():
    """Axial slices of 5 mm, turned to LIA: its second axis is theirs; all of them are covered."""
    thick = affine_of((0.5, 0.5, 5), (10, -5, 20), origin=(4, -9, 30))
    pair = {"fixed": image_on(thick, (30, 28, 6)), "moving": image_on(thick @ np.diag([2, 2, 0.2, 1]), (15, 14, 30))}
    item = ToNetworkGridd("LIA", "auto")(pair)
    edges = np.linalg.norm(item["network_affine"][:3, :3], axis=0)
    np.testing.assert_allclose(edges, 5 / 3)
    extent = edges * item["fixed"].shape[1:]
    covered = np.array([15, 30, 14])
    assert (extent > covered - 1e-6).all() and (extent - edges < covered).all()
    even = {"fixed": image_on(FIXED["oblique"], (9, 8, 7)), "moving": image_on(FIXED["oblique"], (9, 8, 7), seed=1)}
    assert torch.equal(ToNetworkGridd(None, "auto")(even)["fixed"], ToNetworkGridd(None, None)(even)["fixed"])


def test_a_spacing_that_is_no_number_is_refused():
    with pytest.raises(RegInputError, match="expected numbers, null or auto"):
        ToNetworkGridd(None, "fine")


@pytest.mark.parametrize("codes", CODES)
def test_reorienting_agrees_with_monai(codes):
    affine = affine_of((1, 1, 1), (8, 12, -9))
    fixed = image_on(affine, (6, 7, 8))
    item = ToNetworkGridd(codes, (1, 1, 1))({"fixed": fixed, "moving": fixed})
    expected = Orientation(codes, labels=None)(fixed)
    torch.testing.assert_close(item["fixed"].as_tensor(), expected.as_tensor(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(item["network_affine"], expected.affine.numpy(), atol=1e-9)


def test_inside_the_moving_image_agrees_with_monai():
    fixed = image_on(affine_of((2, 2, 2), (10, 5, 0)), (6, 6, 6))
    moving = image_on(affine_of((2.4, 2.5, 2.6), origin=(-8, -8, -8)), (15, 15, 15), seed=1)
    item = ToNetworkGridd("RAS", (2.1, 2.2, 2.25))({"fixed": fixed, "moving": moving})
    expected = ResampleToMatch(mode="bilinear", align_corners=True)(moving, item["fixed"])
    torch.testing.assert_close(item["moving"].as_tensor(), expected.as_tensor(), atol=1e-5, rtol=0)


def test_what_maps_back_is_kept():
    fixed_affine, moving_affine = FIXED["oblique"], affine_of((2, 2, 2), origin=(-10, 0, 0))
    fixed, moving = image_on(fixed_affine, (9, 11, 7)), image_on(moving_affine, (12, 10, 8))
    item = ToNetworkGridd("LIA", (2, 2, 2))({"fixed": fixed, "moving": moving})
    np.testing.assert_allclose(item["fixed_affine"], fixed_affine)
    np.testing.assert_allclose(item["moving_affine"], moving_affine)
    assert item["fixed_size"].tolist() == [9, 11, 7] and item["moving_size"].tolist() == [12, 10, 8]
    for key in ("fixed", "moving"):
        np.testing.assert_allclose(item[key].affine.numpy(), item["network_affine"])


def test_outside_the_moving_image_is_its_minimum():
    fixed, moving = image_on(np.eye(4), (8, 8, 8)), image_on(np.eye(4), (4, 8, 8)) - 1000
    found = ToNetworkGridd("RAS", (1, 1, 1))({"fixed": fixed, "moving": moving})["moving"]
    torch.testing.assert_close(found[:, :4].as_tensor(), moving.as_tensor(), atol=1e-2, rtol=0)
    assert torch.equal(found[:, 4:].as_tensor(), torch.full((1, 4, 8, 8), float(moving.min())))


def test_a_coarser_grid_averages_instead_of_aliasing():
    """A checkerboard at the old Nyquist frequency is gray at a third of the resolution."""
    board = torch.from_numpy(np.indices((24, 24, 24)).sum(axis=0) % 2).float()[None]
    fixed = MetaTensor(board, affine=np.eye(4))
    inner = ToNetworkGridd("RAS", (3, 3, 3))({"fixed": fixed, "moving": fixed})["fixed"][:, 1:-1, 1:-1, 1:-1]
    assert inner.shape == (1, 6, 6, 6) and (inner - 0.5).abs().max() < 0.01


@pytest.mark.parametrize("axis, blurred", [(0, True), (1, False), (2, False)])
def test_only_the_coarsened_axis_is_blurred(axis, blurred):
    """R becomes three times as coarse and the second axis; A and S keep their spacing."""
    stripes = torch.zeros(1, 18, 18, 18)
    stripes.narrow(axis + 1, 0, 18).copy_((torch.arange(18) % 2).reshape([-1 if k == axis else 1 for k in range(3)]))
    fixed = MetaTensor(stripes, affine=np.eye(4))
    inner = ToNetworkGridd("SLA", (1, 3, 1))({"fixed": fixed, "moving": fixed})["fixed"][:, 2:-2, 2:-2, 2:-2]
    contrast = float(inner.max() - inner.min())
    assert contrast < 0.02 if blurred else contrast > 0.999


def test_coarsening_keeps_a_ramp():
    fixed = MetaTensor(torch.arange(30.0).reshape(1, 30, 1, 1).expand(1, 30, 12, 12).clone(), affine=np.eye(4))
    item = ToNetworkGridd("RAS", (3, 3, 3))({"fixed": fixed, "moving": fixed})
    torch.testing.assert_close(
        item["fixed"][0, 2:-2, 2, 2].as_tensor(), 1 + 3 * torch.arange(2.0, 8), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("margin_mm, first, size", [(0, 6, 5), (2, 4, 9), (100, 0, 16)])
def test_margin_cuts_the_grid_to_the_content(margin_mm, first, size):
    voxels = torch.zeros(1, 16, 16, 16)
    voxels[:, 6:11, 6:11, 6:11] = 1
    fixed = MetaTensor(voxels, affine=np.eye(4))
    item = ToNetworkGridd("RAS", (1, 1, 1), margin_mm=margin_mm)({"fixed": fixed, "moving": fixed})
    assert item["fixed"].shape == (1, size, size, size) and item["network_affine"][:3, 3].tolist() == [first] * 3
    assert float(item["fixed"].sum()) == pytest.approx(125)


def test_margin_is_in_millimetres_of_each_array_axis():
    affine = np.eye(4)
    affine[:3, :3] = [[0, 1, 0], [0, 0, 2], [4, 0, 0]]  # array axes S, R, A of 4, 1 and 2 mm
    voxels = torch.zeros(1, 16, 16, 16)
    voxels[:, 6:11, 6:11, 6:11] = 1
    fixed = MetaTensor(voxels, affine=affine)
    found = ToNetworkGridd("SRA", (4, 1, 2), margin_mm=4)({"fixed": fixed, "moving": fixed})["fixed"]
    assert found.shape == (1, 5 + 2 * 1, 5 + 2 * 4, 5 + 2 * 2)


def test_two_dimensional_pairs_in_files(tmp_path):
    array = np.random.default_rng(0).random((9, 12), dtype=np.float32)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2, 1, 1])), tmp_path / "a.nii.gz")
    chain = Compose([LoadImaged(["fixed", "moving"], ensure_channel_first=True), ToNetworkGridd("LA", (2, 2))])
    item = chain({"fixed": tmp_path / "a.nii.gz", "moving": tmp_path / "a.nii.gz"})
    np.testing.assert_allclose(item["fixed"][0].numpy(), array[::-1], atol=1e-5)
    assert item["network_affine"].tolist() == [[-2, 0, 16], [0, 2, 0], [0, 0, 1]]


def test_masks_follow_their_images_to_the_nearest_voxel():
    initial, moving_affine = affine_of((1, 1, 1), (8, 0, 5), origin=(1.0, -2, 0.5)), FIXED["anisotropic"].copy()
    affines, center = {"fixed": FIXED["oblique left-handed"], "moving": moving_affine}, [5, 5.5, 4, 1]
    moving_affine[:, 3] += initial @ affines["fixed"] @ center - moving_affine @ center
    pair = {key: image_on(affine, (11, 12, 9)) for key, affine in affines.items()}
    masks = {
        f"{key}_mask": MetaTensor((3 * image.as_tensor()).floor(), affine=affines[key]) for key, image in pair.items()
    }
    item = ToNetworkGridd("LIA", (0.93, 0.77, 1.71))(pair | masks | {"initial": initial})
    points = world_of_grid(item["network_affine"], item["fixed"].shape[1:])
    for key, to_world in (("fixed", np.eye(4)), ("moving", initial)):
        matrix = np.linalg.solve(affines[key], to_world)
        voxels = np.einsum("ij,j...->i...", matrix[:3, :3], points) + matrix[:3, 3].reshape(3, 1, 1, 1)
        nearest = np.round(voxels).astype(int)
        sure = (np.abs(voxels - np.floor(voxels) - 0.5) > 1e-3).all(axis=0)
        inside = ((nearest >= 0) & (nearest < np.reshape((11, 12, 9), (3, 1, 1, 1)))).all(axis=0)
        expected = np.where(inside, masks[f"{key}_mask"][0].numpy()[tuple(np.where(inside, nearest, 0))], 0)
        found = item[f"{key}_mask"]
        assert sure.mean() > 0.9 and inside.mean() > 0.3
        np.testing.assert_array_equal(found[0].numpy()[sure], expected[sure])
        np.testing.assert_array_equal(found.affine, item["network_affine"])


def test_outside_its_field_of_view_a_mask_is_zero_and_a_path_stays_a_path():
    fixed, moving = image_on(np.eye(4), (8, 8, 8)), image_on(affine_of((1, 1, 1), origin=(4, 0, 0)), (8, 8, 8))
    mask = MetaTensor(torch.ones(1, 8, 8, 8), affine=moving.affine)
    pair = {"fixed": fixed, "moving": moving, "fixed_mask": "mask.nii.gz", "moving_mask": mask}
    item = ToNetworkGridd("RAS", (1, 1, 1))(pair)
    assert item["moving_mask"][0, :, 0, 0].tolist() == [0] * 4 + [1] * 4 and item["fixed_mask"] == "mask.nii.gz"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fixed": torch.rand(1, 4, 4, 4)}, "without geometry"),
        ({"fixed": image_on(np.diag([1.0, 0, 1, 1]), (4, 4, 4))}, "some volume"),
        ({"fixed": image_on(np.diag([1.0, np.nan, 1, 1]), (4, 4, 4))}, "finite numbers"),
        ({"moving": MetaTensor(torch.rand(1, 4, 4), affine=np.eye(4))}, "one number of axes"),
        ({"moving": image_on(affine_of((1, 1, 1), origin=(99, 0, 0)), (4, 4, 4))}, "wholly outside"),
        ({"initial": np.eye(3)}, "homogeneous 4 x 4"),
        ({"initial": "affine.txt"}, "homogeneous 4 x 4"),
        ({"initial": np.diag([1.0, np.inf, 1, 1])}, "homogeneous 4 x 4"),
        ({"initial": np.diag([1.0, 1, 1, 2])}, "homogeneous 4 x 4"),
        ({"initial": np.diag([1.0, 0, 1, 1])}, "can be inverted"),
    ],
)
def test_pairs_that_have_no_network_grid_are_refused(change, message):
    pair = {key: image_on(np.eye(4), (4, 4, 4)) for key in ("fixed", "moving")}
    with pytest.raises(RegInputError, match=message):
        ToNetworkGridd("RAS", (1, 1, 1))(pair | change)


def test_stack_has_moving_first_and_the_geometry_of_the_fixed_image():
    fixed, moving = image_on(FIXED["oblique"], (4, 5, 6)), image_on(FIXED["plain"], (4, 5, 6), seed=1)
    fixed.meta["original_affine"] = FIXED["oblique"]
    stack = StackPaird()({"fixed": fixed, "moving": moving})["image"]
    assert torch.equal(stack[:1].as_tensor(), moving.as_tensor()) and torch.equal(
        stack[1:].as_tensor(), fixed.as_tensor()
    )
    np.testing.assert_array_equal(stack.affine, FIXED["oblique"])
    np.testing.assert_array_equal(stack.meta["original_affine"], FIXED["oblique"])


def test_stack_of_plain_tensors_is_plain():
    pair = {"fixed": torch.zeros(1, 2, 2), "moving": torch.ones(1, 2, 2)}
    assert type(StackPaird(name="pair")(pair)["pair"]) is torch.Tensor


@pytest.mark.parametrize("shape", [(1, 4, 5, 7), (2, 4, 5, 6)])
def test_images_that_do_not_match_are_not_stacked(shape):
    with pytest.raises(RegInputError, match="expected one channel and the same size"):
        StackPaird()({"fixed": torch.zeros(shape), "moving": torch.zeros(1, 4, 5, 6)})


def test_labels_become_integers_and_keep_their_meta():
    label = MetaTensor(torch.tensor([[0.0, 2.0004, 206.9995]]), affine=FIXED["oblique"])
    found = ToIntegerLabeld("label")({"label": label})["label"]
    assert found.dtype == torch.int32 and found.tolist() == [[0, 2, 207]]
    np.testing.assert_array_equal(found.affine, FIXED["oblique"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_integer_labels_keep_their_values(dtype):
    label = torch.tensor([[0, 77]], dtype=dtype)
    assert ToIntegerLabeld("label")({"label": label})["label"].tolist() == [[0, 77]]


@pytest.mark.parametrize(
    "value, message",
    [
        (1.5, "value 1.5"),
        (1.0011, "value 1.0011"),
        (float("nan"), "value nan"),
        (-1.0, "from -1"),
        (2.0**24 + 2, "0 to"),
        (2.0**24 + 1, "0 to"),  # which float32 rounds to the one below
    ],
)
def test_what_is_no_label_is_refused(value, message):
    with pytest.raises(RegInputError, match=message):
        ToIntegerLabeld("label")({"label": torch.tensor([[0.0, value]])})


def test_refused_label_names_its_file():
    label = MetaTensor(torch.tensor([[0.5]]), meta={"filename_or_obj": "/data/seg.nii.gz"})
    with pytest.raises(RegInputError, match=r"/data/seg\.nii\.gz"):
        ToIntegerLabeld("label")({"label": label})


def test_missing_label_is_an_error_unless_allowed():
    assert ToIntegerLabeld("label", allow_missing_keys=True)({"image": 1}) == {"image": 1}
    with pytest.raises(KeyError):
        ToIntegerLabeld("label")({"image": 1})


def test_foreground_percentile_does_not_depend_on_the_empty_space_around():
    organ = 100 + 900 * torch.rand(1, 10, 10)
    padded = torch.nn.functional.pad(organ, (30, 30, 30, 30))
    scale = ScaleForegroundPercentiled("image", upper=95)
    torch.testing.assert_close(scale({"image": padded})["image"][:, 30:40, 30:40], scale({"image": organ})["image"])


@pytest.mark.parametrize("background", [0.0, -1000.0, None])
def test_background_becomes_zero_and_the_percentile_one(background):
    low = -3.0 if background is None else background
    values = low + torch.arange(0.0, 101)  # the background and 100 voxels above it
    found = ScaleForegroundPercentiled("image", upper=100, background=background)({"image": values[None]})["image"]
    torch.testing.assert_close(found, torch.arange(0.0, 101)[None] / 100)


def test_intensities_beyond_the_percentile_are_clipped():
    found = ScaleForegroundPercentiled("image", upper=50)({"image": torch.tensor([[-5.0, 0, 1, 2, 3]])})["image"]
    assert found.tolist() == [[0, 0, 0.5, 1, 1]]


@pytest.mark.parametrize("background", [0.0, None])
def test_image_without_contrast_is_refused(background):
    with pytest.raises(RegInputError, match="no voxel above"):
        ScaleForegroundPercentiled("image", background=background)({"image": torch.zeros(1, 4, 4)})


def test_monai_flips_all_keys_of_a_pair_together():
    """Why there is no pair flip here."""
    flip = RandFlipd(["fixed", "moving"], prob=0.5, spatial_axis=0).set_random_state(0)
    image = torch.arange(4.0)[None]
    items = [flip({"fixed": image, "moving": image}) for _ in range(20)]
    assert (
        all(torch.equal(i["fixed"], i["moving"]) for i in items) and len({float(i["fixed"][0, 0]) for i in items}) == 2
    )
