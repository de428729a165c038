"""Files of each kind that a person may hand over, made here byte by byte where nibabel would not write them."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import RegInputError
from common.preflight import check_image, check_label, check_subject, collect, findings, refuse

SIZE = (5, 4, 3)
AFFINE = np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])


@pytest.fixture
def voxels():
    return np.arange(60, dtype=np.int16).reshape(SIZE)


@pytest.fixture
def path(tmp_path, voxels):
    return write(voxels, tmp_path / "scan.nii.gz")


def write(array, path, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def change(path, offset, data):
    """Overwrite bytes of a gzip-compressed NIfTI file's content."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + len(data)] = data
    path.write_bytes(gzip.compress(bytes(content)))


def test_a_sound_image_comes_back_as_float32_with_its_affine(path, voxels):
    volume = check_image(path)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_array_equal(volume.affine, AFFINE)


def test_stored_values_are_scaled(path, voxels):
    change(path, 112, struct.pack("<ff", -1, 10))  # scl_slope, scl_inter
    np.testing.assert_array_equal(check_image(path).voxels, 10 - voxels.astype(np.float32))


@pytest.mark.parametrize("name", ["scan.nii", "scan.mgz", "a scan's é.nii.gz"])
def test_other_names_and_formats_are_read(tmp_path, voxels, name):
    kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
    nib.save(kind(voxels.astype(np.float32), AFFINE), tmp_path / name)
    np.testing.assert_array_equal(check_image(tmp_path / name).voxels, voxels)


def test_a_big_endian_file_is_read(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "big.nii.gz")
    np.testing.assert_array_equal(check_image(tmp_path / "big.nii.gz").voxels, voxels)


def test_trailing_axes_of_length_one_are_dropped(tmp_path, voxels):
    assert check_image(write(voxels[..., None], tmp_path / "a.nii.gz")).voxels.shape == SIZE
    assert check_image(write(voxels[..., :1], tmp_path / "b.nii.gz"), 2).voxels.shape == SIZE[:2]


def test_two_gzip_members_are_one_file(tmp_path, path, voxels):
    content = gzip.decompress(path.read_bytes())
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(check_image(tmp_path / "two.nii.gz").voxels, voxels)


def test_rubbish_behind_the_last_member_is_refused_and_zeros_are_not(path, voxels):
    content = path.read_bytes()
    path.write_bytes(content + bytes(512))
    np.testing.assert_array_equal(check_image(path).voxels, voxels)
    path.write_bytes(content + b"rubbish")
    with pytest.raises(RegInputError, match=r"scan\.nii\.gz"):
        check_image(path)


def test_rubbish_behind_a_long_stream_is_refused(tmp_path):
    """nibabel sniffs at the first bytes only, so a long file gets past it."""
    noise = np.random.default_rng(0).integers(0, 999, (60, 50, 40)).astype(np.int16)
    path = write(noise, tmp_path / "long.nii.gz")
    path.write_bytes(path.read_bytes() + b"rubbish")
    with pytest.raises(RegInputError, match="is damaged"):
        check_image(path)


def test_a_flipped_bit_never_changes_a_voxel_unnoticed(path, voxels):
    """nibabel alone accepts some of these and returns other voxels; padding bits of the stream may flip for nothing."""
    content, refused = path.read_bytes(), 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            volume = check_image(path)
        except RegInputError:
            refused += 1
            continue
        np.testing.assert_array_equal(volume.voxels, voxels)
        np.testing.assert_array_equal(volume.affine, AFFINE)
    assert refused > 0.9 * len(content)


def test_a_file_cut_anywhere_is_found(path):
    content = path.read_bytes()
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(RegInputError, match=r"scan.nii.gz"):
            check_image(path)


def test_an_uncompressed_file_that_is_short_of_a_byte_is_found(tmp_path, voxels):
    path = write(voxels, tmp_path / "scan.nii")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RegInputError, match=r"471 bytes.* 472; it is cut short"):
        check_image(path)


