"""How slices are shown: as radiologists expect them, whatever the orientation of the arrays.

The patient's left is on the right, anterior up in axial and to the left in sagittal slices, pixels have their true
proportions. Pictures and the report's page share these planes, windows and centers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .errors import RegInputError

__all__ = ["Plane", "display_planes", "foreground_center", "slice_view", "windowed"]


class Plane(NamedTuple):
    """One way to look at an array: ``axis`` is cut across (None in 2-D), ``rows`` run down and ``columns`` right."""

    name: str
    axis: int | None
    rows: int
    columns: int
    flip_rows: bool = False
    flip_columns: bool = False
    left: str = ""
    """The patient's side at the left edge of the picture."""


def display_planes(size: Sequence[int], spacing_mm: Sequence[float], orientation: str = "RAS") -> list[Plane]:
    """The planes to show an array in: axial, coronal and sagittal, or the array itself in 2-D.

    Args:
        size: shape of the array, two or three axes.
        spacing_mm: voxel size along each array axis.
        orientation: three letters, one of each of L/R, P/A and I/S, where the array axes point to.

    Raises:
        RegInputError: if orientation is no such word, or spacing_mm does not fit.
    """
    if len(size) not in (2, 3) or len(spacing_mm) != len(size) or min(spacing_mm) <= 0:
        raise RegInputError(
            f"spacing_mm is {list(spacing_mm)}, expected a positive number for each axis of {list(size)}."
        )
    if len(size) == 2:
        return [Plane("", None, 0, 1)]
    at = [next((k for k, letter in enumerate(orientation) if letter in pair), -1) for pair in ("LR", "PA", "IS")]
    if len(orientation) != 3 or sorted(at) != [0, 1, 2]:
        raise RegInputError(f'orientation is "{orientation}", expected three letters like "RAS" or "LIA".')
    side, front, height = at
    right, anterior, superior = (letter in orientation for letter in "RAS")
    return [
        Plane("axial", height, front, side, anterior, right, "R"),
        Plane("coronal", front, height, side, superior, right, "R"),
        Plane("sagittal", side, height, front, superior, anterior, "A"),
    ]


def slice_view(volume: np.ndarray, plane: Plane, center: Sequence[int]) -> np.ndarray:
    """The slice of an array at ``center`` as it is displayed: first row on top, first column left."""
    image = volume if plane.axis is None else np.moveaxis(volume, plane.axis, 0)[center[plane.axis]]
    image = image if plane.rows < plane.columns else image.T
    return image[:: -1 if plane.flip_rows else 1, :: -1 if plane.flip_columns else 1]


def foreground_center(image: np.ndarray) -> list[int]:
    """Voxel nearest to the centroid of what is brighter than the mean; the middle of a flat image."""
    inside = image > image.mean()
    if not inside.any():
        return [n // 2 for n in image.shape]
    others = [tuple(k for k in range(image.ndim) if k != axis) for axis in range(image.ndim)]
    counts = [np.count_nonzero(inside, axis=rest) for rest in others]
    return [round(np.average(np.arange(len(count)), weights=count)) for count in counts]


def windowed(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Fixed, moving and warped image in [0, 1], black to white.

    Args:
        images: these three, of any shapes. Windows span the 1st to the 99th percentile of the fixed and of the moving
            image; the warped one is seen in the moving one's.

    Returns:
        Arrays of the same shapes; 0 everywhere for a flat image in its own window.
    """
    windows = [np.percentile(image, (1, 99)) for image in images[:2]]
    return [
        np.clip((image - low) / (high - low if high > low else 1), 0, 1)
        for image, (low, high) in zip(images, (*windows, windows[1]), strict=True)
    ]
