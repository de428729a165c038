"""What a header says twice is compared, with no false alarm where a format rounds."""

import nibabel as nib
import numpy as np
import pytest

from common.nifti_header import header_breaches, header_doubts, lost_sizes

SIZE = (320, 320, 200)  # where rounding shows most
AFFINE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([0.6875, 0.6875, -1.2]), [91.3, -127.7, 55.1]
)


def header(sform=AFFINE, qform=AFFINE, **fields: object) -> nib.Nifti1Header:
    """A header that has been through its own bytes, as one out of a file."""
    found = nib.Nifti1Header()
    found.set_data_shape(SIZE)
    found.set_data_dtype(np.int16)
    found.set_qform(qform, code=int(qform is not None))
    found.set_sform(sform, code=int(sform is not None))
    if qform is None and sform is not None:
        found["pixdim"][1:4] = nib.affines.voxel_sizes(sform)
    for name, value in fields.items():
        found[name] = value
    return nib.Nifti1Header(found.binaryblock, check=False)


def moved(distance: float) -> np.ndarray:
    """``AFFINE`` shifted along x, in mm."""
    return AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, distance])


@pytest.mark.parametrize("forms", [{}, {"sform": None}, {"qform": None}, {"sform": moved(0.005)}])
def test_a_sound_header_is_in_no_doubt(forms):
    assert header_breaches(header(**forms)) == header_doubts(header(**forms)) == []


def test_two_positions_are_told_with_their_distance():
    assert header_doubts(header(sform=moved(3))) == [
        "an sform and a qform that are up to 3 mm apart; the sform was taken"
    ]


def test_the_corner_that_is_farthest_off_counts():
    turned = AFFINE.copy()
    turned[1, 0] += 0.01  # mm a voxel: 3.19 mm at the last of 320
    (doubt,) = header_doubts(header(sform=turned))
    assert "up to 3.19 mm" in doubt


def test_a_qform_that_is_no_rotation_is_told():
    (doubt,) = header_doubts(header(quatern_b=7))
    assert "up to inf mm apart" in doubt


@pytest.mark.parametrize("distance", [0, 3])
def test_an_sform_that_is_switched_off_is_compared_all_the_same(distance):
    doubts = header_doubts(header(sform=moved(distance), sform_code=0))
    assert (
        doubts == ["an sform that is switched off and up to 3 mm from its qform; the qform was taken"][: distance // 3]
    )


def test_without_a_qform_the_voxel_sizes_are_compared():
    sizes = [1, 0.6875, 0.6875, 1.3, 0, 0, 0, 0]
    (doubt,) = header_doubts(header(qform=None, pixdim=sizes))
    assert doubt.startswith("voxels of [0.6875, 0.6875, 1.29") and doubt.endswith("the sform was taken")


@pytest.mark.parametrize(("code", "doubts"), [(1, 1), (3, 1), (2, 0), (0, 0), (10, 0), (11, 1)])
def test_other_units_than_mm_are_told(code, doubts):
    assert len(header_doubts(header(xyzt_units=code))) == doubts


@pytest.mark.parametrize(
    ("slope", "inter", "doubts"),
    [(1, 0, 0), (0, 0, 0), (np.nan, np.nan, 0), (-2, 5, 0), (np.inf, 0, 1), (0, 5, 1), (np.nan, 5, 1)],
)
def test_a_scale_that_cannot_be_applied_is_told(slope, inter, doubts):
    assert len(header_doubts(header(scl_slope=slope, scl_inter=inter))) == doubts


def test_bits_that_are_not_the_data_types_are_a_breach():
    assert header_breaches(header(bitpix=32)) == ["its header states 32 bits a voxel, its data type has 16"]


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_a_voxel_size_that_the_position_needs_is_missed_and_one_beside_an_sform_is_not(size):
    pixdim = [1, 0.7, size, 1.2, 0, 0, 0, 0]
    np.testing.assert_allclose(lost_sizes(header(sform=None, pixdim=pixdim)), pixdim[1:4])
    assert lost_sizes(header(pixdim=pixdim)) == lost_sizes(header(sform=None)) == []
