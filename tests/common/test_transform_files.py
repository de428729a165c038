import resource

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from common.errors import RegEnvError, RegInputError
from common.geometry import ddf_to_mm, mm_to_ddf, total_displacement_mm, transform_points, voxels_to_mm, warp_mm
from common.map_files import read_affine, read_transform
from common.transform_files import read_displacement, write_composite, write_displacement

from .test_geometry import GRIDS, INITIAL, SIZE, about_center, affine_of, centered_on, smooth_ddf, smooth_image

MOVING_SIZE = (18, 17, 16)


@pytest.fixture(params=list(GRIDS), ids=list(GRIDS))
def fixed_affine(request):
    return GRIDS[request.param]


@pytest.fixture
def moving(tmp_path, fixed_affine):
    """A moving image on a grid of its own, as tensor, affine and file."""
    image = smooth_image(MOVING_SIZE)
    affine = centered_on(fixed_affine, affine_of((10, 5, -20), (1.1, 1.0, 1.3), (0, 0, 0), flip=(1,)), MOVING_SIZE)
    return image, affine, save(image[0, 0].numpy(), affine, tmp_path / "moving.nii.gz")


def save(array, affine, path):
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=1)
    nib.save(image, path)
    return path


def sitk_apply(moving_path, fixed_affine, transform, tmp_path):
    """SimpleITK's resampling of a file, and where it read from inside of it; nothing of ours takes part."""
    shape = nib.load(moving_path).shape
    fixed_path = save(np.zeros(SIZE), fixed_affine, tmp_path / "fixed.nii.gz")
    inner = np.zeros(shape)
    inner[1:-1, 1:-1, 1:-1] = 1
    inner_path = save(inner, nib.load(moving_path).affine, tmp_path / "inner.nii.gz")
    grid = sitk.ReadImage(str(fixed_path), sitk.sitkFloat64)
    results = [
        sitk.GetArrayFromImage(
            sitk.Resample(sitk.ReadImage(str(path), sitk.sitkFloat64), grid, transform, sitk.sitkLinear)
        ).T
        for path in (moving_path, inner_path)
    ]
    return results[0], results[1] > 1 - 1e-6


def sitk_field(path):
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def test_simpleitk_resamples_through_our_file_as_we_do(tmp_path, fixed_affine, moving):
    image, moving_affine, moving_path = moving
    total = total_displacement_mm(
        smooth_ddf(SIZE), fixed_affine, fixed_affine, SIZE, about_center(INITIAL, fixed_affine, SIZE)
    )
    write_displacement(tmp_path / "field.nii.gz", total, fixed_affine)
    theirs, inside = sitk_apply(moving_path, fixed_affine, sitk_field(tmp_path / "field.nii.gz"), tmp_path)
    ours = warp_mm(image, moving_affine, total, fixed_affine)[0, 0].numpy()
    assert inside.mean() > 0.2
    assert np.abs(ours - theirs)[inside].max() <= 1e-4  # of an intensity range of 1; headers are float32


@pytest.mark.parametrize("fault", ["no LPS flip", "voxels for mm", "axes reversed"])
def test_simpleitk_sees_each_wrong_convention_in_a_file(tmp_path, fault):
    """Negative controls: a fault that this comparison cannot see would make the one above void."""
    affine = GRIDS["oblique, left-handed"]
    image, ddf = smooth_image(SIZE), smooth_ddf(SIZE, voxels=2)
    moving_path = save(image[0, 0].numpy(), affine, tmp_path / "moving.nii.gz")
    ddf_mm = ddf_to_mm(ddf, affine)
    wrong = {
        "no LPS flip": ddf_mm * torch.tensor([-1.0, -1, 1]).view(1, 3, 1, 1, 1),
        "voxels for mm": ddf,
        "axes reversed": ddf_mm.flip(1),
    }[fault]
    write_displacement(tmp_path / "field.nii.gz", wrong, affine)
    theirs, inside = sitk_apply(moving_path, affine, sitk_field(tmp_path / "field.nii.gz"), tmp_path)
    ours = warp_mm(image, affine, ddf_mm, affine)[0, 0].numpy()
    assert np.abs(ours - theirs)[inside].max() >= 0.05


