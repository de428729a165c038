"""Bring brains onto the grid that a template's brain centers: 12 parameters by content, one interpolation each.

World coordinates are RAS mm; ``to_native`` maps points of the prepared scan to the raw one's.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.affine import register_affine
from common.errors import RegInputError
from common.preflight import Volume, check_image

from .brain import Grid, brain_grid, grow_mm, normalize, resample
from .files import save_nifti, save_text
from .prepared import Job

__all__ = ["Alignment", "align_to", "check_template", "save_aligned", "save_template"]

TEMPLATE_BELOW = 0.5  # of a template's voxels nonzero: 0.23 to 0.31 in stripped scans, even if tightly cropped
REGION_MM = 15.0  # about the template's brain: with all its background, mean Dice over the scans is 0.01 lower


class Alignment(NamedTuple):
    """How a scan lies on the template."""

    to_native: np.ndarray
    """(4, 4), RAS mm of the template to RAS mm of the scan."""
    mutual_information: float | None
    """In nats; None for the template itself."""


def check_template(path: Path) -> None:
    """Refuse a template that cannot be read or still has its head."""
    share = float((check_image(path, 3).voxels != 0).mean())
    if share > TEMPLATE_BELOW:
        raise RegInputError(
            f"{path} is nonzero in {share:.0%} of its voxels, expected a skull-stripped template (less than "
            f"{TEMPLATE_BELOW:.0%}); strip it first."
        )


def save_template(stripped: np.ndarray, affine: np.ndarray, spacing: float, path: Path) -> Grid:
    """Write what scans are aligned to, on its own grid; return the grid of ``spacing`` mm that its brain centers."""
    grid = brain_grid(stripped != 0, affine, spacing)
    save_nifti(stripped, affine, path)
    return grid


def align_to(template: Path, stripped: np.ndarray, affine: np.ndarray) -> Alignment:
    """Align a stripped brain (X, Y, Z), ``affine`` its voxels to RAS mm, to the template that was saved."""
    target = check_image(template, 3)
    region = grow_mm(target.voxels != 0, target.affine, REGION_MM)
    result = register_affine((target.voxels, target.affine), (stripped, affine), fixed_mask=region)
    return Alignment(result.matrix, -result.metric)


def save_aligned(
    job: Job, grid: Grid, to_native: np.ndarray, image: Volume, brain: np.ndarray, labels: Volume | None
) -> np.ndarray | None:
    """Write a job's image in [0, 1], affine and, if there are some, labels; return these on ``grid``."""
    voxels = resample(normalize(image.voxels, brain), image.affine, grid, to_native, order=1)
    values = None if labels is None else resample(labels.voxels, labels.affine, grid, to_native, order=0)
    save_nifti(voxels, grid.affine, job.output("image"))
    if values is not None:
        values = values.astype(np.uint8 if values.max() < 256 else np.int32)
        save_nifti(values, grid.affine, job.output("label"))
    save_text("".join(" ".join(map(repr, line)) + "\n" for line in to_native.tolist()), job.output("affine"))
    return values
