"""Learn2Reg's files: what a displacement field is called there, how it is laid out, reading and writing it.

A file is (X, Y, Z, 3), component k along array axis k, in voxels: it is added to the indices of the fixed voxels and
gives indices of the moving image; headers mean nothing.
Source: Hering et al., IEEE TMI 2023, doi:10.1109/TMI.2022.3213983; repository MDL-UzL/L2R, evaluation.
"""

import re
import zlib
from pathlib import Path
from zipfile import BadZipFile

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from torch import Tensor

from common.errors import RegInputError, first_line
from common.files import save_atomically
from common.naming import stem

__all__ = ["displacement_stem", "read_npz", "read_voxel_displacement", "write_voxel_displacement"]

SUBJECT_IMAGE = re.compile(r"(?<!\d)(\d{4})_(\d{4})$")  # <task>_<subject>_<modality or time>
ID = re.compile(r"(?<!\d)\d{4}(?!\d)")
UNREADABLE = (OSError, EOFError, ValueError, BadZipFile, zlib.error, ImageFileError)


def displacement_stem(fixed: Path, moving: Path) -> str | None:
    """``disp_FFFF_MMMM`` of a pair, fixed first; None if the names hold no four-digit ids.

    In names like ``OASIS_0438_0000`` the subject is the last number but one; elsewhere the only four digits on their
    own. Pairs of other images than 0000 of a subject with 0001 name both: ``disp_FFFF_000i_MMMM_000j``.
    """
    first, second = subject_and_image(fixed), subject_and_image(moving)
    if first is None or second is None:
        return None
    if first[1] == second[1] or (first[1], second[1]) == ("0000", "0001"):
        return f"disp_{first[0]}_{second[0]}"
    return f"disp_{'_'.join(first)}_{'_'.join(second)}"


def subject_and_image(path: Path) -> tuple[str, str] | None:
    """Four digits each, the second "0000" where a name has only one number."""
    name = stem(path)
    named = SUBJECT_IMAGE.search(name)
    if named:
        return named[1], named[2]
    numbers = ID.findall(name)
    return (numbers[0], "0000") if len(numbers) == 1 else None


def read_voxel_displacement(path: Path, size: tuple[int, ...]) -> Tensor:
    """A field from .nii, .nii.gz or .npz; (1, N, *S), float64, in voxels.

    Args:
        path: the file; an .npz holds one array, or one called ``arr_0``.
        size: of the fixed image.

    Raises:
        RegInputError: if it cannot be read, has another shape than (*S, N), or holds NaN.
    """
    values = read_npz(path, "arr_0") if path.suffix == ".npz" else read_nifti(path)
    check_shape(path, values.shape, size)
    if not np.isfinite(values).all():
        raise RegInputError(f"{path} holds NaN or infinite displacements, expected voxels; write it again.")
    return torch.from_numpy(np.moveaxis(values, -1, 0)[None].astype(np.float64))


def read_nifti(path: Path) -> np.ndarray:
    """The voxels of a NIfTI file; RegInputError if it cannot be read."""
    try:
        return np.asarray(nib.load(path).dataobj)
    except UNREADABLE as error:
        raise RegInputError(
            f"{path} cannot be read ({error}), expected a displacement field; check the file."
        ) from error


def read_npz(path: Path, name: str) -> np.ndarray:
    """The array of that name in an .npz file, or its first one.

    Raises:
        RegInputError: if it cannot be read or does not hold numbers: arrays of objects would be unpickled, which could
            run anything.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = arrays[name if name in arrays.files else arrays.files[0]]
    except (*UNREADABLE, LookupError, AttributeError, MemoryError) as error:  # one without arrays, or a plain .npy
        raise RegInputError(
            f"{path} cannot be read ({first_line(error)}), expected arrays of numbers as .npz; check the file."
        ) from error
    if values.dtype.kind not in "iufb":
        raise RegInputError(f"{path} holds values of type {values.dtype}, expected real numbers; write it again.")
    return values


def check_shape(path: Path, shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Raise RegInputError unless a voxel displacement has the shape (*size, N)."""
    if tuple(shape) != (*size, len(size)):
        raise RegInputError(
            f"{path} has shape {tuple(shape)}, expected {(*size, len(size))}, voxels on the fixed image's grid; "
            "resample the field, or move its components to the last axis."
        )


def write_voxel_displacement(path: Path, offset: Tensor, affine: np.ndarray) -> None:
    """Write what is added to fixed voxel indices, (1, 3, *S), as the challenge reads it: float32 (X, Y, Z, 3)."""
    values = offset[0].movedim(0, -1).cpu().numpy().astype(np.float32)
    save_atomically(lambda temporary: nib.save(nib.Nifti1Image(values, affine), temporary), path)
