"""A pair of scans on unlike grids, with a known displacement between them."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

SHIFT_MM = (4.0, -3.0, 2.0)  # from the fixed to the moving anatomy, RAS


def grid(angles: tuple, spacing: tuple, size: tuple, flip: bool = False) -> np.ndarray:
    """An oblique, anisotropic, possibly left-handed affine whose grid is centered on the world's origin."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 0] *= -1 if flip else 1
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def anatomy(affine: np.ndarray, size: tuple, offset=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Two smooth blobs in world space, moved by ``offset`` mm."""
    world = np.moveaxis(np.indices(size), 0, -1) @ affine[:3, :3].T + affine[:3, 3] - np.array(offset)
    return np.exp(-((world - [6, -3, 2]) ** 2).sum(-1) / 90) + 0.6 * np.exp(-((world - [-8, 5, -4]) ** 2).sum(-1) / 50)


def write_pair(folder: Path) -> dict[str, str]:
    """A fixed scan on an oblique left-handed grid, and the same anatomy ``SHIFT_MM`` away on another grid."""
    sizes = {"fixed": (30, 26, 14), "moving": (50, 64, 42)}  # the second covers the first, however turned
    affines = {
        "fixed": grid((20, -15, 30), (1.4, 1.6, 3.0), sizes["fixed"], flip=True),
        "moving": grid((-10, 5, 70), (1.7, 1.3, 2.0), sizes["moving"]),
    }
    paths = {}
    for role, size in sizes.items():
        image = anatomy(affines[role], size, SHIFT_MM if role == "moving" else (0, 0, 0))
        paths[role], paths[f"{role}_label"] = (str(folder / f"{role}{kind}.nii.gz") for kind in ("", "_label"))
        nib.save(nib.Nifti1Image((1000 * image).astype(np.int16), affines[role]), paths[role])
        nib.save(nib.Nifti1Image((image > 0.4).astype(np.uint8), affines[role]), paths[f"{role}_label"])
    return paths
