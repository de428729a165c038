"""MICCAI 2012 Multi-Atlas Labelling Challenge (MALC): raw brain scans -> one grid + datalist.json.

Source:  http://www.neuromorphometrics.com/2012_MICCAI_Challenge_Data.html (asks for a registration: nothing is fetched)
License: CC BY-NC. Scans from OASIS; labels "provided by Neuromorphometrics, Inc. under academic subscription".
Usage:   regbundles data prepare malc --raw /data/raw/malc --out /data/malc --mask labels

The archive has whole heads: a scan is never used with its skull. Its brain comes from the manual labels, from masks of
one's own, or by registering a template's head to it (``brain_masks.py``).

What happens to a scan: brain mask; 12-parameter alignment to the template by content, since the positions in the
headers are wrong; one interpolation onto the LIA grid of 160 x 192 x 224 mm that has the template's brain in its
middle, linear for the image and nearest neighbor for the labels; intensity divided by the 99.9th percentile of the
brain and clipped to [0, 1]. ``affines/<id>.txt`` maps world points (RAS mm) of the prepared scan to the raw one's.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import binary_fill_holes

from common.errors import RegInputError
from common.preflight import Volume, check_image, check_label, findings, refuse

from .align import (
    SPACINGS,
    Alignment,
    align_to,
    alignment_columns,
    check_template,
    save_aligned,
    save_template,
    scan_columns,
    sheet_rows,
)
from .brain import Grid, largest_piece, outside_fraction
from .brain_masks import HeadTemplate, check_head_template, extract_all
from .files import sha256
from .leakage import second_scans
from .malc_layout import LABELS, SPLIT, Subject, find_label_names, find_subjects
from .prepared import Job, finish_dataset, make_all, pair_entry, subject_entry
from .resume import digest
from .source import Source

__all__ = ["SOURCES", "prepare"]

LICENSE = "CC BY-NC; scans from OASIS, labels provided by Neuromorphometrics, Inc. under academic subscription"
RECIPE = 1  # goes up when the same input would give other voxels, so that what lies there is made again
STRIPPED_BELOW = 0.25  # of the nonzero voxels outside the labels: 0.04 to 0.08 in stripped scans, above 0.5 in heads
TABLET = 74  # vitamin E, taped to some heads to mark a side
KINDS = ("image", "label", "affine")
MASK_TEXT = {
    "none": "the scans came skull-stripped: the largest piece of voxels other than 0, and what is labelled",
    "labels": "MADE FROM THE MANUAL LABELS (labelled voxels, holes filled): it leaves no fluid around the brain, and "
    "a scan without labels cannot be prepared in the same way",
    "file": "from files given with the scans",
    "heads": "by registering a template's whole head, with its brain's mask, to each scan",
}


class Raw(NamedTuple):
    """What one subject is made from."""

    subject: Subject
    mask: str
    is_template: bool
    grid: Grid


def prepare(
    raw: str,
    out: str,
    mask: str = "none",
    template: str | None = None,
    spacing: float = 1.0,
    workers: int | None = None,
    force: bool = False,
    split: Mapping[str, Sequence[str]] = SPLIT,
    heads: HeadTemplate | None = None,
) -> Path:
    """Prepare every subject under ``raw`` and write ``datalist.json``; a second run writes the same bytes.

    Args:
        raw: folder with ``training-images/<id>_3.nii.gz``, ``training-labels/<id>_3_glm.nii.gz``, the same for
            ``testing-``, and the label table; or with ``<id>_SS.nii.gz`` and ``<id>_glm.nii.gz``. At any depth.
        out: folder to fill with ``images/``, ``labels/``, ``affines/``, ``records/``, ``template.nii.gz``,
            ``datalist.json``, ``report.csv`` and ``contact_sheet.png``; with ``heads``, ``brains/`` too.
        mask: where the brain is. "none": the scans are skull-stripped; "labels": from the manual labels; else a path
            with ``{id}`` in it, of masks on the scans' own grids.
        template: skull-stripped scan to align to; by default the first training subject, or the first for testing
            where the split trains on none.
        spacing: voxel edge in mm: 1.0 (160 x 192 x 224 voxels) or 2.0 (80 x 96 x 112).
        workers: processes; by default one a processor.
        force: prepare again what is finished.
        split: subject ids of "training", "validation" and "testing", such as those of ``malc_layout.SPLITS``. By
            default three of the official training set are held out for validation, which the challenge lacks, and the
            official test set is "testing".
        heads: a template to take the brains of whole heads by; then ``mask`` has to be "none".

    Returns:
        The path of ``datalist.json``. Validation holds all ordered pairs of its subjects; testing pairs its first
        subject, as fixed, with each of the others, as moving. Subjects that are absent are left out, and so are pairs
        of one person's two scans.

    Raises:
        RegInputError: before any work, with every finding about the input.
        RegNumericsError: if a head cannot be aligned to the template's.
    """
    if float(spacing) not in SPACINGS:
        raise RegInputError(f"spacing is {spacing}, expected one of {SPACINGS} mm; choose one.")
    workers = workers or cpu_count() or 1
    if heads is not None and mask != "none":
        raise RegInputError(f"mask is '{mask}' beside a template's head, expected one of the two; leave one out.")
    subjects, names = check_raw(Path(raw), mask, template, split, workers, heads)
    kind = "heads" if heads is not None else mask
    doubts: dict[str, str] = {}
    if heads is not None:
        scans = {subject.name: subject.image for subject in subjects}
        mask, doubts = extract_all(scans, heads, Path(out, "brains"), workers, force)
    reference = None if template else first_of(subjects, split)
    grid = save_template(*stripped(reference or Path(str(template)), mask), spacing, Path(out, "template.nii.gz"))
    jobs = [make_job(subject, mask, subject == reference, grid, Path(out)) for subject in subjects]
    rows = make_all(prepare_subject, jobs, title="malc", workers=workers, force=force)
    rows = [row | {"mask_doubts": doubts[row["id"]]} if doubts else row for row in rows]
    target = reference.name if reference else Path(str(template)).name
    present = {subject.name for subject in subjects}
    content = header(names, kind, spacing, target) | sections(present, split)
    return finish_dataset(Path(out), rows, sheet_rows(jobs, reference and reference.name), content)


def check_raw(
    raw: Path,
    mask: str,
    template: str | None,
    split: Mapping[str, Sequence[str]],
    workers: int,
    heads: HeadTemplate | None = None,
) -> tuple[list[Subject], dict[int, str]]:
    """The subjects and label names, after every file has been read to its end; all findings in one error."""
    if mask not in ("none", "labels") and "{id}" not in mask:
        raise RegInputError(f"mask is '{mask}', expected none, labels or a path with {{id}} in it; name one of these.")
    subjects, names = find_subjects(raw), find_label_names(raw)
    known = {name for part in split.values() for name in part}
    sentences = [
        f"subject {subject.name} is in no part of the split, expected one of its {len(known)} ids; move its files away."
        for subject in subjects
        if subject.name not in known
    ]
    if template is not None:
        sentences += findings([(check_template, Path(template))])
    if heads is not None:
        sentences += findings([(check_head_template, heads)])
    with ThreadPoolExecutor(workers) as pool:  # most of the time goes into zlib and numpy, which let others run
        parts = pool.map(lambda subject: findings([(check_raw_subject, subject, mask, names, heads is None)]), subjects)
        sentences += [sentence for part in parts for sentence in part]
    refuse(sentences)
    return subjects, names


def check_raw_subject(subject: Subject, mask: str, names: Mapping[int, str], has_mask: bool = True) -> None:
    """Refuse a subject whose files are unsound, whose labels the table does not name, or that needs another mask.

    Without a mask yet, as where heads are to be stripped, ``mask`` is not looked at.
    """
    image = check_image(subject.image, 3)
    labels = check_label(subject.label, image)
    unknown = sorted({int(value) for value in np.unique(labels.voxels)} - {0} - set(names))
    if unknown:
        raise RegInputError(f"{subject.label} has the labels {unknown}, which the label table lacks; check its origin.")
    if not has_mask:
        return
    outside = outside_fraction(image.voxels, labels.voxels)
    if mask == "none" and outside > STRIPPED_BELOW:
        raise RegInputError(
            f"{subject.image} shows more than a brain ({outside:.0%} of its nonzero voxels have no label), expected "
            f"under {STRIPPED_BELOW:.0%}; give --mask a path with {{id}} of brain masks, or --mask labels, or "
            "--template-head and --template-mask."
        )
    brain_mask(subject, mask, image, labels)


def brain_mask(subject: Subject, mask: str, image: Volume, labels: Volume) -> np.ndarray:
    """The subject's brain, bool on its own grid; a tablet beside the head is no part of it."""
    labelled = (labels.voxels > 0) & (labels.voxels != TABLET)
    if mask == "none":
        return largest_piece(image.voxels != 0) | labelled
    if mask == "labels":
        return binary_fill_holes(labelled)
    return check_label(mask_path(subject, mask), image).voxels > 0