def test_simpleitk_moves_points_through_our_file_as_we_do(tmp_path, fixed_affine):
    ddf_mm = ddf_to_mm(smooth_ddf(SIZE, voxels=3), fixed_affine)
    write_displacement(tmp_path / "field.nii.gz", ddf_mm, fixed_affine)
    transform = sitk_field(tmp_path / "field.nii.gz")
    points = voxels_to_mm(np.random.default_rng(3).uniform(1, 8, (20, 3)), fixed_affine)
    theirs = np.array([transform.TransformPoint((p * [-1, -1, 1]).tolist()) for p in points]) * [-1, -1, 1]
    ours = transform_points(points, ddf_mm, fixed_affine)
    assert np.abs(ours - points).max() > 0.5
    assert np.abs(ours - theirs).max() <= 0.01  # mm


def test_a_field_file_gives_back_the_voxel_field_and_the_grid(tmp_path, fixed_affine):
    ddf = smooth_ddf(SIZE)
    write_displacement(tmp_path / "field.nii.gz", ddf_to_mm(ddf, fixed_affine), fixed_affine)
    ddf_mm, affine = read_displacement(tmp_path / "field.nii.gz")
    np.testing.assert_allclose(affine, fixed_affine, atol=1e-5)
    torch.testing.assert_close(mm_to_ddf(ddf_mm, affine).double(), ddf, atol=1e-5, rtol=0)


def test_a_field_file_has_five_axes_and_the_vector_intent(tmp_path):
    write_displacement(tmp_path / "field.nii.gz", torch.zeros(1, 3, 4, 5, 6), np.eye(4))
    image = nib.load(tmp_path / "field.nii.gz")
    assert image.shape == (4, 5, 6, 1, 3)
    assert int(image.header["intent_code"]) == 1007
    assert image.get_data_dtype() == np.float32


def test_a_field_file_states_its_position_as_sform_and_as_qform(tmp_path):
    affine = GRIDS["oblique, left-handed"]
    write_displacement(tmp_path / "field.nii.gz", torch.zeros(1, 3, 4, 5, 6), affine)
    header = nib.load(tmp_path / "field.nii.gz").header
    for stored, code in (header.get_sform(coded=True), header.get_qform(coded=True)):
        np.testing.assert_allclose(stored, affine, atol=1e-4)
        assert code == 1


def test_a_field_file_with_a_displacement_that_is_no_number_is_refused(tmp_path):
    field = np.zeros((4, 4, 4, 1, 3), np.float32)
    field[1, 2, 3, 0, 1] = np.nan
    save(field, np.eye(4), tmp_path / "field.nii.gz")
    with pytest.raises(RegInputError, match="NaN"):
        read_displacement(tmp_path / "field.nii.gz")


def test_simpleitk_moves_points_through_a_2d_file_as_we_do(tmp_path):
    affine = np.array([[0, -1.4, 5], [0.8, 0, -3], [0, 0, 1]])
    ddf_mm = ddf_to_mm(smooth_ddf((9, 11)), affine)
    write_displacement(tmp_path / "field.nii.gz", ddf_mm, affine)
    assert nib.load(tmp_path / "field.nii.gz").shape == (9, 11, 1, 1, 2)
    transform = sitk_field(tmp_path / "field.nii.gz")
    points = voxels_to_mm([[2.5, 3.25], [6, 7]], affine)
    theirs = -np.array([transform.TransformPoint((-p).tolist()) for p in points])
    np.testing.assert_allclose(transform_points(points, ddf_mm, affine), theirs, atol=1e-5)


