"""Bring brains onto the grid that a template's brain centers: 12 parameters by content, one interpolation each.

World coordinates are RAS mm; ``to_native`` maps points of the prepared scan to the raw one's.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from common.affine import register_affine
from common.errors import RegInputError
from common.preflight import Volume, check_image
from common.report import SheetRow

from .brain import Grid, brain_grid, cut_percent, grow_mm, normalize, resample
from .files import save_nifti, save_text
from .prepared import Job

__all__ = [
    "SPACINGS",
    "Alignment",
    "align_to",
    "alignment_columns",
    "check_template",
    "save_aligned",
    "save_template",
    "scan_columns",
    "sheet_rows",
]

TEMPLATE_BELOW = 0.5  # of a template's voxels nonzero: 0.23 to 0.31 in stripped scans, even if tightly cropped
SPACINGS = (1.0, 2.0)  # mm; both divide the field of view into multiples of 16 voxels
PERCENTILES = (1.0, 50.0, 99.9)
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


def scan_columns(image: Volume, brain: np.ndarray) -> dict[str, Any]:
    """What a report says of a raw scan: its grid, and the intensities of its brain (bool, on that grid)."""
    return {
        "raw_size": " ".join(map(str, image.voxels.shape)),
        "raw_spacing_mm": " ".join(f"{s:g}" for s in voxel_sizes(image.affine)),
        "raw_orientation": "".join(nib.aff2axcodes(image.affine)),
        "brain_ml": round(float(brain.sum() * np.prod(voxel_sizes(image.affine)) / 1000), 1),
        **{f"p{p:g}": round(float(np.percentile(image.voxels[brain], p)), 3) for p in PERCENTILES},
    }


def alignment_columns(image: Volume, brain: np.ndarray, grid: Grid, aligned: Alignment) -> dict[str, Any]:
    """What a report says of an alignment: what the grid cuts off the brain, its scale, how alike the images are."""
    shared = aligned.mutual_information
    return {
        "cut_percent": round(cut_percent(brain, image.affine, grid, aligned.to_native), 4),
        "volume_ratio": round(float(np.linalg.det(aligned.to_native[:3, :3])), 4),
        "mutual_information": "" if shared is None else round(shared, 4),
    }


def sheet_rows(jobs: Sequence[Job], reference: str | None) -> Iterator[SheetRow]:
    """The prepared brains, each under the outline of the job called ``reference``; of their own if that is None."""
    first = next((job for job in jobs if job.name == reference), None)
    outline = None if first is None else np.asarray(nib.load(first.output("image")).dataobj) > 0
    for job in jobs:
        image = nib.load(job.output("image"))
        voxels = np.asarray(image.dataobj)
        mask = voxels > 0 if outline is None else outline
        yield SheetRow(job.name, voxels, mask, voxel_sizes(image.affine).tolist(), "LIA")
