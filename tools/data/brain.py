"""Bring brain scans onto one grid: mask, intensity in [0, 1], orientation, spacing and field of view."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter, label

from common.errors import RegInputError

__all__ = ["Grid", "brain_grid", "cut_percent", "grow_mm", "largest_piece", "normalize", "outside_fraction", "resample"]

LIA_DIRECTION = np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)  # columns: Left, Inferior, Anterior in RAS
LIA_SIZE_MM = (160, 192, 224)  # the field of view of neurite's and TransMorph's brains
TOP_PERCENTILE = 99.9
FWHM_PER_SIGMA = 2.3548


@dataclass(frozen=True)
class Grid:
    """A sampling grid: ``size`` in voxels and the (4, 4) ``affine`` from voxels to RAS mm."""

    size: tuple[int, int, int]
    affine: np.ndarray


def brain_grid(mask: np.ndarray, affine: np.ndarray, spacing: float) -> Grid:
    """The LIA grid of 160 x 192 x 224 mm with the middle of the mask's bounding box at its middle.

    Args:
        mask: brain of the template, bool (X, Y, Z).
        affine: (4, 4), its voxels to RAS mm.
        spacing: voxel edge in mm.

    Raises:
        RegInputError: if the brain does not fit into the field of view.
    """
    points = apply_affine(affine, np.argwhere(mask))
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.abs(LIA_DIRECTION.T) @ (high - low)
    if (extent > LIA_SIZE_MM).any():
        raise RegInputError(
            f"the template's brain measures {np.round(extent).tolist()} mm (left-right, up-down, front-back), "
            f"expected at most {list(LIA_SIZE_MM)}; choose another template or mask."
        )
    size = tuple(round(length / spacing) for length in LIA_SIZE_MM)
    matrix = np.eye(4)
    matrix[:3, :3] = LIA_DIRECTION * spacing
    matrix[:3, 3] = (low + high) / 2 - matrix[:3, :3] @ ((np.array(size) - 1) / 2)
    return Grid(size, matrix)


def outside_fraction(image: np.ndarray, labels: np.ndarray) -> float:
    """Share of the nonzero voxels that no label covers: a few percent in a stripped brain, most of a whole head."""
    nonzero = image != 0
    return float((nonzero & (labels == 0)).sum() / max(int(nonzero.sum()), 1))


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected piece of a mask."""
    pieces, _ = label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


def grow_mm(mask: np.ndarray, affine: np.ndarray, distance_mm: float) -> np.ndarray:
    """The mask and what lies within a distance of it."""
    return distance_transform_edt(~mask, sampling=voxel_sizes(affine)) <= distance_mm


def normalize(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]: 0 outside the mask, inside divided by the mask's 99.9th percentile and clipped.

    A percentile, and not the maximum, since single bright vessels set the latter; a floor is not subtracted, since 0 is
    what air measures.

    Raises:
        RegInputError: if that percentile is not positive.
    """
    top = float(np.percentile(image[mask], TOP_PERCENTILE))
    if top <= 0:
        raise RegInputError(f"the brain's {TOP_PERCENTILE}th percentile is {top:g}, expected above 0; check the mask.")
    return np.clip(np.where(mask, image, 0) / np.float32(top), 0, 1).astype(np.float32)


def resample(voxels: np.ndarray, affine: np.ndarray, grid: Grid, to_native: np.ndarray, order: int) -> np.ndarray:
    """Sample ``voxels`` on ``grid``; 0 outside.

    Args:
        voxels: (X, Y, Z) in its own world.
        affine: (4, 4), voxels to that world, RAS mm.
        grid: where to sample.
        to_native: (4, 4) from the grid's world to the world of ``voxels``, RAS mm.
        order: 1 linear, after the blur that a coarser grid needs, or 0 nearest, for labels.
    """
    if order:
        voxels = gaussian_filter(voxels, antialias_sigma(affine, grid.affine), mode="constant")
    matrix = np.linalg.inv(affine) @ to_native @ grid.affine
    return affine_transform(voxels, matrix[:3, :3], matrix[:3, 3], grid.size, order=order, mode="constant")


def antialias_sigma(affine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Gaussian sigma per axis, in voxels of ``affine``, that widens a voxel to one of ``coarse``, or 0."""
    fine_mm = voxel_sizes(affine)
    coarse_mm = voxel_sizes(coarse).max()
    return np.sqrt(np.maximum(coarse_mm**2 - fine_mm**2, 0)) / FWHM_PER_SIGMA / fine_mm


def cut_percent(mask: np.ndarray, affine: np.ndarray, grid: Grid, to_native: np.ndarray) -> float:
    """Percent of a mask's voxels, given in its own world as in :func:`resample`, that fall outside ``grid``."""
    to_grid = np.linalg.inv(grid.affine) @ np.linalg.inv(to_native) @ affine
    voxels = apply_affine(to_grid, np.argwhere(mask))
    outside = (voxels < -0.5) | (voxels > np.array(grid.size) - 0.5)
    return float(100 * outside.any(axis=1).mean())