def test_a_bomb_is_refused_by_its_header_without_unpacking(path):
    change(path, 40, struct.pack("<4h", 3, 30000, 30000, 16))
    with pytest.raises(RegInputError, match=r"claims \(30000, 30000, 16\) voxels"):
        check_image(path)


def test_a_stream_far_longer_than_its_header_is_not_unpacked_to_the_end(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(5_000_000)))
    with pytest.raises(RegInputError, match="unpacks to"):
        check_image(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><p>Please log in", "is a web page.*login"),
        (b"plain text", "is not compressed"),
        (gzip.compress(b"nothing of the kind", mtime=0), "no image that can be read"),
    ],
)
def test_what_is_no_image_is_refused(path, content, text):
    path.write_bytes(content)
    with pytest.raises(RegInputError, match=text):
        check_image(path)


def test_a_name_that_belies_the_content_is_refused(tmp_path, path):
    with pytest.raises(RegInputError, match="is gzip-compressed, its name says otherwise; rename"):
        check_image(path.rename(tmp_path / "scan.nii"))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(RegInputError, match=r"none.nii.gz cannot be opened \(No such file"):
        check_image(tmp_path / "none.nii.gz")
    with pytest.raises(RegInputError, match="is a folder without DICOM images"):
        check_image(tmp_path)


@pytest.mark.parametrize(
    ("shape", "ndim", "text"),
    [
        ((4, 4, 4, 2), None, r"shape \(4, 4, 4, 2\), expected 2 or 3 axes"),
        ((1, 4, 4), None, "expected 2 voxels an axis"),
        ((4, 4), 3, "expected 3 axes"),
        ((4, 4, 4), 2, "expected 2 axes"),
    ],
)
def test_other_dimensions_are_refused(tmp_path, shape, ndim, text):
    with pytest.raises(RegInputError, match=text):
        check_image(write(np.random.default_rng(0).normal(size=shape), tmp_path / "a.nii.gz"), ndim)


def test_a_displacement_field_is_no_image(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 4, 4, 1, 3), np.float32), AFFINE)
    image.header.set_intent(1007)
    nib.save(image, tmp_path / "field.nii.gz")
    with pytest.raises(RegInputError, match="is a displacement field"):
        check_image(tmp_path / "field.nii.gz")


