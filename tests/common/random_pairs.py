"""Random pairs of images on grids as scanners and converters make them, with a known map between their worlds."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation
from torch import Tensor

from common.geometry import ddf_to_mm, total_displacement_mm
from common.transform_files import write_composite

from .test_geometry import smooth_ddf, smooth_image

__all__ = ["RandomPair", "lps", "random_pair", "random_points", "resampled_by_simpleitk", "save_volume"]


@dataclass(frozen=True)
class RandomPair:
    """``y = initial @ (x + ddf_mm(x))`` between two grids; ``total_mm`` is the same as one displacement."""

    size: tuple[int, ...]
    affine: np.ndarray
    moving: Tensor
    moving_affine: np.ndarray
    ddf: Tensor
    ddf_mm: Tensor
    initial: np.ndarray
    total_mm: Tensor


def random_pair(seed):
    """Oblique, left-handed and anisotropic grids of 10 to 16 voxels; every fifth pair is 2-D; float64."""
    rng = np.random.default_rng(seed)
    ndim = 2 if seed % 5 == 4 else 3
    size, moving_size = (tuple(int(n) for n in rng.integers(10, 17, ndim)) for _ in range(2))
    affine = random_affine(rng, size, (0.8, 1.8))
    initial = random_initial(rng, middle(affine, size))
    moving_affine = random_affine(rng, moving_size, (1.4, 2.6), initial @ middle(affine, size))
    ddf = smooth_ddf(size, voxels=1.0, seed=seed)
    total = total_displacement_mm(ddf, affine, affine, size, initial)
    moving = smooth_image(moving_size, seed)
    return RandomPair(size, affine, moving, moving_affine, ddf, ddf_to_mm(ddf, affine), initial, total)


def random_affine(rng, size, spacing_mm, center=None):
    """Rotated and flipped, voxels of a size between two, its middle at ``center`` or up to 100 mm from the origin."""
    ndim = len(size)
    signs = rng.choice([-1.0, 1.0], ndim)
    axes = rng.permutation(ndim)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = (random_rotation(rng, ndim, 180) * signs * rng.uniform(*spacing_mm, ndim))[:, axes]
    at = rng.uniform(-100, 100, ndim) if center is None else center[:-1]
    matrix[:-1, -1] = at - matrix[:-1, :-1] @ ((np.array(size) - 1) / 2)
    return matrix


def random_initial(rng, center):
    """Rotation by up to 15 degrees, scales of 0.9 to 1.1 and a shift of up to 8 mm, about a point."""
    ndim = len(center) - 1
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = random_rotation(rng, ndim, 15) * rng.uniform(0.9, 1.1, ndim)
    matrix[:-1, -1] = center[:-1] - matrix[:-1, :-1] @ center[:-1] + rng.uniform(-8, 8, ndim)
    return matrix


def random_rotation(rng, ndim, degrees):
    axis = rng.normal(size=3) if ndim == 3 else np.array([0, 0, 1.0])
    turn = Rotation.from_rotvec(np.deg2rad(rng.uniform(0.2, 1) * degrees) * axis / np.linalg.norm(axis))
    return turn.as_matrix()[:ndim, :ndim]


def middle(affine, size):
    return affine @ np.append((np.array(size) - 1) / 2, 1)


def save_volume(array, affine, path):
    """A NIfTI file with sform and qform."""
    full = np.eye(4)
    ndim = len(affine) - 1
    full[:ndim, :ndim], full[:ndim, 3] = affine[:-1, :-1], affine[:-1, -1]
    image = nib.Nifti1Image(np.asarray(array), full)
    image.set_qform(full, code=1)
    nib.save(image, path)
    return Path(path)


def lps(points):
    """RAS points or displacements (..., N) as LPS, and back; written here so that no code of ours judges itself."""
    return np.asarray(points) * [-1, -1, 1][: np.shape(points)[-1]]


def resampled_by_simpleitk(pair, transform):
    """(image on the fixed grid, where it comes from inside the moving image) through a SimpleITK transform."""
    inner = np.pad(np.ones(np.array(pair.moving.shape[2:]) - 2), 1)  # ours fades within the last half voxel
    grid = sitk_image(np.zeros(pair.size), pair.affine)
    results = [
        sitk.GetArrayFromImage(sitk.Resample(sitk_image(a, pair.moving_affine), grid, transform, sitk.sitkLinear)).T
        for a in (pair.moving[0, 0].numpy(), inner)
    ]
    return results[0], results[1] > 1 - 1e-6


def sitk_image(array, affine):
    """A SimpleITK image of an array in our axis order on a RAS grid, 2-D or 3-D."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(array, np.float64).T))
    spacing = np.linalg.norm(affine[:-1, :-1], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps(affine[:-1, -1]).tolist())
    image.SetDirection(lps((affine[:-1, :-1] / spacing).T).T.ravel().tolist())
    return image


def random_points(pair, count=20):
    """Points (K, N) of the fixed world within the grid, a voxel from its border."""
    rng = np.random.default_rng(count)
    index = rng.uniform(1, np.array(pair.size) - 2, (count, len(pair.size)))
    return index @ pair.affine[:-1, :-1].T + pair.affine[:-1, -1]


def save_pair(pair, folder):
    """The fixed grid, the moving image and the map as a composite, under the names that a user has."""
    save_volume(np.zeros(pair.size), pair.affine, folder / "fixed.nii.gz")
    save_volume(pair.moving[0, 0].numpy(), pair.moving_affine, folder / "moving.nii.gz")
    write_composite(folder / "transform.h5", pair.ddf_mm, pair.affine, pair.initial)
