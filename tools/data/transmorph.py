"""TransMorph's releases of brains: pickles of arrays without a header, each an image and its labels, or a pair.

The arrays say nothing of where they lie. Their labels name the sides, which gives the orientation; the voxels are 1 mm,
as published. World zero is put where FreeSurfer puts it, at voxel ``size / 2``, so that all scans share one grid.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import RegInputError
from common.preflight import findings, label_values, refuse

from .brain import LIA_DIRECTION
from .files import save_nifti, sha256
from .label_orientation import Structures, label_orientation, reorient
from .pickles import read_arrays
from .prepared import Job
from .resume import digest

__all__ = ["SIZE", "PickledBrain", "Release", "check_brains", "find_pickles", "make_job", "prepare_brain"]

RECIPE = 1  # goes up when the same input would give other voxels, so that what lies there is made again
SIZE = (160, 192, 224)  # voxels, LIA
RANGE_ATOL = 1e-4  # by which an intensity may leave [0, 1]
PERCENTILES = (1.0, 50.0, 99.9)


class PickledBrain(NamedTuple):
    """One image and its labels in a file."""

    name: str
    path: Path
    image: int = 0
    """Which of the file's arrays is the image."""
    label: int = 1
    count: int = 2
    """Arrays in the file."""


class Release(NamedTuple):
    """What the brains of one release have in common."""

    size: tuple[int, int, int]
    structures: Structures
    """What tells left from right, in the numbers of the files."""
    numbers: tuple[int, ...]
    """The numbers of the files, 0 first; each is written as its place in this list."""
    scored: tuple[int, ...]
    """Numbers, as they are written, that evaluation scores."""


def find_pickles(raw: Path) -> list[Path]:
    """All files below ``raw`` that end in ``.pkl``, in the order of the numbers in their names."""
    numbers = {
        path: [int(n) for n in "".join(c if c.isdecimal() else " " for c in path.stem).split()]
        for path in raw.rglob("*.pkl")
    }
    return sorted(numbers, key=lambda path: (numbers[path], str(path)))


def check_brains(brains: Sequence[PickledBrain], release: Release, workers: int | None) -> None:
    """Read every brain; RegInputError with all findings."""
    with ThreadPoolExecutor(workers or cpu_count() or 1) as pool:  # reading and numpy let others run
        parts = pool.map(lambda brain: findings([(read_brain, brain, release)]), brains)
        refuse([sentence for part in parts for sentence in part])


def read_brain(brain: PickledBrain, release: Release) -> tuple[np.ndarray, np.ndarray, str]:
    """Image (float32, [0, 1]) and labels (uint8, renumbered), both LIA, and how they lay in the file.

    Raises:
        RegInputError: if the file holds anything else.
    """
    arrays = read_arrays(brain.path, brain.count)
    image, labels = arrays[brain.image], label_values(brain.path, arrays[brain.label])
    if image.shape != labels.shape or image.ndim != 3:
        raise RegInputError(
            f"{brain.path} has an image of shape {image.shape} and labels of {labels.shape}, expected three axes, the "
            f"same; fetch it again from its publisher."
        )
    if not np.isfinite(image).all() or not -RANGE_ATOL <= image.min() < image.max() <= 1 + RANGE_ATOL:
        raise RegInputError(
            f"{brain.path} has intensities from {image.min():g} to {image.max():g}, expected contrast within 0 to 1; "
            f"check that it belongs to the release."
        )
    unknown = sorted(set(np.unique(labels).tolist()) - set(release.numbers))
    codes = label_orientation(labels, release.structures)
    if unknown or codes is None:
        what = f"has the labels {unknown[:9]}" if unknown else "lacks labels that tell left from right"
        raise RegInputError(
            f"{brain.path} {what}, expected the release's {len(release.numbers)} from {release.numbers[0]} to "
            f"{release.numbers[-1]}; check that nobody renumbered it."
        )
    image, labels = (reorient(array, codes, "LIA") for array in (image, labels))
    if image.shape != release.size:
        raise RegInputError(
            f"{brain.path} has {image.shape} voxels toward left, down and front, expected {release.size}; check that "
            f"it belongs to the release."
        )
    table = np.zeros(max(release.numbers) + 1, np.uint8)
    table[list(release.numbers)] = np.arange(len(release.numbers))
    return image.clip(0, 1).astype(np.float32), table[labels], codes


def affine_of(size: Sequence[int]) -> np.ndarray:
    """(4, 4), voxels of 1 mm to RAS mm, LIA, zero at voxel ``size / 2``."""
    matrix = np.eye(4)
    matrix[:3, :3] = LIA_DIRECTION
    matrix[:3, 3] = -LIA_DIRECTION @ (np.array(size) / 2)
    return matrix


def make_job(brain: PickledBrain, release: Release, out: Path) -> Job:
    """A brain's job, with the digest of its file and of the release."""
    settings = {"recipe": RECIPE, "file": sha256(brain.path), "arrays": list(brain[2:]), "release": list(release)}
    return Job(brain.name, (brain, release), digest(settings), out)


def prepare_brain(job: Job) -> dict[str, Any]:
    """Write one brain's image and labels; return its row of the report."""
    brain, release = job.raw
    image, labels, codes = read_brain(brain, release)
    affine = affine_of(release.size)
    save_nifti(image, affine, job.output("image"))
    save_nifti(labels, affine, job.output("label"))
    found = set(np.unique(labels).tolist())
    missing = [value for value in release.scored if value not in found]
    return {
        "id": job.name,
        "file": f"{brain.path.parent.name}/{brain.path.name}",
        "size": " ".join(map(str, image.shape)),
        "spacing_mm": "1 1 1",
        "orientation": codes,
        "brain_ml": round(float((labels > 0).sum() / 1000), 1),
        **{f"p{p:g}": round(float(np.percentile(image[image > 0], p)), 4) for p in PERCENTILES},
        "labels_found": len(release.scored) - len(missing),
        "labels_missing": " ".join(map(str, missing)),
    }
