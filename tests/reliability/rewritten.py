"""The same pair of scans in other files: axes flipped or permuted, or a scanner whose world lies elsewhere."""

from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

__all__ = ["FLIPPED", "MIXED", "PERMUTED", "Order", "Scan", "blobs", "rigid"]


@dataclass(frozen=True)
class Scan:
    """Voxels (*S) and their (4, 4) affine, RAS mm."""

    voxels: np.ndarray
    affine: np.ndarray

    def save(self, path: Path) -> Path:
        """A NIfTI file."""
        image = nib.Nifti1Image(self.voxels, self.affine)
        image.set_qform(self.affine, code=1)
        nib.save(image, path)
        return path

    def moved(self, world: np.ndarray) -> "Scan":
        """The same voxels in another world."""
        return Scan(self.voxels, world @ self.affine)


@dataclass(frozen=True)
class Order:
    """Another order of the array's axes.

    Args:
        axes: of the old array, in the new order.
        flipped: which of the new ones run backward.
    """

    axes: tuple[int, ...]
    flipped: tuple[bool, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        """An array whose first axes are the scan's."""
        turned = np.moveaxis(array, self.axes, range(len(self.axes)))
        return np.ascontiguousarray(turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)])

    def back(self, array: np.ndarray) -> np.ndarray:
        """Undo :meth:`of`."""
        turned = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return np.moveaxis(turned, range(len(self.axes)), self.axes)

    def rewritten(self, scan: Scan) -> Scan:
        """The same scan: every voxel where it was in the world."""
        voxels = self.of(scan.voxels)
        old_from_new = np.zeros((4, 4))
        old_from_new[3, 3] = 1
        for new, (old, flip) in enumerate(zip(self.axes, self.flipped, strict=True)):
            old_from_new[old, new] = -1 if flip else 1
            old_from_new[old, 3] = voxels.shape[new] - 1 if flip else 0
        return Scan(voxels, scan.affine @ old_from_new)


FLIPPED = [Order((0, 1, 2), flips) for flips in product((False, True), repeat=3) if any(flips)]
PERMUTED = [Order(axes, (False, False, False)) for axes in permutations(range(3)) if axes != (0, 1, 2)]
MIXED = [Order(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


def rigid(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """(4, 4): a rotation by so much about some axis and a shift of up to 80 mm."""
    axis = rng.normal(size=3)
    world = np.eye(4)
    world[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    world[:3, 3] = rng.uniform(-80, 80, 3)
    return world


def blobs(size: tuple[int, int, int], affine: np.ndarray, centers_mm: np.ndarray, width_mm: float) -> Scan:
    """Gaussian blobs of unlike height at points of the world, float32."""
    voxels = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    points = voxels @ affine[:3, :3].T + affine[:3, 3]
    squares = ((points[..., None, :] - centers_mm) ** 2).sum(-1)
    heights = 300 + 100 * np.arange(len(centers_mm))
    return Scan((np.exp(-squares / (2 * width_mm**2)) @ heights).astype(np.float32), affine)
