"""IXI's own T1 scans, whole heads or as FreeSurfer segmented them: brains on one grid + datalist.json.

Source:  https://brain-development.org/ixi-dataset (IXI-T1.tar); FreeSurfer's output of it at
         https://surfer.nmr.mgh.harvard.edu/pub/data/ixi
License: CC BY-SA 3.0.
Usage:   regbundles data prepare ixi-raw --raw /data/raw/ixi_t1 --out /data/ixi --mask "/data/masks/{id}.nii.gz"

The archive has whole heads: a scan is never used with its skull. Its brain comes from masks of one's own, by
registering a template's head to it (``brain_masks.py``), or from FreeSurfer, whose ``mri/norm.mgz`` is stripped and
whose ``mri/aseg.mgz`` has the labels. Then 12-parameter alignment to the template by content, one interpolation onto
the LIA grid of 160 x 192 x 224 mm, intensity divided by the brain's 99.9th percentile. ``affines/<id>.txt`` maps world
points (RAS mm) of the prepared scan to the raw one's.
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
from .brain import Grid
from .brain_masks import HeadTemplate, check_head_template, extract_all
from .files import sha256
from .heads import foreground, why_not_stripped
from .ixi_layout import NAMES, NUMBERS, SCORED
from .prepared import Job, entry_path, finish_dataset, make_all, pair_entry, subject_entry
from .resume import digest
from .source import RemoteFile, Source

__all__ = ["SOURCES", "find_scans", "prepare", "section_of"]

LICENSE = "CC BY-SA 3.0; IXI, https://brain-development.org/ixi-dataset"
LAYOUT = "IXI<number>-<site>-<number>-T1.nii.gz, or FreeSurfer's IXI<number>-<site>-<number>*/mri/norm.mgz and aseg.mgz"
HEAD = re.compile(r"(IXI\d{3}-[A-Za-z]+-\d{4})-T1\.nii(?:\.gz)?")
FOLDER = re.compile(r"(IXI\d{3}-[A-Za-z]+-\d{4}).*")
RECIPE = 1  # goes up when the same input would give other voxels, so that what lies there is made again
MASK_TEXT = {
    "none": "the scans came skull-stripped: voxels other than the background",
    "freesurfer": "FreeSurfer's norm.mgz: voxels other than the background",
    "file": "from files given with the scans",
    "heads": "by registering a template's whole head, with its brain's mask, to each scan",
}


class Scan(NamedTuple):
    """One subject's files; labels are FreeSurfer's."""

    name: str
    image: Path
    label: Path | None = None


class Raw(NamedTuple):
    """What one subject is made from."""

    scan: Scan
    mask: Path | None
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
    heads: HeadTemplate | None = None,
) -> Path:
    """Prepare every subject under ``raw`` and write ``datalist.json``; a second run writes the same bytes.

    Args:
        raw: folder of the T1 scans or of FreeSurfer's subjects, at any depth; of both, the latter are taken.
        out: folder to fill with ``images/``, ``affines/``, ``records/``, ``template.nii.gz``, ``datalist.json``,
            ``report.csv`` and ``contact_sheet.png``; with FreeSurfer ``labels/`` too, with ``heads`` ``brains/``.
        mask: where the brain is. "none": the scans are skull-stripped; else a path with ``{id}`` (such as
            IXI002-Guys-0828) in it, of masks on the scans' own grids.
        template: skull-stripped scan to align to; by default the first training subject.
        spacing: voxel edge in mm: 1.0 (160 x 192 x 224 voxels) or 2.0 (80 x 96 x 112).
        workers: processes; by default one a processor.
        force: prepare again what is finished.
        heads: a template to take the brains of whole heads by; then ``mask`` has to be "none".

    Returns:
        The path of ``datalist.json``. The first training subject is the atlas, the moving image of every pair; who is
        in which section is told by :func:`section_of`.

    Raises:
        RegInputError: before any work, with every finding about the input.
        RegNumericsError: if a scan cannot be aligned.
    """
    if float(spacing) not in SPACINGS:
        raise RegInputError(f"spacing is {spacing}, expected one of {SPACINGS} mm; choose one.")
    scans = find_scans(Path(raw))
    check_scans(scans, mask, template, heads, workers)
    kind = "freesurfer" if scans[0].label else "heads" if heads else "none" if mask == "none" else "file"
    doubts: dict[str, str] = {}
    if heads is not None:
        images = {scan.name: scan.image for scan in scans}
        mask, doubts = extract_all(images, heads, Path(out, "brains"), workers, force)
    atlas = next(scan for scan in scans if section_of(scan.name) == "training")
    grid = save_template(*template_of(template, atlas, mask), spacing, Path(out, "template.nii.gz"))
    jobs = [make_job(scan, mask, template is None and scan == atlas, grid, Path(out)) for scan in scans]
    rows = make_all(prepare_scan, jobs, title="ixi-raw", workers=workers, force=force)
    rows = [row | {"mask_doubts": doubts[row["id"]]} if doubts else row for row in rows]
    content = header(kind, spacing, atlas, Path(template).name if template else atlas.name) | sections(scans, atlas)
    return finish_dataset(Path(out), rows, sheet_rows(jobs, None if template else atlas.name), content)


def section_of(name: str) -> str:
    """Which section a subject is in: by the last digit of its IXI number, 7 validation, 8 and 9 testing.

    TransMorph's ratio of 7 : 1 : 2. Its own division is not known for the raw scans, since the release numbers them
    anew.
    """
    digit = name[5]
    return "validation" if digit == "7" else "testing" if digit in "89" else "training"


def find_scans(raw: Path) -> list[Scan]:
    """The subjects below ``raw``, sorted by id: FreeSurfer's if there are any, else the T1 scans.

    Raises:
        RegInputError: if there is none, or none to train on; naming every subject that is there twice or lacks labels.
    """
    found: dict[str, list[Scan]] = {}
    for path in sorted(raw.rglob("norm.mgz")):
        match = FOLDER.fullmatch(path.parent.parent.name)
        if match and path.parent.name == "mri":
            found.setdefault(match[1], []).append(Scan(match[1], path, path.with_name("aseg.mgz")))
    if not found:
        for path in sorted(raw.rglob("IXI*-T1.nii*")):
            if match := HEAD.fullmatch(path.name):
                found.setdefault(match[1], []).append(Scan(match[1], path))
    if not any(section_of(name) == "training" for name in found):
        raise RegInputError(f"{raw} has {len(found)} scans and none to train on, expected {LAYOUT}; unpack them there.")
    refuse(
        [
            f"{name} is there {len(scans)} times ({', '.join(str(scan.image) for scan in scans)}), expected once; "
            f"remove the others."
            for name, scans in found.items()
            if len(scans) > 1
        ]
    )
    return [found[name][0] for name in sorted(found)]


def check_scans(
    scans: Sequence[Scan], mask: str, template: str | None, heads: HeadTemplate | None, workers: int | None
) -> None:
    """Read every file to its end; all findings in one error."""
    if mask != "none" and "{id}" not in mask:
        raise RegInputError(f"mask is '{mask}', expected none or a path with {{id}} in it; name one of these.")
    if mask != "none" and (heads is not None or scans[0].label):
        raise RegInputError(
            f"mask is '{mask}', expected none beside {'a template head' if heads else 'FreeSurfer files'}, which say "
            f"where the brain is; leave one out."
        )
    sentences = findings([(check_template, Path(template))]) if template else []
    sentences += findings([(check_head_template, heads)]) if heads else []
    with ThreadPoolExecutor(workers or cpu_count() or 1) as pool:  # most of the time goes into zlib
        parts = pool.map(lambda scan: findings([(check_scan, scan, mask, heads is not None)]), scans)
        sentences += [sentence for part in parts for sentence in part]
    refuse(sentences)


def check_scan(scan: Scan, mask: str, is_head: bool) -> None:
    """Refuse a scan whose files are unsound, or that shows a head where nobody says what of it is brain."""
    image, brain, _ = read(scan, mask_path(scan, mask))
    doubt = why_not_stripped(image.voxels, image.affine) if mask == "none" and not is_head else None
    if doubt:
        raise RegInputError(
            f"{scan.image} is not skull-stripped: {doubt}; give --mask a path with {{id}} of brain masks, or "
            f"--template-head and --template-mask."
        )
    if not brain.any():
        raise RegInputError(f"{scan.image} has no brain under its mask, expected some; check the mask.")


def read(scan: Scan, mask: Path | None) -> tuple[Volume, np.ndarray, Volume | None]:
    """A scan's image, its brain (bool) and its labels, renumbered as TransMorph's; other labels become 0."""
    image = check_image(scan.image, 3)
    brain = check_label(mask, image).voxels > 0 if mask else foreground(image.voxels)
    if scan.label is None:
        return image, brain, None
    labels = check_label(scan.label, image)
    table = np.zeros(max(int(labels.voxels.max()), max(NUMBERS)) + 1, np.uint8)
    table[list(NUMBERS)] = np.arange(len(NUMBERS))
    return image, brain, Volume(scan.label, table[labels.voxels], labels.affine)


def mask_path(scan: Scan, mask: str) -> Path | None:
    """The file of a mask given as a path with ``{id}`` in it."""
    return None if mask == "none" else Path(mask.replace("{id}", scan.name))


def template_of(template: str | None, atlas: Scan, mask: str) -> tuple[np.ndarray, np.ndarray]:
    """What subjects are aligned to, without its head, and its affine."""
    if template is not None:
        image = check_image(template, 3)
        return image.voxels, image.affine
    image, brain, _ = read(atlas, mask_path(atlas, mask))
    return np.where(brain, image.voxels, 0), image.affine


def make_job(scan: Scan, mask: str, is_template: bool, grid: Grid, out: Path) -> Job:
    """A subject's job, with the digest of its files and settings."""
    files = {"image": scan.image, "label": scan.label, "mask": mask_path(scan, mask)}
    settings = {
        "recipe": RECIPE,
        **{kind: path and sha256(path) for kind, path in files.items()},
        "template": [is_template, sha256(out / "template.nii.gz")],
        "grid": [list(grid.size), grid.affine.tolist()],
    }
    kinds = ("image", "affine", "label") if scan.label else ("image", "affine")
    return Job(scan.name, Raw(scan, files["mask"], is_template, grid), digest(settings), out, kinds)


