"""One scan of one's own, prepared: stripped, scaled, aligned and resampled, with its labels, mask and landmarks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.transforms import ScaleIntensityRange
from nibabel.affines import apply_affine, voxel_sizes
from scipy.ndimage import binary_fill_holes

from common.affine import AffineResult, register_affine
from common.brain import WORKING_MM, doubts, extract_brain
from common.errors import RegInputError
from common.fingerprint import file_fingerprint
from common.intensity import NormalizeIntensityd
from common.preflight import Volume, check_image, check_label
from common.report import SheetRow
from common.transforms import resample as resample_image

from .brain import Grid, cut_percent, grow_mm, resample
from .files import save_nifti, save_text
from .heads import foreground, why_not_stripped
from .prepared import Job
from .recipe import Recipe
from .resume import digest
from .scan_checks import landmark_voxels, outside
from .scans import Scan

__all__ = ["Reference", "job_for", "parts_of", "prepare_scan", "sheet_rows"]

VERSION = 1  # goes up when the same input would give other voxels, so that what lies there is made again
REGION_MM = 15.0  # about the reference's organ: what lies farther off has no say in an alignment
PERCENTILES = (1.0, 50.0, 99.9)
NAME_LETTERS = 24


class Reference(NamedTuple):
    """What a scan is aligned to."""

    image: Path
    mask: Path | None = None
    """Its organ, on its grid."""


class Raw(NamedTuple):
    """What one prepared scan is made from."""

    scan: Scan
    recipe: Recipe
    grid: Grid
    reference: Reference | None


class Placed(NamedTuple):
    """A scan's alignment: the reference's world to the scan's, RAS mm, and how it was found."""

    to_native: np.ndarray
    result: AffineResult | None = None


def parts_of(scan: Scan, recipe: Recipe) -> tuple[str, ...]:
    """What comes with a prepared image in the datalist."""
    has = {"label": scan.label, "keypoints": scan.landmarks, "mask": scan.mask or recipe.strips}
    return tuple(part for part, there in has.items() if there)


def job_for(
    scan: Scan, recipe: Recipe, grid: Grid, out: Path, reference: Reference | None = None, name: str | None = None
) -> Job:
    """A scan's job, with the digest of every file and option that its result depends on."""
    templates = {"head": recipe.template_head, "head_mask": recipe.template_mask}
    if reference is not None:
        templates |= {"reference": reference.image, "reference_mask": reference.mask}
    settings = {
        "version": VERSION,
        **{part: file_fingerprint(path) for part, path in scan.files.items()},
        **{part: file_fingerprint(path) for part, path in templates.items() if path is not None},
        "recipe": [recipe.strips, recipe.modality, recipe.window, recipe.align, recipe.points_space],
        "grid": [list(grid.size), grid.affine.tolist()],
    }
    kinds = ("image", *parts_of(scan, recipe), *(("affine",) if reference else ()))
    return Job(name or scan.name, Raw(scan, recipe, grid, reference), digest(settings), out, kinds)


def prepare_scan(job: Job) -> dict[str, Any]:
    """Write one scan's files; return its row of the report."""
    raw: Raw = job.raw
    image = check_image(raw.scan.image, 3)
    labels = None if raw.scan.label is None else check_label(raw.scan.label, image)
    mask, origin = region(image, labels, raw)
    values, modality = scaled(image.voxels, mask if raw.recipe.strips else None, raw.recipe)
    placed = align(values, image.affine, mask, raw)
    save_nifti(on_grid(values, image.affine, raw.grid, placed.to_native), raw.grid.affine, job.output("image"))
    row = report_row(job, image, modality, placed)
    if mask is not None:
        row |= save_map(mask.astype(np.int32), "mask", job, image, placed)
        row |= {"mask_from": origin, "doubts": " ".join(doubts(mask, image.affine)) if raw.recipe.strips else ""}
    if labels is not None:
        row |= save_map(labels.voxels, "label", job, image, placed)
    if raw.scan.landmarks is not None:
        row |= save_keypoints(job, image, placed)
    if raw.reference is not None:
        save_text(matrix_text(placed.to_native), job.output("affine"))
    return row


