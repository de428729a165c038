"""Bring brain scans onto one grid: mask, intensity in [0, 1], orientation, spacing and field of view."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

__all__ = ["Grid", "brain_grid", "normalize", "resample"]

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
    """The LIA grid of 160 x 192 x 224 mm with the middle of the mask's bounding box at its middle."""
    size = tuple(round(length / spacing) for length in LIA_SIZE_MM)
    matrix = np.eye(4)
    matrix[:3, :3] = LIA_DIRECTION * spacing
    points = nib.affines.apply_affine(affine, np.argwhere(mask))
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    matrix[:3, 3] = middle - matrix[:3, :3] @ ((np.array(size) - 1) / 2)
    return Grid(size, matrix)


def normalize(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Zero outside the mask, divided by the mask's 99.9th percentile and clipped to [0, 1]; and that percentile."""
    top = float(np.percentile(image[mask], TOP_PERCENTILE))
    return np.clip(np.where(mask, image, 0) / top, 0, 1).astype(np.float32), top


def resample(voxels: np.ndarray, affine: np.ndarray, grid: Grid, to_native: np.ndarray, order: int) -> np.ndarray:
    """Sample ``voxels`` on ``grid``; zero outside.

    Args:
        voxels: (X, Y, Z) in its own world.
        affine: voxels to that world, RAS mm.
        grid: where to sample.
        to_native: (4, 4) from the grid's world to the world of ``voxels``, RAS mm.
        order: 1 linear, with the blur that a coarser grid needs, or 0 nearest, for labels.
    """
    if order:
        voxels = gaussian_filter(voxels, antialias_sigma(affine, grid.affine), mode="constant")
    matrix = np.linalg.inv(affine) @ to_native @ grid.affine
    return affine_transform(voxels, matrix[:3, :3], matrix[:3, 3], grid.size, order=order, mode="constant")


def antialias_sigma(affine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Gaussian sigma per axis, in voxels of ``affine``, that widens a voxel to one of ``coarse``; 0 where it is finer."""
    fine_mm = nib.affines.voxel_sizes(affine)
    coarse_mm = nib.affines.voxel_sizes(coarse).max()
    return np.sqrt(np.maximum(coarse_mm**2 - fine_mm**2, 0)) / FWHM_PER_SIGMA / fine_mm
