"""The brains of many whole heads, by a template's mask: extracted once, kept as files, used like a user's masks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes

from common.brain import doubts, extract_brain
from common.errors import RegInputError
from common.preflight import check_image, check_label

from .files import save_nifti, sha256
from .prepared import Job, make_all
from .resume import digest

__all__ = ["HeadTemplate", "check_head_template", "extract_all", "head_template"]

VERSION = 1  # goes up when the same input would give another mask


class HeadTemplate(NamedTuple):
    """A head with its skull, and its brain on the same grid."""

    head: Path
    brain: Path


def head_template(head: str | None, brain: str | None) -> HeadTemplate | None:
    """A template of two paths, or None if neither is named.

    Raises:
        RegInputError: if one is named alone.
    """
    if (head is None) != (brain is None):
        raise RegInputError(f"template-head is {head} and template-mask {brain}, expected both or none; name both.")
    return None if head is None or brain is None else HeadTemplate(Path(head), Path(brain))


def check_head_template(template: HeadTemplate) -> None:
    """Refuse files that cannot be read, and a mask that is not on the head's grid or takes up the whole of it."""
    head = check_image(template.head, 3)
    inside = check_label(template.brain, head).voxels > 0
    if not ((head.voxels != 0) & ~inside).any():
        raise RegInputError(
            f"{template.head} shows nothing outside of {template.brain}, expected a whole head, skull and scalp; name "
            "the template before it was stripped."
        )


def extract_all(
    scans: Mapping[str, Path], template: HeadTemplate, out: Path, workers: int | None = None, force: bool = False
) -> tuple[str, dict[str, str]]:
    """Write ``out/masks/<name>.nii.gz`` for every scan that has none yet.

    Args:
        scans: name -> whole head.
        template: of a like contrast, see :func:`common.brain.extract_brain`.
        out: folder for the masks and the records of what is done.
        workers: processes; by default one a processor.
        force: extract again what is there.

    Returns:
        The masks' path with ``{id}`` for the name; name -> what speaks against its mask, "" if nothing.

    Raises:
        RegNumericsError: if a head cannot be aligned to the template's.
    """
    template_digest = [sha256(path) for path in template]
    jobs = [
        Job(
            name,
            (path, template),
            digest({"version": VERSION, "head": sha256(path), "template": template_digest}),
            out,
            ("mask",),
        )
        for name, path in scans.items()
    ]
    rows = make_all(extract, jobs, title="brains", workers=workers, force=force)
    return str(out / "masks" / "{id}.nii.gz"), {row["id"]: row["doubts"] for row in rows}


def extract(job: Job) -> dict[str, Any]:
    """Write one scan's mask; return its volume and the doubts about it."""
    path, template = job.raw
    image, head = check_image(path, 3), check_image(template.head, 3)
    brain = check_label(template.brain, head)
    mask = extract_brain((image.voxels, image.affine), (head.voxels, head.affine), brain.voxels)
    save_nifti(mask.astype(np.uint8), image.affine, job.output("mask"))
    volume = float(mask.sum() * np.prod(voxel_sizes(image.affine)) / 1000)
    return {"id": job.name, "brain_ml": round(volume, 1), "doubts": " ".join(doubts(mask, image.affine))}
