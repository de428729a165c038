import nibabel as nib
import numpy as np
import pytest
import torch

from common.geometry import warp_mm
from common.transform_files import write_displacement
from tools.benchmark.thick_phantom import Scan, deformed_pair, errors_mm, write_cubes, write_thick

SIZE, SPACING = (40, 40, 50), 4.0


@pytest.fixture(scope="module")
def pair() -> tuple[Scan, Scan]:
    return deformed_pair(SIZE, SPACING)


@pytest.mark.parametrize("first", [0, 1])
def test_the_truth_leads_from_either_scan_to_the_other(pair, first):
    """What is left is the noise, and what interpolating the one and then the other has blurred."""
    fixed, moving = pair[first], pair[1 - first]
    there = warp_mm(moving.image, moving.affine, fixed.truth_mm, fixed.affine)
    before, after = ((image - fixed.image)[fixed.body].abs().mean() for image in (moving.image, there))
    assert after < 0.4 * before


def test_the_error_of_the_truth_is_none_and_that_of_no_field_is_its_length(pair, tmp_path):
    fixed = pair[0]
    length = fixed.truth_mm.norm(dim=1, keepdim=True)[fixed.body].mean()
    for name, field, expected in (("truth", fixed.truth_mm, 0), ("none", torch.zeros_like(fixed.truth_mm), length)):
        write_displacement(tmp_path / f"{name}.nii.gz", field, fixed.affine)
        before, after = errors_mm(fixed, tmp_path / f"{name}.nii.gz")
        assert after == pytest.approx(float(expected), rel=0.05, abs=1e-3)
        assert before == pytest.approx(float(length), rel=0.05) and before > 3


def test_the_files_show_the_same_world_by_slices_and_by_cubes(pair, tmp_path):
    thick, cubes = (
        nib.load(write(pair[1], tmp_path / f"{write.__name__}.nii")) for write in (write_thick, write_cubes)
    )
    assert thick.header.get_zooms() == (2, 20, 2) and nib.aff2axcodes(thick.affine) == ("L", "I", "A")
    assert cubes.header.get_zooms() == (4, 4, 4) and nib.aff2axcodes(cubes.affine) == ("R", "A", "S")
    centers = [center_mm(image) for image in (thick, cubes)]
    np.testing.assert_allclose(*centers, atol=0.3)


def center_mm(image: nib.Nifti1Image) -> np.ndarray:
    voxels = image.get_fdata()
    index = np.indices(voxels.shape).reshape(3, -1) @ voxels.ravel() / voxels.sum()
    return nib.affines.apply_affine(image.affine, index)
