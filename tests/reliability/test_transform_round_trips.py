"""Does SimpleITK, and do we, read from our files the map that was written, whatever the grids?"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import ArrayLike

from common.geometry import transform_points, warp_mm
from common.map_files import read_transform
from common.transform_files import write_composite, write_displacement
from tests.common.random_pairs import RandomPair, lps, random_pair, random_points, resampled_by_simpleitk

SUBJECT = "transform round trips"
RANGE = 1e-4  # of the image's values, which go from 0 to 1
POINTS_MM = 0.01
MAP_MM = 1e-4  # the files hold float32
FIRST = 1000  # seeds that no other test has


def simpleitk_map(path: Path) -> sitk.Transform:
    """A file of either kind as SimpleITK reads it."""
    if path.suffix == ".h5":
        return sitk.ReadTransform(str(path))
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))


def moves_alike(transform: sitk.Transform, pair: RandomPair) -> bool:
    """Whether SimpleITK moves points as the pair's map does."""
    points = random_points(pair)
    theirs = lps([transform.TransformPoint(p.tolist()) for p in lps(points)])
    return is_near(transform_points(points, pair.total_mm, pair.affine), theirs, POINTS_MM)


def resamples_alike(transform: sitk.Transform, pair: RandomPair) -> bool:
    """Whether SimpleITK resamples the moving image as we do, wherever it has some voxels to compare."""
    theirs, inside = resampled_by_simpleitk(pair, transform)
    ours = warp_mm(pair.moving, pair.moving_affine, pair.total_mm, pair.affine)[0, 0].numpy()
    return inside.sum() >= 20 and is_near(ours[inside], theirs[inside], RANGE)


def is_near(first: ArrayLike, second: ArrayLike, tolerance: float) -> bool:
    """Whether no entry differs by more."""
    return bool(np.abs(np.asarray(first) - np.asarray(second)).max() <= tolerance)


def comes_back(pair: RandomPair, folder: Path) -> bool:
    """Whether both files hold the map, for us and for SimpleITK."""
    field, composite = folder / "displacement.nii.gz", folder / "transform.h5"
    write_displacement(field, pair.total_mm, pair.affine)
    write_composite(composite, pair.ddf_mm, pair.affine, pair.initial)
    for path in (field, composite):
        transform = simpleitk_map(path)
        again = read_transform(path).on_grid(pair.size, pair.affine)
        if not (moves_alike(transform, pair) and resamples_alike(transform, pair)):
            return False
        if not is_near(again, pair.total_mm, MAP_MM):
            return False
    return True


def comes_back_from_nibabel(pair: RandomPair, folder: Path) -> bool:
    """Whether SimpleITK moves points alike through a field in nibabel's own world, RAS mm, marked as a vector image."""
    ndim = len(pair.size)
    voxels = np.moveaxis(pair.total_mm[0].numpy(), 0, -1).reshape(*pair.size, *[1] * (4 - ndim), ndim)
    affine = np.eye(4)
    affine[:ndim, :ndim], affine[:ndim, 3] = pair.affine[:-1, :-1], pair.affine[:-1, -1]
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    image.header.set_intent("vector")
    nib.save(image, folder / "alone.nii.gz")
    try:
        return moves_alike(simpleitk_map(folder / "alone.nii.gz"), pair)
    except RuntimeError:  # SimpleITK takes it for no field of this dimension
        return False


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_map_comes_back_on_random_grids(ledger, count, tmp_path, part):
    wrong = []
    for seed in range(FIRST + part, FIRST + part + 2 * count(250, 8), 2):
        pair, case = random_pair(seed), f"grids {seed}"
        right = comes_back(pair, tmp_path)
        ledger.tell(SUBJECT, case, right)
        if ledger.kept:
            ledger.tell_alone(SUBJECT, case, comes_back_from_nibabel(pair, tmp_path), "nibabel")
        wrong += [] if right else [case]
    assert wrong == []


def test_a_field_without_the_flip_to_lps_would_be_seen(tmp_path):
    """Negative control: every convention but one is kept in what nibabel writes."""
    assert [seed for seed in range(FIRST, FIRST + 5) if comes_back_from_nibabel(random_pair(seed), tmp_path)] == []