def prepare_scan(job: Job) -> dict[str, Any]:
    """Write one subject's files; return its row of the report."""
    raw: Raw = job.raw
    image, brain, labels = read(raw.scan, raw.mask)
    aligned = Alignment(np.eye(4), None)
    if not raw.is_template:
        aligned = align_to(job.out / "template.nii.gz", np.where(brain, image.voxels, 0), image.affine)
    values = save_aligned(job, raw.grid, aligned.to_native, image, brain, labels)
    row = {"id": job.name} | scan_columns(image, brain)
    if values is not None:
        missing = [value for value in SCORED if not (values == value).any()]
        row |= {"labels_found": len(SCORED) - len(missing), "labels_missing": " ".join(map(str, missing))}
    return row | alignment_columns(image, brain, raw.grid, aligned)


def header(kind: str, spacing: float, atlas: Scan, target: str) -> dict[str, Any]:
    """What the datalist says of all its scans."""
    content = {
        "name": "ixi_raw",
        "modality": "T1-weighted MR",
        "orientation": "LIA",
        "spacing_mm": [float(spacing)] * 3,
        "licence": LICENSE,
        "labels": {str(value): NAMES[value] for value in SCORED} if atlas.label else {},
        "brain_mask": MASK_TEXT[kind],
        "split": "by the last digit of the IXI number: 7 validation, 8 and 9 testing; not TransMorph's, whose release "
        "numbers the subjects anew",
        "intensity": "divided by the 99.9th percentile of the brain, clipped to [0, 1], 0 outside it",
        "alignment": f"12-parameter, by content, to {target}; affines/<id>.txt maps the prepared scan's world to the "
        "raw scan's, RAS mm",
        "atlas": entry_path("image", atlas.name),
    }
    return content | ({"freesurfer_numbers": list(NUMBERS)} if atlas.label else {})


def sections(scans: Sequence[Scan], atlas: Scan) -> dict[str, list[dict[str, str]]]:
    """The sections of the datalist that have scans."""
    parts = ("label",) if atlas.label else ()
    content: dict[str, list[dict[str, str]]] = {"training": [], "validation": [], "testing": []}
    for scan in scans:
        section = section_of(scan.name)
        pair = section != "training"
        content[section].append(
            pair_entry(scan.name, atlas.name, parts) if pair else subject_entry(scan.name, ("image", *parts))
        )
    return {section: items for section, items in content.items() if items}


SOURCES = (
    Source(
        name="ixi-raw",
        title="IXI: T1 scans of about 600 healthy heads from three hospitals in London, as measured",
        license=LICENSE,
        citation="IXI: Information eXtraction from Images (EPSRC GR/S21533/02), https://brain-development.org/"
        "ixi-dataset, files of 2014",
        page="https://brain-development.org/ixi-dataset",
        terms="",
        files=(
            RemoteFile(
                "IXI-T1.tar", "https://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI/IXI-T1.tar"
            ),  # nobody publishes a hash
        ),
        prepare=prepare,
        splits="by the last digit of the IXI number: 7 validation, 8 and 9 testing, the others training",
    ),
)
