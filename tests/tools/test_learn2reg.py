from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import RegInputError
from tools.learn2reg import displacement_stem, read_voxel_displacement, write_voxel_displacement


@pytest.mark.parametrize(
    ("fixed", "moving", "expected"),
    [
        ("OASIS_0438_0000.nii.gz", "OASIS_0439_0000.nii.gz", "disp_0438_0439"),
        ("LungCT_0021_0000.nii.gz", "LungCT_0021_0001.nii.gz", "disp_0021_0021"),
        ("AbdomenMRCT_0001_0001.nii.gz", "AbdomenMRCT_0002_0000.nii.gz", "disp_0001_0001_0002_0000"),
        ("1013.nii.gz", "1015.nii", "disp_1013_1015"),
        ("sub-0007_T1w.nii.gz", "sub-0008_T1w.nii.gz", "disp_0007_0008"),
        ("phantom_007.nii.gz", "phantom_008.nii.gz", None),
        ("20240101_0001.nii.gz", "0002.nii.gz", "disp_0001_0002"),
        ("1234_a_5678.nii.gz", "0002.nii.gz", None),
        ("12345.nii.gz", "0002.nii.gz", None),
    ],
)
def test_a_displacement_is_called_by_the_ids_of_its_images(fixed, moving, expected):
    assert displacement_stem(Path("x") / fixed, Path("y_0099_0000") / moving) == expected


def field(size=(4, 5, 6)) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def test_a_field_comes_back_as_it_was_written(tmp_path):
    write_voxel_displacement(tmp_path / "disp_0001_0002.nii.gz", field().double(), np.eye(4))
    assert torch.equal(read_voxel_displacement(tmp_path / "disp_0001_0002.nii.gz", (4, 5, 6)), field().double())


@pytest.mark.parametrize("names", [{}, {"arr_0": ..., "other": np.zeros(1)}, {"disp": ...}])
def test_npz_fields_are_read_whatever_their_array_is_called(tmp_path, names):
    values = field()[0].movedim(0, -1).numpy()
    arrays = {key: values if value is ... else value for key, value in names.items()}
    np.savez(tmp_path / "a.npz", **arrays) if arrays else np.savez(tmp_path / "a.npz", values)
    assert torch.equal(read_voxel_displacement(tmp_path / "a.npz", (4, 5, 6)), field().double())


@pytest.mark.parametrize("content", [b"nothing", b"PK\x03\x04nothing"])
@pytest.mark.parametrize("suffix", [".npz", ".nii.gz"])
def test_damaged_files_are_said_to_be(tmp_path, content, suffix):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(RegInputError, match="cannot be read"):
        read_voxel_displacement(tmp_path / f"a{suffix}", (4, 5, 6))


def test_components_must_come_last_and_be_finite(tmp_path):
    np.savez(tmp_path / "first.npz", field()[0].numpy())
    np.savez(tmp_path / "nan.npz", np.full((4, 5, 6, 3), np.nan))
    with pytest.raises(RegInputError, match=r"\(3, 4, 5, 6\), expected \(4, 5, 6, 3\)"):
        read_voxel_displacement(tmp_path / "first.npz", (4, 5, 6))
    with pytest.raises(RegInputError, match="NaN or infinite"):
        read_voxel_displacement(tmp_path / "nan.npz", (4, 5, 6))


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([{"a": 1}], dtype=object), "expected arrays of numbers as .npz"),
        (np.array(["a"]), "holds values of type <U1, expected real numbers"),
        (np.array([1j]), "holds values of type complex128, expected real numbers"),
    ],
)
def test_an_npz_of_anything_but_numbers_is_refused_in_one_line(tmp_path, array, text):
    np.savez(tmp_path / "disp_0001_0002.npz", array)
    with pytest.raises(RegInputError, match=text) as caught:
        read_voxel_displacement(tmp_path / "disp_0001_0002.npz", (4, 4, 4))
    assert "\n" not in str(caught.value) and str(caught.value).count("disp_0001_0002.npz") == 1
