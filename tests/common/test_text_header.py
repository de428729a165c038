import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.text_header import compressed_voxels, read_text_header, states_position

VOXELS = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_the_compressed_voxels_are_where_the_header_says(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), True)
    stream = compressed_voxels(path)
    unpack = zlib.decompress if suffix.startswith(".m") else gzip.decompress
    assert unpack(stream.path.read_bytes()[stream.offset :]) == VOXELS.tobytes()


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_uncompressed_voxels_have_no_stream_and_itk_states_a_position(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path), False)
    assert compressed_voxels(path) is None
    assert states_position(read_text_header(path)[0])


def test_sizes_alone_are_no_position(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\ntype: short\nspacings: 1 1 2\nencoding: raw\n\n")
    (tmp_path / "a.mha").write_bytes(b"NDims = 3\nElementSpacing = 1 1 2\nElementDataFile = LOCAL\nOffset = 1 2 3")
    assert not states_position(read_text_header(tmp_path / "a.nrrd")[0])
    assert not states_position(read_text_header(tmp_path / "a.mha")[0])


def test_voxels_in_several_files_are_no_one_stream(tmp_path):
    (tmp_path / "a.mhd").write_bytes(b"CompressedData = True\nElementDataFile = LIST\na.zraw\nb.zraw\n")
    assert compressed_voxels(tmp_path / "a.mhd") is None
