import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from common.errors import RegInputError, RegNumericsError
from common.geometry import ddf_to_mm
from common.map_files import read_affine, read_transform, write_affine
from common.transform_files import write_composite, write_displacement
from tests.common.random_pairs import lps, random_pair, random_points, save_pair, save_volume
from tests.common.test_geometry import smooth_ddf
from tools.transforms import compose, invert, jacobian

SHIFT = np.array([[1.0, 0, 0, 3], [0, 1, 0, -2], [0, 0, 1, 5], [0, 0, 0, 1]])


@pytest.fixture(params=[0, 4], ids=["3-D", "2-D"])
def pair(request):
    return random_pair(request.param)


@pytest.fixture
def files(pair, tmp_path):
    """Both images, and the map as field and as affine, as ANTs keeps it: first the field, then the affine."""
    save_pair(pair, tmp_path)
    write_displacement(tmp_path / "warp.nii.gz", pair.ddf_mm, pair.affine)
    write_affine(tmp_path / "affine.mat", pair.initial)
    write_displacement(tmp_path / "total.nii.gz", pair.total_mm, pair.affine)
    return tmp_path


def moved_by_simpleitk(path, points):
    if path.name.endswith(".nii.gz"):
        transform = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    else:
        transform = sitk.ReadTransform(str(path))
    return lps([transform.TransformPoint(p.tolist()) for p in lps(points)])


@pytest.mark.parametrize("name", ["both.nii.gz", "both.h5"])
def test_two_transforms_become_one_in_the_order_of_ants(pair, files, name):
    """The affine named first is applied to points last; SimpleITK judges both files."""
    compose([files / "affine.mat", files / "warp.nii.gz"], files / name)
    points = random_points(pair)
    expected = moved_by_simpleitk(files / "transform.h5", points)
    np.testing.assert_allclose(moved_by_simpleitk(files / name, points), expected, atol=1e-3)


def test_the_other_order_is_another_transform_and_needs_a_grid(pair, files):
    with pytest.raises(RegInputError, match="--reference"):
        compose([files / "warp.nii.gz", files / "affine.mat"], files / "both.nii.gz")
    compose([files / "warp.nii.gz", files / "affine.mat"], files / "both.nii.gz", files / "fixed.nii.gz")
    voxels = np.indices(pair.size).reshape(len(pair.size), -1).T[::97]
    points = voxels @ pair.affine[:-1, :-1].T + pair.affine[:-1, -1]
    step = moved_by_simpleitk(files / "affine.mat", points)
    expected = moved_by_simpleitk(files / "warp.nii.gz", step)
    np.testing.assert_allclose(moved_by_simpleitk(files / "both.nii.gz", points), expected, atol=1e-3)


def test_affines_become_one_affine_without_a_grid(tmp_path):
    turn = np.diag([2.0, 1, 0.5, 1])
    write_affine(tmp_path / "a.mat", SHIFT)
    np.savetxt(tmp_path / "b.txt", turn)
    compose([tmp_path / "a.mat", tmp_path / "b.txt"], tmp_path / "ab.tfm")
    np.testing.assert_allclose(read_affine(tmp_path / "ab.tfm"), SHIFT @ turn)


@pytest.mark.parametrize("name", ["transform.h5", "total.nii.gz"])
def test_the_inverse_brings_simpleitks_points_back(pair, files, name):
    residual = invert([files / name], files / "inverse.nii.gz", files / "moving.nii.gz")
    assert residual.mean_mm <= residual.largest_mm <= 0.05
    voxels = np.indices(pair.moving.shape[2:]).reshape(len(pair.size), -1).T
    there = voxels @ pair.moving_affine[:-1, :-1].T + pair.moving_affine[:-1, -1]
    back = moved_by_simpleitk(files / "inverse.nii.gz", there)
    index = (back - pair.affine[:-1, -1]) @ np.linalg.inv(pair.affine[:-1, :-1]).T
    inside = ((index >= 0) & (index <= np.array(pair.size) - 1)).all(axis=1)
    again = moved_by_simpleitk(files / name, back[inside])
    assert inside.mean() > 0.1 and np.linalg.norm(again - there[inside], axis=1).max() <= 0.05


def test_the_inverse_of_ants_two_files_needs_no_composite(pair, files):
    invert([files / "affine.mat", files / "warp.nii.gz"], files / "two.h5", files / "moving.nii.gz")
    invert([files / "transform.h5"], files / "one.h5", files / "moving.nii.gz")
    points = voxel_points(pair)
    np.testing.assert_allclose(
        moved_by_simpleitk(files / "two.h5", points), moved_by_simpleitk(files / "one.h5", points), atol=1e-4
    )