def test_color_and_complex_voxels_are_refused(tmp_path):
    rgb = np.zeros(SIZE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(RegInputError, match="holds RGB voxels"):
        check_image(write(rgb, tmp_path / "rgb.nii.gz"))
    with pytest.raises(RegInputError, match="holds complex64 voxels"):
        check_image(write(np.zeros(SIZE, np.complex64), tmp_path / "complex.nii.gz"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_no_number_is_counted_and_placed(tmp_path, voxels, value):
    bad = voxels.astype(np.float32)
    bad[1, 2, 0] = bad[3, 3, 2] = value
    with pytest.raises(RegInputError, match=r"2 NaN or infinite voxels, the first at \(1, 2, 0\)"):
        check_image(write(bad, tmp_path / "a.nii.gz"))


def test_an_image_without_contrast_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="is 7 everywhere"):
        check_image(write(np.full(SIZE, 7, np.int16), tmp_path / "a.nii.gz"))


def test_a_file_without_a_position_is_refused_unless_allowed(path, voxels):
    change(path, 252, struct.pack("<2h", 0, 0))  # qform_code, sform_code
    with pytest.raises(RegInputError, match="states no position"):
        check_image(path)
    np.testing.assert_array_equal(check_image(path, assume_affine=True).voxels, voxels)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_file_longer_than_its_header_claims_is_refused(path, axis):
    """nibabel reads a smaller image out of it, its rows shifted against each other."""
    change(path, 42 + 2 * axis, struct.pack("<h", SIZE[axis] - 1))
    with pytest.raises(RegInputError, match="its size or data type is wrong"):
        check_image(path)


def test_a_header_that_contradicts_itself_is_refused(path):
    change(path, 70, struct.pack("<h", 8))  # int32, of the 16 bits that bitpix says
    with pytest.raises(RegInputError, match="states 16 bits a voxel, its data type has 32"):
        check_image(path)


def test_what_a_header_leaves_in_doubt_is_said_once(path, caplog):
    change(path, 252, struct.pack("<h", 1))  # qform_code
    change(path, 268, struct.pack("<f", 99))  # qoffset_x
    for _ in range(3):
        check_image(path)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and str(path) in record.message and "the sform was taken" in record.message


def test_a_scale_that_float32_cannot_hold_is_refused(path):
    change(path, 112, struct.pack("<ff", 3e38, 0))
    with pytest.raises(RegInputError, match="NaN or infinite voxels"):
        check_image(path)


def write_itk(voxels, path, compress=True):
    image = sitk.GetImageFromArray(voxels.T)
    image.SetOrigin((1, 2, 3))
    sitk.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_flipped_bit_of_a_compressed_metaimage_or_nrrd_never_changes_a_voxel_unnoticed(tmp_path, voxels, suffix):
    """ITK alone returns other voxels for nearly every bit of a MetaImage."""
    path = write_itk(voxels, tmp_path / f"scan{suffix}")
    content, refused = path.read_bytes(), 0
    start = len(content) - len(gzip.compress(voxels.tobytes())) + 20
    for position in range(start, len(content), 5):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            np.testing.assert_array_equal(check_image(path).voxels, voxels)
        except RegInputError:
            refused += 1
    assert refused > 0.9 * len(range(start, len(content), 5))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_metaimage_or_nrrd_that_is_cut_is_found(tmp_path, voxels, suffix, compress):
    path = write_itk(voxels, tmp_path / f"scan{suffix}", compress)
    content = path.read_bytes()
    np.testing.assert_array_equal(check_image(path).voxels, voxels)
    for length in range(1, len(content) - 2, 37):  # NRRD ends with a line feed
        path.write_bytes(content[:length])
        with pytest.raises(RegInputError, match=rf"scan{suffix}"):
            check_image(path)


@pytest.mark.parametrize(
    ("suffix", "content", "text"),
    [
        (".mha", b"", "is empty"),
        (".nrrd", b"<html>", "is a web page"),
        (".nrrd", gzip.compress(b"x", mtime=0), "is gzip-compressed, its name says otherwise"),
    ],
)
def test_what_is_no_metaimage_or_nrrd_is_refused_as_what_is_no_nifti(tmp_path, suffix, content, text):
    (tmp_path / f"scan{suffix}").write_bytes(content)
    with pytest.raises(RegInputError, match=text):
        check_image(tmp_path / f"scan{suffix}")


def test_metaimages_and_nrrds_are_held_to_the_same_rules(tmp_path, voxels):
    bad = voxels.astype(np.float32)
    bad[1, 2, 0] = np.nan
    with pytest.raises(RegInputError, match=r"1 NaN or infinite voxels, the first at \(1, 2, 0\)"):
        check_image(write_itk(bad, tmp_path / "nan.mha"))
    with pytest.raises(RegInputError, match="is 3 everywhere"):
        check_image(write_itk(np.full(SIZE, 3, np.int16), tmp_path / "flat.nrrd"))
    with pytest.raises(RegInputError, match="expected at most 59"):
        check_image(write_itk(voxels, tmp_path / "large.mha"), max_voxels=59)
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(voxels.T)] * 2), str(tmp_path / "series.mha"))
    with pytest.raises(RegInputError, match=r"shape \(5, 4, 3, 2\), expected 2 or 3 axes; choose one volume"):
        check_image(tmp_path / "series.mha")
    path = write_itk(voxels, tmp_path / "nowhere.mha", compress=False)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if not line.startswith((b"TransformMatrix", b"Offset"))))
    with pytest.raises(RegInputError, match="states no position"):
        check_image(path)
    np.testing.assert_array_equal(check_image(path, assume_affine=True).voxels, voxels)


def test_labels_of_another_format_are_compared_with_the_image_s_grid(tmp_path, path, voxels):
    image = check_image(write_itk(voxels, tmp_path / "image.nrrd"))
    assert check_label(write_itk(voxels, tmp_path / "label.mha"), image).voxels.max() == 59
    with pytest.raises(RegInputError, match="has the grid"):
        check_label(path, image)


