"""The voxel size at which to register a pair whose fixed image has slices much thicker than its pixels."""

import numpy as np

__all__ = ["working_spacing"]

ANISOTROPY = 2.0  # largest over smallest voxel edge that a window of voxels still bears; other grids are evened out
ROUNDING = 1.001  # of edges in headers
MAX_VOXELS = 2**24  # 256 x 256 x 256; what a registration at full resolution asks of a usual machine


def working_spacing(
    fixed_affine: np.ndarray, size: tuple[int, ...], onto_moving: np.ndarray, max_voxels: int = MAX_VOXELS
) -> np.ndarray:
    """Voxel size along each axis of the fixed image, in mm, of a grid with about as many voxels but evener ones.

    A grid whose voxel edges differ by a factor of 2 at most is kept. Otherwise every edge is brought to within a factor
    of sqrt(2) of their geometric mean, so that 0.5 x 0.5 x 5 mm becomes 0.76 x 0.76 x 1.52 mm; no axis becomes finer
    than the finer of the two images is along it. A grid of more than ``max_voxels`` is made coarser along all axes.

    Args:
        fixed_affine: (N + 1, N + 1), voxels to RAS mm.
        size: voxels of the fixed image, or of the part of it that counts.
        onto_moving: (N + 1, N + 1), voxels of the fixed image to voxels of the moving image.
        max_voxels: of the result, but for rounding up at its borders.
    """
    spacing = np.linalg.norm(fixed_affine[:-1, :-1], axis=0)
    extent = spacing * size
    if spacing.max() > ROUNDING * ANISOTROPY * spacing.min():
        mean, reach = np.exp(np.log(spacing).mean()), np.sqrt(ANISOTROPY)
        moving = spacing / np.linalg.norm(onto_moving[:-1, :-1], axis=0)  # of the moving image along these axes
        spacing = np.maximum(np.clip(spacing, mean / reach, mean * reach), np.minimum(spacing, moving))
    voxels = np.prod(extent / spacing)
    return spacing * max(1.0, voxels / max_voxels) ** (1 / len(spacing))