def mask_path(subject: Subject, mask: str) -> Path:
    """The file of a mask given as a path with ``{id}`` in it."""
    return Path(mask.replace("{id}", subject.name))


def first_of(subjects: Sequence[Subject], split: Mapping[str, Sequence[str]]) -> Subject:
    """The first training subject that is there; the first for testing where the split trains on none."""
    present = {subject.name: subject for subject in subjects}
    part = "training" if "training" in split or "testing" not in split else "testing"
    order = [present[name] for name in split.get(part, ()) if name in present]
    if not order:
        raise RegInputError(
            f"none of the {part} subjects is among {sorted(present)}, expected one to align to; give --template."
        )
    return order[0]


def stripped(reference: Subject | Path, mask: str) -> tuple[np.ndarray, np.ndarray]:
    """What subjects are aligned to, without its head, and its affine."""
    if isinstance(reference, Path):
        image = check_image(reference, 3)
        return image.voxels, image.affine
    image = check_image(reference.image, 3)
    brain = brain_mask(reference, mask, image, check_label(reference.label, image))
    return np.where(brain, image.voxels, 0), image.affine


def make_job(subject: Subject, mask: str, is_template: bool, grid: Grid, out: Path) -> Job:
    """A subject's job, with the digest of its files and settings."""
    given = mask not in ("none", "labels")
    settings = {
        "recipe": RECIPE,
        "image": sha256(subject.image),
        "label": sha256(subject.label),
        "mask": sha256(mask_path(subject, mask)) if given else mask,
        "template": [is_template, sha256(out / "template.nii.gz")],
        "grid": [list(grid.size), grid.affine.tolist()],
    }
    return Job(subject.name, Raw(subject, mask, is_template, grid), digest(settings), out, KINDS)