@pytest.mark.parametrize("row", [(np.nan, 0, 0, 0), (0, 0, 0, 0), (2, 0, 0, 0)], ids=["nan", "zero", "dependent"])
def test_an_affine_that_cannot_be_inverted_is_refused(path, row):
    change(path, 280, struct.pack("<4f", *row))  # srow_x; srow_y is (2, 0, 0, -20)
    with pytest.raises(RegInputError, match="expected an invertible one"):
        check_image(path)


def test_labels_come_back_as_integers(tmp_path):
    labels = np.zeros(SIZE, np.float32)
    labels[0], labels[1] = 2035.0002, 2034.9998
    volume = check_label(write(labels, tmp_path / "l.nii.gz"))
    assert volume.voxels.dtype == np.int32
    assert set(np.unique(volume.voxels)) == {0, 2035}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.float32(1.5), "fractional"),
        (np.float32(np.nan), "fractional"),
        (np.int16(-1), "from -1 to"),
        (np.uint32(2**32 - 1), "to 4.29497e"),
        (np.int16(0), "no labelled voxel"),
    ],
)
def test_labels_that_are_no_labels_are_refused(tmp_path, values, text):
    labels = np.zeros(SIZE, values.dtype)
    labels[1, 1, 1] = values
    with pytest.raises(RegInputError, match=text):
        check_label(write(labels, tmp_path / "l.nii.gz"))


def test_labels_on_another_grid_are_refused(tmp_path, path, voxels):
    image = check_image(path)
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    check_label(write(voxels, tmp_path / "same.nii.gz"), image)
    for labels, affine in ((voxels[1:], AFFINE), (voxels, moved)):
        with pytest.raises(RegInputError, match=r"has the grid .* expected that of .*scan.nii.gz"):
            check_label(write(labels, tmp_path / "l.nii.gz", affine), image)


def test_a_subject_is_its_image_and_labels(tmp_path, path, voxels):
    image, labels = check_subject(path, write(voxels, tmp_path / "l.nii.gz"))
    assert (image.path, labels.voxels.max()) == (path, 59)


def test_all_findings_are_told_at_once(tmp_path, path):
    with pytest.raises(RegInputError, match=r"2 findings") as caught:
        collect([(check_image, "none.nii.gz"), (check_image, path), (check_label, tmp_path)])
    assert "(1) none.nii.gz" in str(caught.value)
    assert f"(2) {tmp_path} is a folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_finding_is_told_as_it_is_and_none_is_no_error(path):
    assert findings([(check_image, path)]) == []
    refuse([])
    with pytest.raises(RegInputError, match=r"^only this$"):
        refuse(["only this"])


def test_a_fault_of_the_program_is_not_taken_for_a_finding():
    with pytest.raises(ZeroDivisionError):
        findings([(lambda: 1 / 0,)])


@pytest.mark.parametrize("name", ["x" * 300 + ".nii.gz", "deeper/" * 700 + "x.nii.gz"])
def test_a_name_that_is_too_long_is_refused_as_one_that_is_missing(tmp_path, name):
    with pytest.raises(RegInputError, match="File name too long"):
        check_image(tmp_path / name)


def test_voxel_sizes_that_the_position_needs_are_not_made_up(path):
    change(path, 80, struct.pack("<3f", 2, 0, 2.5))
    change(path, 252, struct.pack("<2h", 1, 0))
    with pytest.raises(RegInputError, match=r"voxels of \[2.0, 0.0, 2.5\] mm and no sform, expected sizes above 0"):
        check_image(path)


def test_a_scale_that_no_reader_can_apply_is_told(path, voxels, caplog):
    change(path, 112, struct.pack("<2f", np.inf, 0))
    np.testing.assert_array_equal(check_image(path).voxels, voxels)
    assert "scan.nii.gz states the scale inf and offset 0; voxels were taken as stored" in caplog.text
