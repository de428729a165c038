"""The same pair through our warp, SimpleITK with each of our files, and nitransforms, on random grids."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from common.geometry import transform_points, warp_mm
from common.inverse import invert_mm
from common.map_files import read_transform
from common.transform_files import write_composite, write_displacement

from .random_pairs import lps, random_pair, random_points, resampled_by_simpleitk

RANGE = 1e-4  # of the image's values, which go from 0 to 1
POINTS_MM, INVERSE_MM = 0.01, 0.05
SEEDS = [*range(5), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 200))]
FAULTS = ("no LPS flip", "voxels for mm", "axes reversed")


@pytest.fixture(params=SEEDS)
def pair(request):
    return random_pair(request.param)


@pytest.fixture
def ours(pair):
    return warp_mm(pair.moving, pair.moving_affine, pair.total_mm, pair.affine)[0, 0].numpy()


def field_transform(path):
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def composite(pair, path):
    write_composite(path, pair.ddf_mm, pair.affine, pair.initial)
    return sitk.ReadTransform(str(path))


def test_simpleitk_resamples_through_both_files_as_we_do(tmp_path, pair, ours):
    write_displacement(tmp_path / "displacement.nii.gz", pair.total_mm, pair.affine)
    for transform in (field_transform(tmp_path / "displacement.nii.gz"), composite(pair, tmp_path / "transform.h5")):
        theirs, inside = resampled_by_simpleitk(pair, transform)
        assert inside.sum() >= 20
        assert np.abs(ours - theirs)[inside].max() <= RANGE


def test_nitransforms_resamples_through_our_field_as_we_do(tmp_path, pair, ours):
    nonlinear = pytest.importorskip("nitransforms.nonlinear", reason="nitransforms is not installed")
    apply = pytest.importorskip("nitransforms.resampling").apply
    if len(pair.size) == 2:
        pytest.skip("nitransforms has no 2-D fields")
    write_displacement(tmp_path / "displacement.nii.gz", pair.total_mm, pair.affine)
    field = nonlinear.DenseFieldTransform.from_filename(str(tmp_path / "displacement.nii.gz"), fmt="itk")
    moving = nib.Nifti1Image(pair.moving[0, 0].numpy(), pair.moving_affine)
    fixed = nib.Nifti1Image(np.zeros(pair.size), pair.affine)
    theirs = np.asarray(apply(field, moving, reference=fixed, order=1, prefilter=False).dataobj)
    _, inside = resampled_by_simpleitk(pair, field_transform(tmp_path / "displacement.nii.gz"))
    assert np.abs(ours - theirs)[inside].max() <= RANGE


def test_simpleitk_moves_points_through_both_files_as_we_do(tmp_path, pair):
    write_displacement(tmp_path / "displacement.nii.gz", pair.total_mm, pair.affine)
    transforms = field_transform(tmp_path / "displacement.nii.gz"), composite(pair, tmp_path / "transform.h5")
    points = random_points(pair)
    moved = transform_points(points, pair.total_mm, pair.affine)
    assert np.abs(moved - points).max() > 1
    for transform in transforms:
        theirs = lps([transform.TransformPoint(p.tolist()) for p in lps(points)])
        assert np.abs(moved - theirs).max() <= POINTS_MM


def test_our_files_come_back_as_the_same_map(tmp_path, pair):
    write_displacement(tmp_path / "displacement.nii.gz", pair.total_mm, pair.affine)
    write_composite(tmp_path / "transform.h5", pair.ddf_mm, pair.affine, pair.initial)
    for name in ("displacement.nii.gz", "transform.h5"):
        again = read_transform(tmp_path / name).on_grid(pair.size, pair.affine)
        torch.testing.assert_close(again, pair.total_mm.float(), atol=1e-4, rtol=0)


def test_the_inverse_of_the_forward_map_is_the_identity(pair):
    """Beyond the voxels of the moving image too: at points of the fixed image, through both fields' interpolation."""
    size = tuple(pair.moving.shape[2:])
    inverse, residual = invert_mm(pair.ddf_mm, pair.affine, pair.moving_affine, size, pair.initial)
    assert residual[residual.isfinite()].max() <= INVERSE_MM
    voxels = np.indices(size).reshape(len(size), -1).T
    there = voxels @ pair.moving_affine[:-1, :-1].T + pair.moving_affine[:-1, -1]
    back = transform_points(there, inverse, pair.moving_affine)
    index = np.linalg.solve(pair.affine, np.column_stack([back, np.ones(len(back))]).T).T[:, :-1]
    inside = ((index >= 0) & (index <= np.array(pair.size) - 1)).all(axis=1)
    assert inside.sum() >= 20
    assert (
        np.linalg.norm(transform_points(back, pair.total_mm, pair.affine) - there, axis=1)[inside].max() <= INVERSE_MM
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_each_wrong_convention_fails_the_comparison(tmp_path, pair, ours, fault):
    """Negative controls: what this comparison could not see would make those above void."""
    linear = torch.from_numpy(np.linalg.inv(pair.affine[:-1, :-1]))
    sign = torch.tensor([-1.0, -1, 1][: len(pair.size)]).double()
    wrong = {
        "no LPS flip": torch.einsum("i,bi...->bi...", sign, pair.total_mm),
        "voxels for mm": torch.einsum("ij,bj...->bi...", linear, pair.total_mm),
        "axes reversed": pair.total_mm.flip(1),
    }[fault]
    write_displacement(tmp_path / "displacement.nii.gz", wrong, pair.affine)
    theirs, _ = resampled_by_simpleitk(pair, field_transform(tmp_path / "displacement.nii.gz"))
    assert np.abs(ours - theirs).max() > 100 * RANGE


@pytest.mark.ants
def test_ants_reads_both_files_as_we_do(tmp_path, pair, ours):
    """antsApplyTransforms itself, through antspyx."""
    ants = pytest.importorskip("ants", reason="antspyx is not installed")
    if len(pair.size) == 2:
        pytest.skip("antspyx reads a 2-D NIfTI field as 3-D")
    write_displacement(tmp_path / "displacement.nii.gz", pair.total_mm, pair.affine)
    composite(pair, tmp_path / "transform.h5")
    fixed = ants_image(ants, np.zeros(pair.size), pair.affine)
    moving = ants_image(ants, pair.moving[0, 0].numpy(), pair.moving_affine)
    for name in ("displacement.nii.gz", "transform.h5"):
        theirs = ants.apply_transforms(fixed, moving, [str(tmp_path / name)], interpolator="linear").numpy()
        _, inside = resampled_by_simpleitk(pair, field_transform(tmp_path / "displacement.nii.gz"))
        assert np.abs(ours - theirs)[inside].max() <= RANGE


def ants_image(ants, voxels, affine):
    """ANTs' image on a grid that no header has rounded: a quaternion near half a turn loses four digits."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = np.diag([-1, -1, 1]) @ affine[:3, :3] / spacing
    origin = tuple(affine[:3, 3] * [-1, -1, 1])
    return ants.from_numpy(voxels.astype("float32"), origin=origin, spacing=tuple(spacing), direction=direction)
