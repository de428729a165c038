import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from common.errors import RegInputError
from common.geometry import voxel_offset, warp_mm
from common.label_warp import warp_label_linear
from common.points import Points, read_points, write_points
from common.transform_files import write_composite, write_displacement
from tests.common.random_pairs import lps, random_pair, random_points, resampled_by_simpleitk, save_volume
from tools.apply import apply_to_image, apply_to_points

PAIR = random_pair(1)
SHIFT = np.eye(4)
SHIFT[0, 3] = 1.0  # one voxel along the first axis of a grid of 1 mm


@pytest.fixture
def files(tmp_path):
    save_volume(np.zeros(PAIR.size), PAIR.affine, tmp_path / "fixed.nii.gz")
    save_volume(PAIR.moving[0, 0].numpy(), PAIR.moving_affine, tmp_path / "moving.nii.gz")
    write_composite(tmp_path / "transform.h5", PAIR.ddf_mm, PAIR.affine, PAIR.initial)
    np.savetxt(tmp_path / "shift.txt", SHIFT)
    return tmp_path


def unit_image(tmp_path, array, name="unit.nii.gz"):
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / name)
    return tmp_path / name


def test_simpleitk_applies_a_composite_as_we_do(files):
    apply_to_image([files / "transform.h5"], files / "moving.nii.gz", files / "fixed.nii.gz", files / "out.nii.gz")
    theirs, inside = resampled_by_simpleitk(PAIR, sitk.ReadTransform(str(files / "transform.h5")))
    ours = nib.load(files / "out.nii.gz")
    np.testing.assert_allclose(ours.affine, nib.load(files / "fixed.nii.gz").affine)
    assert inside.mean() > 0.1 and np.abs(ours.get_fdata() - theirs)[inside].max() <= 1e-4


def test_two_files_are_applied_in_the_order_of_ants(files):
    """Affine named first, field second: the composite's meaning."""
    write_displacement(files / "warp.nii.gz", PAIR.ddf_mm, PAIR.affine)
    np.savetxt(files / "affine.txt", PAIR.initial)
    images = files / "moving.nii.gz", files / "fixed.nii.gz"
    apply_to_image([files / "transform.h5"], *images, files / "one.nii.gz")
    apply_to_image([files / "affine.txt", files / "warp.nii.gz"], *images, files / "two.nii.gz")
    one, two = (nib.load(files / f"{name}.nii.gz").get_fdata() for name in ("one", "two"))
    np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64"])
def test_the_data_type_is_kept_and_a_shift_by_a_voxel_exact(files, dtype):
    values = np.random.default_rng(0).integers(0, 120, (5, 6, 7)).astype(dtype)
    path = files / "unit.nii.gz"
    nib.save(nib.Nifti1Image(values, np.eye(4), dtype=dtype), path)
    apply_to_image([files / "shift.txt"], path, path, files / "out.nii.gz", outside=3)
    out = nib.load(files / "out.nii.gz")
    assert out.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(out.dataobj)[:-1], values[1:])
    assert (np.asarray(out.dataobj)[-1] == 3).all()


def test_numbers_stored_with_a_scale_keep_their_range(files):
    stored = np.random.default_rng(0).integers(-3000, 3000, (5, 6, 7)).astype(np.int16)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.001, 0.5)
    nib.save(image, files / "scaled.nii.gz")
    apply_to_image([files / "shift.txt"], files / "scaled.nii.gz", files / "scaled.nii.gz", files / "out.nii.gz")
    out = nib.load(files / "out.nii.gz")
    assert out.get_data_dtype() == np.int16
    np.testing.assert_allclose(out.get_fdata()[:-1], stored[1:] * 0.001 + 0.5, atol=1e-3)


def test_every_time_point_of_a_series_is_moved(files):
    values = np.random.default_rng(0).random((5, 6, 7, 3)).astype(np.float32)
    path = unit_image(files, values)
    apply_to_image([files / "shift.txt"], path, path, files / "out.nii.gz")
    np.testing.assert_allclose(nib.load(files / "out.nii.gz").get_fdata()[:-1], values[1:], atol=1e-6)


@pytest.mark.parametrize("highest", [60, 2**31 - 1], ids=["small labels", "labels beyond float32"])
def test_labels_are_nearest_and_whole(files, highest):
    labels = np.random.default_rng(0).integers(highest - 50, highest, PAIR.moving.shape[2:], dtype=np.int32)
    path = save_volume(labels, PAIR.moving_affine, files / "label.nii.gz")
    apply_to_image([files / "transform.h5"], path, files / "fixed.nii.gz", files / "out.nii.gz", label=True)
    out = np.asarray(nib.load(files / "out.nii.gz").dataobj)
    moving = torch.from_numpy(labels.astype(np.float64))[None, None]
    expected = warp_mm(moving, PAIR.moving_affine, PAIR.total_mm, PAIR.affine, mode="nearest")[0, 0].numpy()
    assert out.dtype == np.int32 and set(np.unique(out)) <= {0, *np.unique(labels)}
    assert (out == expected).mean() > 0.999  # a tie may round the other way


def test_labels_by_the_largest_linear_weight(files):
    labels = np.random.default_rng(0).integers(0, 5, PAIR.moving.shape[2:], dtype=np.uint8)
    path = save_volume(labels, PAIR.moving_affine, files / "label.nii.gz")
    options = {"label": True, "interpolation": "linear"}
    apply_to_image([files / "transform.h5"], path, files / "fixed.nii.gz", files / "out.nii.gz", **options)
    offset = voxel_offset(PAIR.total_mm, PAIR.affine, PAIR.moving_affine)
    expected = warp_label_linear(torch.from_numpy(labels)[None, None], offset)[0, 0].numpy()
    out = np.asarray(nib.load(files / "out.nii.gz").dataobj)
    assert (out == expected).mean() > 0.999 and out.max() == 4


def test_points_go_where_simpleitk_takes_them(files):
    points = random_points(PAIR)
    write_points(files / "points.csv", Points(points), "RAS")
    apply_to_points([files / "transform.h5"], files / "points.csv", files / "out.csv")
    transform = sitk.ReadTransform(str(files / "transform.h5"))
    expected = lps([transform.TransformPoint(p.tolist()) for p in lps(points)])
    assert np.abs(read_points(files / "out.csv").mm - expected).max() <= 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "cubic"}, "interpolation is 'cubic'"),
        ({"label": True}, "fractions"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_no_file(files, options, message):
    with pytest.raises(RegInputError, match=message):
        apply_to_image(
            [files / "transform.h5"],
            files / "moving.nii.gz",
            files / "fixed.nii.gz",
            files / "out.nii.gz",
            **options,
        )
    assert not (files / "out.nii.gz").exists()


def test_colors_are_refused(files):
    colors = np.zeros((5, 6, 7), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    path = unit_image(files, colors)
    with pytest.raises(RegInputError, match="whole or real numbers"):
        apply_to_image([files / "shift.txt"], path, files / "fixed.nii.gz", files / "out.nii.gz")


def test_an_image_that_exists_stays_unless_it_is_forced(files):
    arguments = [files / "transform.h5"], files / "moving.nii.gz", files / "fixed.nii.gz", files / "out.nii.gz"
    apply_to_image(*arguments)
    with pytest.raises(RegInputError, match="--force"):
        apply_to_image(*arguments)
    apply_to_image(*arguments, force=True)
