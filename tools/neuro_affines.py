"""Affines of FreeSurfer (.lta) and FSL (FLIRT), through nitransforms.

Both programs name the moving image first and map it onto the fixed one, so the matrix on disk is the inverse of ours.
"""

from pathlib import Path

import numpy as np
from nibabel.spatialimages import SpatialImage

from common.errors import RegEnvError, RegInputError, first_line
from common.files import save_atomically
from common.geometry import spatial_affine

__all__ = ["read_freesurfer", "read_fsl", "write_freesurfer", "write_fsl"]


def read_freesurfer(path: Path, fixed: SpatialImage | None = None, moving: SpatialImage | None = None) -> np.ndarray:
    """The (4, 4) of an .lta of either type, RAS mm, fixed world to moving world; it names its own images."""
    return read(path, "lta", {})


def write_freesurfer(path: Path, matrix: np.ndarray, fixed: SpatialImage | None, moving: SpatialImage | None) -> None:
    """Write an .lta of type RAS to RAS."""
    check(path, matrix, fixed, moving)
    # FreeSurfer's source is the moving image; nitransforms 25.1 writes what is called reference there
    lta = load("lta").from_ras(matrix, reference=moving, moving=fixed)
    lines = "\n".join(["# made by registration-bundles", lta.to_string(), ""])
    save_atomically(lambda temporary: temporary.write_text(lines), path)


def read_fsl(path: Path, fixed: SpatialImage | None, moving: SpatialImage | None) -> np.ndarray:
    """The (4, 4) of a FLIRT matrix, RAS mm, fixed world to moving world."""
    check(path, np.eye(4), fixed, moving)
    return read(path, "fsl", {"reference": fixed, "moving": moving})


def write_fsl(path: Path, matrix: np.ndarray, fixed: SpatialImage | None, moving: SpatialImage | None) -> None:
    """Write a matrix for ``flirt -applyxfm -init`` and ``convert_xfm``."""
    check(path, matrix, fixed, moving)
    text = load("fsl").from_ras(matrix, reference=fixed, moving=moving).to_string()
    save_atomically(lambda temporary: temporary.write_text(text), path)


def check(path: Path, matrix: np.ndarray, fixed: SpatialImage | None, moving: SpatialImage | None) -> None:
    """Raise RegInputError unless both images are named and three-dimensional, as these formats need them."""
    if fixed is None or moving is None:
        raise RegInputError(
            f"{path} depends on both images' grids, expected the fixed and the moving image; name them with "
            "--reference and --moving."
        )
    if len(matrix) != 4:
        raise RegInputError(f"{path} would hold a 2-D affine, expected a 3-D one, as its format has no other.")


def read(path: Path, kind: str, images: dict) -> np.ndarray:
    """A matrix by nitransforms' class for a format."""
    factory = load(kind)
    try:
        return spatial_affine(factory.from_filename(path).to_ras(**images), 3)
    except (OSError, ValueError, AssertionError, IndexError, KeyError) as error:
        if isinstance(error, RegInputError):
            raise
        raise RegInputError(
            f"{path} cannot be read as {kind} ({first_line(error)}), expected an affine; check the file."
        ) from error


def load(kind: str) -> type:
    """nitransforms' class of one affine in a format."""
    try:
        from nitransforms.io import get_linear_factory
    except ImportError as error:
        raise RegEnvError(
            "FreeSurfer's and FSL's affines need nitransforms, which is not installed; run `pip install "
            "'.[nitransforms]'`."
        ) from error
    return get_linear_factory(kind, is_array=False)
