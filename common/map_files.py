"""Transforms that other programs wrote: ANTs, SimpleITK, 3D Slicer, elastix, greedy; and affines for them to read.

Every file becomes a :class:`common.maps.Map` in RAS mm, fixed world to moving world, which is the direction in which
all of them resample images. What a file is its bytes say, not its name.
"""

from pathlib import Path

import numpy as np

from .elastix_files import is_elastix, read_elastix
from .errors import RegInputError
from .files import save_atomically
from .geometry import spatial_affine
from .itk_classes import write_transform
from .itk_parts import ITK_TEXT, read_itk_parts
from .maps import Field, Linear, Map
from .transform_files import read_displacement, to_itk_affine

__all__ = ["read_affine", "read_transform", "write_affine"]

HEAD = 4096  # bytes that tell what a file is
AFFINE_NAMES = (".h5", ".tfm", ".mat")


def read_affine(path: Path | str) -> np.ndarray:
    """The affine that a file holds: an ITK or elastix file of linear transforms alone, or a matrix as text.

    A matrix is (3, 3) or (4, 4), RAS mm, as greedy and c3d write it. FSL's look alike and mean something else
    (``regbundles convert --from fsl``).

    Returns:
        (N + 1, N + 1), RAS mm, fixed world to moving world.

    Raises:
        RegInputError: if it cannot be read or holds anything that is not affine.
    """
    matrix = read_transform(path).matrix
    if matrix is None:
        raise RegInputError(f"{path} holds a deformation, expected an affine alone; name the affine's file.")
    return spatial_affine(matrix, len(matrix) - 1)


def read_transform(path: Path | str) -> Map:
    """The map that a file holds.

    * displacement fields as NIfTI (5-D), LPS mm: ANTs' ``1Warp.nii.gz``, ours, transformix's;
    * ITK transform files (.h5, .mat, .tfm, .txt) of linear transforms, displacement fields and cubic B-splines, however
      many: ANTs' ``0GenericAffine.mat`` and ``Composite.h5``, SimpleITK's, 3D Slicer's, elastix's with
      ``ITKTransformOutputFileNameExtension``;
    * elastix's ``TransformParameters.0.txt``, with the files that it starts from;
    * a matrix as text, see :func:`read_affine`.

    Raises:
        RegInputError: if it cannot be read or holds something else.
    """
    path = Path(path)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return Map((Field(*read_displacement(path)),))
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise RegInputError(
            f"{path} cannot be read ({error.strerror}), expected a transform file; check its name."
        ) from error
    text = "" if b"\0" in head else head.decode("latin-1")
    if is_elastix(text):
        return read_elastix(path)
    if text.strip() and not text.startswith(ITK_TEXT):
        return Map((Linear(read_matrix(path)),))
    return Map(tuple(read_itk_parts(path)))


def write_affine(path: Path | str, matrix: np.ndarray) -> None:
    """Write an affine as an ITK transform, float64.

    Args:
        path: ending in .h5, .mat (as ANTs) or .tfm (text).
        matrix: (N + 1, N + 1), RAS mm, fixed world to moving world.

    Raises:
        RegInputError: if the name ends otherwise or the matrix has no inverse.
        RegEnvError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in AFFINE_NAMES:
        raise RegInputError(
            f"{path} ends in '{path.suffix}', expected {', '.join(AFFINE_NAMES)} for an affine; rename it."
        )
    transform = to_itk_affine(spatial_affine(matrix, len(matrix) - 1))
    save_atomically(lambda temporary: write_transform(transform, str(temporary)), path)


def read_matrix(path: Path) -> np.ndarray:
    """A (3, 3) or (4, 4) matrix as text, RAS mm."""
    try:
        matrix = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise RegInputError(
            f"{path} is no transform that can be read ({error}), expected an ITK, ANTs or elastix file, or rows of "
            "numbers; check the file."
        ) from error
    if matrix.shape not in ((3, 3), (4, 4)) or not np.array_equal(matrix[-1], np.eye(len(matrix))[-1]):
        raise RegInputError(
            f"{path} holds numbers {matrix.shape}, expected 3x3 or 4x4 that end with the row 0 ... 0 1; check the file."
        )
    return spatial_affine(matrix, len(matrix) - 1)