def test_a_2d_field_file_comes_back(tmp_path):
    affine = np.array([[0, -1.4, 5], [0.8, 0, -3], [0, 0, 1]])
    ddf_mm = ddf_to_mm(smooth_ddf((9, 11)), affine)
    write_displacement(tmp_path / "field.nii.gz", ddf_mm, affine)
    again, grid = read_displacement(tmp_path / "field.nii.gz")
    np.testing.assert_allclose(grid, affine, atol=1e-6)
    torch.testing.assert_close(again, ddf_mm.float())


def test_nitransforms_reads_our_file_as_we_wrote_it(tmp_path):
    """A second reader, which keeps fields in RAS mm as we do."""
    nonlinear = pytest.importorskip("nitransforms.nonlinear")
    affine = GRIDS["oblique, left-handed"]
    ddf_mm = ddf_to_mm(smooth_ddf(SIZE), affine)
    write_displacement(tmp_path / "field.nii.gz", ddf_mm, affine)
    field = nonlinear.DenseFieldTransform.from_filename(str(tmp_path / "field.nii.gz"), fmt="itk")
    voxels = np.array([[3, 4, 5], [7, 2, 6], [10, 9, 3]])
    points = voxels_to_mm(voxels, affine)
    np.testing.assert_allclose(field.map(points), transform_points(points, ddf_mm, affine), atol=1e-3)


def test_simpleitk_resamples_through_our_composite_as_we_do(tmp_path, fixed_affine, moving):
    """The composite keeps field and affine apart; together they are the total displacement."""
    image, moving_affine, moving_path = moving
    ddf, initial = smooth_ddf(SIZE), about_center(INITIAL, fixed_affine, SIZE)
    write_composite(tmp_path / "both.h5", ddf_to_mm(ddf, fixed_affine), fixed_affine, initial)
    theirs, inside = sitk_apply(moving_path, fixed_affine, sitk.ReadTransform(str(tmp_path / "both.h5")), tmp_path)
    total = total_displacement_mm(ddf, fixed_affine, fixed_affine, SIZE, initial)
    ours = warp_mm(image, moving_affine, total, fixed_affine)[0, 0].numpy()
    assert inside.mean() > 0.2
    assert np.abs(ours - theirs)[inside].max() <= 1e-4


def test_a_composite_applies_the_field_first_and_then_the_affine(tmp_path):
    """y = A(x + d(x)), by SimpleITK: with d = (1, 0, 0) and A doubling, 3 goes to 8; the other order gives 7."""
    ddf_mm = torch.zeros(1, 3, 6, 6, 6)
    ddf_mm[:, 0] = 1
    write_composite(tmp_path / "both.h5", ddf_mm, np.eye(4), np.diag([2.0, 2, 2, 1]))
    transform = sitk.ReadTransform(str(tmp_path / "both.h5"))
    assert transform.TransformPoint((-3.0, -3.0, 3.0)) == pytest.approx((-8, -6, 6))


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_composite_comes_back(tmp_path, dimension):
    affine = {2: np.array([[0, -1.4, 5], [0.8, 0, -3], [0, 0, 1]]), 3: GRIDS["oblique, left-handed"]}[dimension]
    initial = np.vstack([np.random.default_rng(0).normal(size=(dimension, dimension + 1)), np.eye(dimension + 1)[-1:]])
    ddf_mm = ddf_to_mm(smooth_ddf((7, 8, 9)[:dimension]), affine)
    write_composite(tmp_path / "both.h5", ddf_mm, affine, initial)
    field, linear = read_transform(tmp_path / "both.h5").parts
    torch.testing.assert_close(field.ddf_mm, ddf_mm.float())
    np.testing.assert_allclose(field.affine, affine, atol=1e-12)
    np.testing.assert_allclose(linear.matrix, initial, atol=1e-12)


def test_a_composite_of_an_affine_alone_comes_back(tmp_path):
    write_composite(tmp_path / "affine.h5", None, None, INITIAL)
    np.testing.assert_allclose(read_affine(tmp_path / "affine.h5"), INITIAL, atol=1e-12)