def region(image: Volume, labels: Volume | None, raw: Raw) -> tuple[np.ndarray | None, str]:
    """Where the image counts, bool on its grid or None, and where that comes from."""
    scan, recipe = raw.scan, raw.recipe
    if scan.mask is not None:
        return check_label(scan.mask, image).voxels > 0, "given"
    if not recipe.strips:
        return None, ""
    if why_not_stripped(image.voxels, image.affine, None if labels is None else labels.voxels) is None:
        return binary_fill_holes(foreground(image.voxels)), "stripped before"
    if recipe.template_head is None or recipe.template_mask is None:
        raise RegInputError(f"{image.path} is not stripped, expected a mask or a template-head; give one.")
    head = check_image(recipe.template_head, 3)
    brain = check_label(recipe.template_mask, head).voxels
    found = extract_brain((image.voxels, image.affine), (head.voxels, head.affine), brain, spacing_mm=WORKING_MM)
    return found, "extracted"


def scaled(voxels: np.ndarray, mask: np.ndarray | None, recipe: Recipe) -> tuple[np.ndarray, str]:
    """Values in [0, 1], float32, 0 outside of the mask, and the modality that they were taken for."""
    if recipe.window is not None:
        values, modality = ScaleIntensityRange(*recipe.window, 0, 1, clip=True)(voxels), "window"
    else:
        item = {"image": torch.from_numpy(voxels)[None]}
        if mask is not None:
            item["image_mask"] = torch.from_numpy(mask)[None]
        item = NormalizeIntensityd("image", modality=recipe.modality, masks=mask is not None)(item)
        values, modality = item["image"][0], item["image_modality"]
    values = np.asarray(values, dtype=np.float32)
    return (values if mask is None else np.where(mask, values, np.float32(0))), modality


def align(values: np.ndarray, affine: np.ndarray, mask: np.ndarray | None, raw: Raw) -> Placed:
    """Where a scan lies in the world of its reference."""
    if raw.reference is None or raw.recipe.align == "header":
        return Placed(np.eye(4))
    reference = check_image(raw.reference.image, 3)
    where = None if raw.reference.mask is None else check_label(raw.reference.mask, reference).voxels > 0
    if where is None and raw.recipe.strips:
        where = foreground(reference.voxels)
    result = register_affine(
        (reference.voxels, reference.affine),
        (values, affine),
        rigid=raw.recipe.align == "rigid",
        fixed_mask=None if where is None else grow_mm(where, reference.affine, REGION_MM),
        moving_mask=None if mask is None or raw.recipe.strips else grow_mm(mask, affine, REGION_MM),
    )
    return Placed(result.matrix, result)


def on_grid(values: np.ndarray, affine: np.ndarray, grid: Grid, to_native: np.ndarray) -> np.ndarray:
    """An image at the voxels of a grid, linear, after the blur that coarser voxels need; as it is on its own grid."""
    matrix = np.linalg.solve(affine, to_native @ grid.affine)
    if values.shape == tuple(grid.size) and np.allclose(matrix, np.eye(4), atol=1e-6):
        return values
    return resample_image(torch.from_numpy(values)[None], matrix, grid.size)[0][0].numpy()


def save_map(values: np.ndarray, kind: str, job: Job, image: Volume, placed: Placed) -> dict[str, Any]:
    """Write labels or a mask, nearest neighbor; what the report says of them."""
    grid = job.raw.grid
    found = resample(values, image.affine, grid, placed.to_native, order=0)
    if not found.any():
        source = job.raw.scan.files.get(kind, image.path)
        raise RegInputError(
            f"nothing of {source} is left on the prepared grid, expected some of it; look at where it lies, at "
            "--size and at the template."
        )
    save_nifti(found.astype(np.uint8 if found.max() < 256 else np.int32), grid.affine, job.output(kind))
    cut = round(cut_percent(values > 0, image.affine, grid, placed.to_native), 4)
    if kind == "mask":
        return {
            "mask_ml": round(float(values.sum() * np.prod(voxel_sizes(image.affine)) / 1000), 1),
            "mask_cut_percent": cut,
        }
    return {"labels_found": " ".join(map(str, np.unique(found[found > 0]))), "label_cut_percent": cut}


