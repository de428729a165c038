"""Every format against SimpleITK, which reads them without a line of ours."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from scipy.spatial.transform import Rotation

from common.errors import RegInputError
from common.volumes import VolumeReader, open_volume, read_voxels

DATA = os.environ.get("REGBUNDLES_TEST_DATA")
SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr", ".nii.gz")
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def random_image(seed, ndim=3, dtype="int16"):
    """Oblique, anisotropic, every other one left-handed, values over the type's whole range."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(size=rng.integers(3, 7, ndim)) * 1000
    if np.dtype(dtype).kind != "f":
        limits = np.iinfo(dtype)
        voxels = rng.integers(max(limits.min, -(2**53)), min(limits.max, 2**53), voxels.shape, endpoint=True)
    direction = Rotation.random(random_state=seed).as_matrix() if ndim == 3 else np.array([[0.8, -0.6], [0.6, 0.8]])
    direction[:, seed % ndim] *= (-1) ** seed
    image = sitk.GetImageFromArray(voxels.astype(dtype))
    image.SetSpacing(rng.uniform(0.4, 5, ndim).tolist())
    image.SetOrigin(rng.uniform(-200, 200, ndim).tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def assert_same(image, oracle):
    """The voxels, and where ten of them lie."""
    ndim = oracle.GetDimension()
    np.testing.assert_array_equal(read_voxels(image), sitk.GetArrayFromImage(oracle).T)
    for index in np.random.default_rng(0).integers(0, 7, (10, ndim)):
        lps = np.zeros(3)
        lps[:ndim] = oracle.TransformContinuousIndexToPhysicalPoint(index.astype(float).tolist())
        ras = image.affine @ [*index, *[0] * (3 - ndim), 1]
        np.testing.assert_allclose(ras[:3], lps * [-1, -1, 1], atol=1e-4)  # NIfTI keeps float32


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(6))
def test_each_format_has_the_voxels_and_the_world_that_simpleitk_reads(tmp_path, suffix, seed):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(random_image(seed), str(path), seed % 2 == 0)
    image = open_volume(path)
    assert_same(image, sitk.ReadImage(str(path)))
    assert image.get_data_dtype() == np.int16
    assert image.header["sform_code"] > 0 and image.header["qform_code"] > 0
    assert image.get_filename() == str(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_an_image_of_two_axes_stays_one(tmp_path, suffix):
    path = tmp_path / f"slice{suffix}"
    sitk.WriteImage(random_image(3, ndim=2), str(path))
    image = open_volume(path)
    assert len(image.shape) == 2 and image.affine.shape == (4, 4)
    assert_same(image, sitk.ReadImage(str(path)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_the_files_data_type_is_kept_with_its_values(tmp_path, suffix, dtype):
    path = tmp_path / f"scan{suffix}"
    oracle = random_image(1, dtype=dtype)
    sitk.WriteImage(oracle, str(path))
    image = open_volume(path)
    assert image.get_data_dtype() == dtype == read_voxels(image).dtype
    assert_same(image, oracle)


def test_saving_what_was_opened_as_nifti_keeps_the_world(tmp_path):
    sitk.WriteImage(random_image(5), str(tmp_path / "a.nrrd"))
    nib.save(open_volume(tmp_path / "a.nrrd"), tmp_path / "a.nii.gz")
    assert_same(open_volume(tmp_path / "a.nrrd"), sitk.ReadImage(str(tmp_path / "a.nii.gz")))


def test_opening_reads_no_voxel(tmp_path):
    sitk.WriteImage(random_image(0), str(tmp_path / "a.mhd"))
    image = open_volume(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(RegInputError, match=r"a\.mhd cannot be read"):
        read_voxels(image)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_monai_loads_every_format_alike(tmp_path, suffix):
    """The same scan as LoadImaged reads it through its own NIfTI reader."""
    written = random_image(4)
    paths = {"fixed": str(tmp_path / f"scan{suffix}"), "moving": str(tmp_path / "same.nii")}
    for path in paths.values():
        sitk.WriteImage(written, path)
    ours = LoadImaged(["fixed", "moving"], reader=VolumeReader(), ensure_channel_first=True)(paths)["fixed"]
    monais = Compose([LoadImaged("moving", reader="NibabelReader"), EnsureChannelFirstd("moving")])(paths)["moving"]
    assert ours.shape == monais.shape and ours.dtype == monais.dtype
    np.testing.assert_array_equal(ours.numpy(), monais.numpy())
    np.testing.assert_allclose(ours.affine, monais.affine, atol=1e-4)
    assert ours.meta["filename_or_obj"] == paths["fixed"] and ours.meta["space"] == "RAS"


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 1, 1)])
def test_trailing_axes_of_length_one_are_dropped_for_monai(tmp_path, shape):
    path = tmp_path / "slice.nii"
    nib.save(nib.Nifti1Image(np.arange(30, dtype=np.int16).reshape(shape), np.eye(4)), path)
    image = LoadImaged("image", reader=VolumeReader(), ensure_channel_first=True)({"image": path})["image"]
    assert image.shape == (1, 6, 5)


def test_several_files_are_not_taken_for_channels(tmp_path):
    with pytest.raises(RegInputError, match="2 files, expected one"):
        VolumeReader().read([tmp_path / "a.mha", tmp_path / "b.mha"])


@pytest.mark.parametrize(("suffix", "content"), [(".mha", b"NDims = 3\n"), (".nrrd", b"NRRD0004\n\n"), (".nii", b"x")])
def test_what_is_no_image_is_refused_with_the_formats_that_are_read(tmp_path, suffix, content):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    with pytest.raises(RegInputError, match=r"scan\.\w+ is no image that can be read .*MetaImage, NRRD or a folder"):
        open_volume(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_colors_and_vectors_are_refused(tmp_path, suffix):
    for channels, kind in ((3, "RGB|vector"), (2, "vector")):
        voxels = np.zeros((3, 4, 5, channels), np.uint8 if channels == 3 else np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=True), str(tmp_path / f"a{suffix}"))
        with pytest.raises(RegInputError, match=f"holds ({kind})"):
            open_volume(tmp_path / f"a{suffix}")


@pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")
@pytest.mark.parametrize(
    "name", ["lung_ct/baseline.mha", "lung_ct/followup_mask.mha", "liver_mr/dataset19_cyc_1_6.force_direction.mha"]
)
def test_real_scans_are_read_as_simpleitk_reads_them(name):
    assert_same(open_volume(Path(DATA, name)), sitk.ReadImage(str(Path(DATA, name))))


def test_a_damaged_header_is_told_in_our_sentence_alone(tmp_path, caplog):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[70:72] = (3).to_bytes(2, "little")  # a data type that there is not
    path.write_bytes(content)
    with pytest.raises(RegInputError, match="data code 3"):
        open_volume(path)
    assert not caplog.records
    with pytest.raises(nib.spatialimages.HeaderDataError, match="data code 3"):
        nib.load(path)
    assert caplog.records  # what nibabel would have said, and says to others
