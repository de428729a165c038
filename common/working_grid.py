"""The voxel size at which to register a pair whose fixed image has slices much thicker than its pixels, or too many."""

import numpy as np

__all__ = ["working_spacing"]

ANISOTROPY = 2.0  # largest over smallest voxel edge that a window of voxels still bears; other grids become cubes
PART = 3.0  # of a thick slice: finer displacements are not told apart through it
ROUNDING = 1.001  # of edges in headers
MAX_VOXELS = 2**24  # 256 x 256 x 256; what a registration at full resolution asks of a usual machine


def working_spacing(fixed_affine: np.ndarray, size: tuple[int, ...], max_voxels: int = MAX_VOXELS) -> np.ndarray:
    """Voxel size along each axis of the fixed image, in mm, of a grid that is fit to register on.

    A grid whose voxel edges differ by a factor of 2 at most is kept. Others become cubes, about as many as there were
    voxels, but with edges of a third of the largest at least: 1 x 1 x 5 mm becomes 1.71 mm, 0.5 x 0.5 x 5 mm 1.67 mm.
    A grid of more than ``max_voxels`` is made coarser along all axes.

    Args:
        fixed_affine: (N + 1, N + 1), voxels to RAS mm.
        size: voxels of the fixed image, or of the part of it that counts.
        max_voxels: of the result, but for rounding up at its borders.
    """
    spacing = np.linalg.norm(fixed_affine[:-1, :-1], axis=0)
    extent = spacing * size
    if spacing.max() > ROUNDING * ANISOTROPY * spacing.min():
        spacing = np.full_like(spacing, max(np.exp(np.log(spacing).mean()), spacing.max() / PART))
    voxels = np.prod(extent / spacing)
    return spacing * max(1.0, voxels / max_voxels) ** (1 / len(spacing))