def save_keypoints(job: Job, image: Volume, placed: Placed) -> dict[str, Any]:
    """Write landmarks in voxels of the prepared image; how many they are.

    Raises:
        RegInputError: if one lies outside of it, which only the alignment shows.
    """
    scan, grid = job.raw.scan, job.raw.grid
    points = landmark_voxels(scan.landmarks, image.affine, job.raw.recipe.points_space)
    points = apply_affine(np.linalg.inv(placed.to_native @ grid.affine) @ image.affine, points)
    lost = outside(points, grid.size)
    if lost.any():
        raise RegInputError(
            f"{scan.landmarks} has {lost.sum()} of {len(lost)} landmarks outside of the prepared grid, the first "
            f"number {int(lost.argmax()) + 1}, expected all inside; leave it out of all tables, or prepare a larger "
            "field of view (--size)."
        )
    save_text("".join(",".join(f"{v:.6f}" for v in point) + "\n" for point in points), job.output("keypoints"))
    return {"keypoints": len(points)}


def matrix_text(matrix: np.ndarray) -> str:
    """Four rows of numbers with all of their digits."""
    return "".join(" ".join(map(repr, line)) + "\n" for line in matrix.tolist())


def report_row(job: Job, image: Volume, modality: str, placed: Placed) -> dict[str, Any]:
    """What a person checks of one scan: its grid, its intensities, and how the alignment went."""
    result = placed.result
    return {
        "id": job.name,
        "subject": job.raw.scan.subject,
        "raw_size": " ".join(map(str, image.voxels.shape)),
        "raw_spacing_mm": " ".join(f"{s:.5g}" for s in voxel_sizes(image.affine)),
        "raw_orientation": "".join(nib.aff2axcodes(image.affine)),
        "modality": modality,
        **{f"p{p:g}": round(float(np.percentile(image.voxels, p)), 3) for p in PERCENTILES},
        "volume_ratio": "" if result is None else round(float(np.linalg.det(result.matrix[:3, :3])), 4),
        "mutual_information": "" if result is None else round(-result.metric, 4),
        "overlap": "" if result is None else round(result.overlap, 4),
        "lead": "" if result is None else round(result.lead, 3),
    }


def sheet_rows(jobs: Sequence[Job]) -> Iterator[SheetRow]:
    """The prepared scans under the outline of their own mask, or labels; aligned ones under their reference's too."""
    for job in jobs:
        image = nib.load(job.output("image"))
        voxels, grid = (
            np.asarray(image.dataobj),
            (voxel_sizes(image.affine).tolist(), "".join(nib.aff2axcodes(image.affine))),
        )
        kind = next((kind for kind in ("mask", "label") if kind in job.kinds), None)
        own = np.zeros(voxels.shape, bool) if kind is None else np.asarray(nib.load(job.output(kind)).dataobj) > 0
        yield SheetRow(short(job.name), voxels, own, *grid)
        if job.raw.reference is not None:
            yield SheetRow(f"{short(job.name)} +ref.", voxels, reference_outline(job), *grid)


def short(name: str) -> str:
    """A name of as many letters as fit beside a panel."""
    return name if len(name) <= NAME_LETTERS else f"{name[: NAME_LETTERS - 1]}…"


def reference_outline(job: Job) -> np.ndarray:
    """The reference's organ at a prepared scan's voxels: its mask, else what is brighter than its mean."""
    raw: Raw = job.raw
    image = check_image(raw.reference.image, 3)
    if raw.reference.mask is not None:
        outline = check_label(raw.reference.mask, image).voxels > 0
    else:
        outline = foreground(image.voxels) if raw.recipe.strips else image.voxels > image.voxels.mean()
    return resample(outline.astype(np.uint8), image.affine, raw.grid, np.eye(4), order=0) > 0