def voxel_points(pair):
    """Every seventh voxel of the moving image."""
    voxels = np.indices(pair.moving.shape[2:]).reshape(len(pair.size), -1).T[::7]
    return voxels @ pair.moving_affine[:-1, :-1].T + pair.moving_affine[:-1, -1]


def test_an_affine_is_inverted_exactly_and_needs_no_image(tmp_path):
    matrix = SHIFT @ np.diag([2.0, 1, 0.5, 1])
    write_affine(tmp_path / "a.mat", matrix)
    assert invert([tmp_path / "a.mat"], tmp_path / "inverse.mat") is None
    np.testing.assert_allclose(read_affine(tmp_path / "inverse.mat"), np.linalg.inv(matrix), atol=1e-12)


def test_a_field_is_not_inverted_without_the_moving_grid(pair, files):
    with pytest.raises(RegInputError, match="--reference"):
        invert([files / "transform.h5"], files / "inverse.nii.gz")
    assert not (files / "inverse.nii.gz").exists()


def test_what_folds_everywhere_is_refused_and_leaves_no_file(tmp_path):
    ddf_mm = ddf_to_mm(smooth_ddf((12, 12, 12), voxels=60), np.eye(4))
    write_displacement(tmp_path / "folds.nii.gz", ddf_mm, np.eye(4))
    save_volume(np.zeros((12, 12, 12)), np.eye(4), tmp_path / "moving.nii.gz")
    with pytest.raises(RegNumericsError, match="folds"):
        invert([tmp_path / "folds.nii.gz"], tmp_path / "inverse.nii.gz", tmp_path / "moving.nii.gz")
    assert not (tmp_path / "inverse.nii.gz").exists()


def test_an_image_elsewhere_is_refused(pair, files):
    away = pair.moving_affine.copy()
    away[:-1, -1] += 1000
    save_volume(np.zeros(pair.size), away, files / "away.nii.gz")
    with pytest.raises(RegInputError, match="no voxel of the moving image"):
        invert([files / "transform.h5"], files / "inverse.nii.gz", files / "away.nii.gz")


def stretched(tmp_path):
    """Along the second array axis by 1.5, then doubled along right by an affine."""
    affine = np.array([[0, -1.5, 0, 10], [0.9, 0, 0, -4], [0, 0, 2.0, 7], [0, 0, 0, 1]])
    ddf = torch.zeros(1, 3, 5, 6, 7)
    ddf[:, 1] = 0.5 * torch.arange(6).view(6, 1)
    write_composite(tmp_path / "t.h5", ddf_to_mm(ddf, affine), affine, np.diag([2.0, 1, 1, 1]))
    return tmp_path / "t.h5"


@pytest.mark.parametrize(("total", "expected"), [(False, 1.5), (True, 3.0)])
def test_the_jacobian_is_that_of_the_field_or_of_the_whole_map(tmp_path, total, expected):
    found = jacobian([stretched(tmp_path)], tmp_path / "j.nii.gz", total=total)
    image = nib.load(tmp_path / "j.nii.gz")
    assert image.shape == (5, 6, 7) and image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.get_fdata(), expected, rtol=1e-5)
    assert found == pytest.approx((expected, expected, 0), rel=1e-5)


def test_the_jacobian_agrees_with_simpleitk(tmp_path):
    """Along LPS axes: ITK's filter takes derivatives along the grid's axes for those along the world's."""
    affine = np.diag([-1.2, -0.9, 1.7, 1])
    write_displacement(tmp_path / "field.nii.gz", ddf_to_mm(smooth_ddf((10, 11, 12), voxels=2), affine), affine)
    jacobian([tmp_path / "field.nii.gz"], tmp_path / "j.nii.gz")
    field = sitk.ReadImage(str(tmp_path / "field.nii.gz"), sitk.sitkVectorFloat64)
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field)).T
    inner = (slice(1, -1),) * 3  # ITK takes other differences at the border
    np.testing.assert_allclose(nib.load(tmp_path / "j.nii.gz").get_fdata()[inner], theirs[inner], atol=1e-4)


@pytest.mark.parametrize("work", [compose, invert, jacobian])
def test_a_file_that_exists_stays_unless_it_is_forced(pair, files, work):
    out, rest = files / "out.nii.gz", [files / "moving.nii.gz"]
    out.write_text("precious")
    with pytest.raises(RegInputError, match="--force"):
        work([files / "transform.h5"], out, *rest)
    assert out.read_text() == "precious"
    work([files / "transform.h5"], out, *rest, force=True)
    assert out.stat().st_size > 100


def test_a_name_that_cannot_hold_the_result_is_refused(pair, files):
    with pytest.raises(RegInputError, match=r"affines only"):
        compose([files / "transform.h5"], files / "out.tfm")
    with pytest.raises(RegInputError, match=r"expected \.nii"):
        jacobian([files / "transform.h5"], files / "out.png")
    assert read_transform(files / "transform.h5").matrix is None