def test_affines_of_a_foreign_file_are_multiplied_in_itks_order(tmp_path):
    """SimpleITK writes two affines about a center; the last added acts first."""
    first, second = sitk.AffineTransform(3), sitk.Euler3DTransform()
    first.SetMatrix((1.1, 0.2, 0, 0, 0.9, 0, 0.1, 0, 1.2))
    first.SetTranslation((3, -4, 5))
    second.SetCenter((10, 20, 30))
    second.SetRotation(0.3, -0.2, 0.1)
    both = sitk.CompositeTransform([first, second])
    sitk.WriteTransform(both, str(tmp_path / "two.h5"))
    point = np.array([7.0, -8, 9])
    ours = read_affine(tmp_path / "two.h5") @ np.append(point * [-1, -1, 1], 1)
    np.testing.assert_allclose(ours[:3] * [-1, -1, 1], both.TransformPoint(point.tolist()), atol=1e-9)


@pytest.mark.parametrize("write", [write_displacement, write_composite], ids=["nifti", "h5"])
def test_a_sheared_grid_is_refused_and_leaves_no_file(tmp_path, write):
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    name = "field.nii.gz" if write is write_displacement else "field.h5"
    with pytest.raises(RegInputError, match="sheared"):
        write(tmp_path / name, torch.zeros(1, 3, 4, 4, 4), sheared)
    assert not list(tmp_path.iterdir())


def test_itk_refuses_the_shear_that_we_refuse(tmp_path):
    """The reason for the refusal, so that it can go when ITK changes."""
    sheared = np.eye(4)
    sheared[0, 1] = 0.1
    image = nib.Nifti1Image(np.zeros((4, 4, 4)), sheared)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "sheared.nii.gz")
    with pytest.raises(RuntimeError, match="orthonormal"):
        itk.imread(str(tmp_path / "sheared.nii.gz"))


def test_a_failed_registration_is_not_saved(tmp_path):
    with pytest.raises(RegInputError, match="NaN"):
        write_displacement(tmp_path / "field.nii.gz", torch.full((1, 3, 4, 4, 4), float("nan")), np.eye(4))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4, 4), (1, 2, 4, 4, 4), (3, 4, 4, 4)])
def test_a_field_of_another_shape_is_refused(tmp_path, shape):
    with pytest.raises(RegInputError, match=r"expected \[1, N, \*size\]"):
        write_displacement(tmp_path / "field.nii.gz", torch.zeros(shape), np.eye(4))


def test_an_image_is_no_displacement_field(tmp_path):
    save(np.zeros((4, 4, 4)), np.eye(4), tmp_path / "image.nii.gz")
    with pytest.raises(RegInputError, match=r"shape \(4, 4, 4\), expected \(X, Y, Z, 1, 3\)"):
        read_displacement(tmp_path / "image.nii.gz")


def test_names_of_another_format_are_refused(tmp_path):
    with pytest.raises(RegInputError, match=r"expected \.nii\.gz"):
        write_displacement(tmp_path / "field.mha", torch.zeros(1, 3, 4, 4, 4), np.eye(4))
    with pytest.raises(RegInputError, match=r"expected \.h5"):
        write_composite(tmp_path / "field.tfm", torch.zeros(1, 3, 4, 4, 4), np.eye(4))


def test_a_folder_that_cannot_be_written_is_an_environment_fault(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegEnvError, match="could not be written"):
        write_composite(tmp_path / "file" / "field.h5", None, None, np.eye(4))


@pytest.mark.parametrize("name", ["transform.h5", "displacement.nii.gz"])
def test_where_a_file_does_not_fit_one_line_says_so_and_nothing_is_left(tmp_path, capfd, name):
    """HDF5 itself would tell it in thirty lines, past Python."""
    field = torch.rand(1, 3, 12, 12, 12, dtype=torch.float64)
    write = write_composite if name.endswith("h5") else write_displacement
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RegEnvError, match="could not be written") as caught:
            write(tmp_path / name, field, np.eye(4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""
