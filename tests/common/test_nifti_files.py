import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.nifti_files import save_nifti


def images():
    rng = np.random.default_rng(0)
    yield nib.Nifti1Image(rng.normal(size=(7, 6, 5, 1, 3)).astype(np.float32), np.eye(4))
    scan = nib.Nifti1Image(rng.integers(-1000, 3000, (9, 8, 7)).astype(np.int16), np.diag([-1, 2, 3, 1.0]))
    scan.header.set_slope_inter(0.5, -10)
    yield scan


@pytest.mark.parametrize("image", images(), ids=["field", "scan with a slope"])
def test_the_file_holds_the_bytes_that_nibabel_writes(image, tmp_path):
    save_nifti(image, tmp_path / "ours.nii.gz")
    nib.save(image, tmp_path / "theirs.nii")
    save_nifti(image, tmp_path / "plain.nii")
    expected = (tmp_path / "theirs.nii").read_bytes()
    assert gzip.decompress((tmp_path / "ours.nii.gz").read_bytes()) == expected
    assert (tmp_path / "plain.nii").read_bytes() == expected


def test_itk_reads_it(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(7, 6, 5)).astype(np.float32)
    save_nifti(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "image.nii.gz"))).T, voxels)


def test_the_same_image_makes_the_same_bytes_whatever_the_name(tmp_path):
    image = next(images())
    for name in ("a.nii.gz", "b.nii.gz"):
        save_nifti(image, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_background_takes_hardly_any_room(tmp_path):
    save_nifti(nib.Nifti1Image(np.zeros((64, 64, 64), np.float32), np.eye(4)), tmp_path / "empty.nii.gz")
    assert (tmp_path / "empty.nii.gz").stat().st_size < 0.01 * 4 * 64**3