def prepare_subject(job: Job) -> dict[str, Any]:
    """Write one subject's files; return its row of the report."""
    raw: Raw = job.raw
    image = check_image(raw.subject.image, 3)
    labels = check_label(raw.subject.label, image)
    brain = brain_mask(raw.subject, raw.mask, image, labels)
    aligned = Alignment(np.eye(4), None)
    if not raw.is_template:
        aligned = align_to(job.out / "template.nii.gz", np.where(brain, image.voxels, 0), image.affine)
    values = save_aligned(job, raw.grid, aligned.to_native, image, brain, labels)
    return report_row(job, image, labels, brain, values, aligned)


def report_row(
    job: Job,
    image: Volume,
    labels: Volume,
    brain: np.ndarray,
    values: np.ndarray,
    aligned: Alignment,
) -> dict[str, Any]:
    """What a person checks of one subject: raw grid, intensities, labels left, and how the alignment went."""
    found = set(np.unique(values).tolist())
    missing = [value for value in LABELS if value not in found]
    return {
        "id": job.name,
        **scan_columns(image, brain),
        "outside_labels": round(outside_fraction(np.where(brain, image.voxels, 0), labels.voxels), 4),
        "labels_found": len(LABELS) - len(missing),
        "labels_missing": " ".join(map(str, missing)),
        **alignment_columns(image, brain, job.raw.grid, aligned),
    }


def header(names: Mapping[int, str], mask: str, spacing: float, target: str) -> dict[str, Any]:
    """What the datalist says of all its scans."""
    return {
        "name": "malc",
        "modality": "T1-weighted MR",
        "orientation": "LIA",
        "spacing_mm": [float(spacing)] * 3,
        "licence": LICENSE,
        "labels": {str(value): names[value] for value in LABELS},
        "brain_mask": MASK_TEXT[mask if mask in MASK_TEXT else "file"],
        "intensity": "divided by the 99.9th percentile of the brain, clipped to [0, 1], 0 outside it",
        "alignment": f"12-parameter, by content, to {target}; affines/<id>.txt maps the prepared scan's world to the "
        "raw scan's, RAS mm",
    }


def sections(present: set[str], split: Mapping[str, Sequence[str]]) -> dict[str, list[dict[str, str]]]:
    """The parts of the datalist that the subjects present can fill; no pair is of one person's two scans."""
    names = {part: [name for name in split.get(part, ()) if name in present] for part in SPLIT}
    content = {"training": [subject_entry(name) for name in names["training"]]} if names["training"] else {}
    pairs = {"validation": list(permutations(names["validation"], 2))}
    pairs["testing"] = [(names["testing"][0], moving) for moving in names["testing"][1:]]
    first = second_scans()
    pairs = {part: [p for p in items if len({first.get(n, n) for n in p}) == 2] for part, items in pairs.items()}
    return content | {part: [pair_entry(*both) for both in items] for part, items in pairs.items() if items}


SOURCES = (
    Source(
        name="malc",
        title="MICCAI 2012 Multi-Atlas Labelling Challenge: 35 T1 heads, 134 structures by hand",
        license=LICENSE,
        citation="B. Landman, S. Warfield (editors), MICCAI 2012 Workshop on Multi-Atlas Labeling, 2012; D. S. Marcus "
        "et al., Open Access Series of Imaging Studies (OASIS), J. Cogn. Neurosci. 19, 2007, "
        "doi:10.1162/jocn.2007.19.9.1498",
        page="http://www.neuromorphometrics.com/2012_MICCAI_Challenge_Data.html",
        terms="register at the page and accept Neuromorphometrics' terms (CC BY-NC, with credit to OASIS and to "
        "Neuromorphometrics); then unpack the archive into a folder",
        files=(),
        prepare=prepare,
        splits="training 12 subjects, validation 6 pairs of 3, testing 18 pairs of 19 scans; --split official: 15 "
        "subjects, 18 pairs; --split one-fixed: 34 pairs for testing",
    ),
)
