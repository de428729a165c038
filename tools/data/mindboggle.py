"""Mindboggle-101: 101 brains with manual labels of the cortex -> 160 x 192 x 224 voxels of 1 mm, one fixed scan of all.

Source:  https://zenodo.org/records/22070005 (Mindboggle101_release3.zip), older: https://osf.io/yhkde
License: CC BY says the record; its five cohorts have terms of their own. Cite Klein and Tourville 2012.
Usage:   regbundles data prepare mindboggle --raw /data/raw/Mindboggle101_volumes --out /data/mindboggle

A test set, after arXiv:2404.04244: nothing is trained on. The scans that the archive has aligned to MNI152 and stripped
are turned to LIA and cropped or padded about the middle of their grid, not interpolated; intensity is divided by the
99.9th percentile of the brain and clipped to [0, 1]. One scan is fixed in all pairs, the others move. The paper drew
it at random and does not tell which; here it is NKI-RS-22-1, of the largest cohort that is not in OASIS-1.

Some scans lie the wrong way round: the labels say left where the header's world says right, or front where it says
back. They are found by the centers of the labels, named in the datalist and marked in report.csv; --flipped drop leaves
them out. A reader of RDP's issue 8 (github.com/ZAX130/RDP) saw MMRR-21-1 and MMRR-21-21 so, and its authors leave both
out. OASIS-TRT-20 are persons of OASIS-1: what was trained on OASIS has to be tested without them, or to leave them out.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from common.errors import RegInputError
from common.preflight import AFFINE_ATOL, Volume, check_image, check_label, findings, refuse
from common.report import SheetRow

from .brain import Grid, cut_percent, normalize
from .files import save_nifti, sha256
from .label_orientation import label_orientation
from .leakage import persons_of
from .mindboggle_layout import DKT, PROTOCOLS, Subject, find_subjects, label_names, relabel, unpack_cohorts
from .prepared import Job, finish_dataset, make_all, pair_entry
from .resume import digest
from .source import RemoteFile, Source

__all__ = ["FIXED", "SOURCES", "prepare"]

LICENSE = "CC BY (Zenodo 22070005) and the terms of the five cohorts"
RECIPE = 1  # goes up when the same input would give other voxels, so that what lies there is made again
FIXED = "NKI-RS-22-1"
SIZE = (160, 192, 224)  # L, I, A
ORIENTATION = "LIA"
SPACING_MM = 1.0
FLIPPED = ("keep", "drop")
PERCENTILES = (1.0, 50.0, 99.9)


class Raw(NamedTuple):
    """What one subject is made from."""

    subject: Subject
    protocol: str
    size: tuple[int, int, int]


def prepare(
    raw: str,
    out: str,
    labels: str = "dkt25",
    fixed: str | None = None,
    flipped: str = "keep",
    workers: int | None = None,
    force: bool = False,
    size: tuple[int, int, int] = SIZE,
) -> Path:
    """Prepare every subject under ``raw`` and write ``datalist.json``; a second run writes the same bytes.

    Args:
        raw: folder with ``<COHORT>_volumes/<SUBJECT>/``, or ``<COHORT>_volumes.tar.gz``, which are unpacked beside
            themselves, at any depth.
        out: folder to fill with ``images/``, ``labels/``, ``records/``, ``datalist.json``, ``report.csv`` and
            ``contact_sheet.png``.
        labels: "dkt31" (62 structures) or "dkt25" (50, merged).
        fixed: name of the fixed scan; by default ``FIXED``, or the first one if that is not there.
        flipped: "keep" or "drop" scans that lie the wrong way round.
        workers: processes; by default one a processor.
        force: prepare again what is finished.
        size: voxels left to right, down, and to the front.

    Returns:
        The path of ``datalist.json``; its only section is "testing".

    Raises:
        RegInputError: before any work, with every finding about the input.
    """
    for name, value, choices in (("labels", labels, PROTOCOLS), ("flipped", flipped, FLIPPED)):
        if value not in choices:
            raise RegInputError(f"{name} is '{value}', expected one of {', '.join(choices)}; choose one.")
    unpack_cohorts(Path(raw))
    subjects = find_subjects(Path(raw))
    wrong = check_subjects(subjects, workers or cpu_count() or 1)
    kept = [subject for subject in subjects if flipped == "keep" or subject.name not in wrong]
    target = fixed_of(kept, fixed, wrong)
    jobs = [make_job(subject, labels, size, Path(out)) for subject in kept]
    rows = make_all(prepare_subject, jobs, title="mindboggle", workers=workers, force=force)
    testing = [pair_entry(target, subject.name) for subject in kept if subject.name != target]
    content = header(labels, target, wrong, flipped) | {"testing": testing}
    return finish_dataset(Path(out), rows, sheet_rows(jobs, wrong), content)


def check_subjects(subjects: Sequence[Subject], workers: int) -> dict[str, str]:
    """How each brain lies that lies the wrong way round, after every file was read; all findings in one error."""
    sentences: list[str] = []
    wrong: dict[str, str] = {}
    grids: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}

    def check(subject: Subject) -> None:
        image, labels = read(subject)
        grids[subject.name] = image.voxels.shape, image.affine
        if text := way_round(labels):
            wrong[subject.name] = text

    with ThreadPoolExecutor(workers) as pool:
        for part in pool.map(lambda subject: findings([(check, subject)]), subjects):
            sentences += part
    refuse(sentences)
    shape, affine = grids[subjects[0].name]
    refuse(
        [
            f"{subject.image} lies on another grid than {subjects[0].image}, expected MNI152's with voxels of "
            f"{SPACING_MM:g} mm in both; fetch it again."
            for subject in subjects
            if grids[subject.name][0] != shape
            or not np.allclose(grids[subject.name][1], affine, atol=AFFINE_ATOL)
            or not np.allclose(voxel_sizes(grids[subject.name][1]), SPACING_MM, atol=AFFINE_ATOL)
        ]
    )
    return {subject.name: wrong[subject.name] for subject in subjects if subject.name in wrong}


def read(subject: Subject) -> tuple[Volume, Volume]:
    """Image and labels, which must be on one grid."""
    image = check_image(subject.image, 3)
    return image, check_label(subject.label, image)


def way_round(labels: Volume) -> str:
    """Empty if the labels lie as their header says, else how they lie, such as "RAS instead of LAS"."""
    stated = "".join(nib.aff2axcodes(labels.affine))
    found = label_orientation(labels.voxels, DKT)
    return "" if found in (None, stated) else f"{found} instead of {stated}"


def fixed_of(subjects: Sequence[Subject], name: str | None, wrong: dict[str, str]) -> str:
    """The name of the fixed scan: one that lies the right way round."""
    sound = [subject.name for subject in subjects if subject.name not in wrong]
    if name is None and sound:
        return FIXED if FIXED in sound else sound[0]
    if name not in sound:
        state = f"lies {wrong[name]}" if name in wrong else "is not among the subjects"
        raise RegInputError(f"the fixed scan {name} {state}, expected one of {len(sound)} others; name one of these.")
    return name


def make_job(subject: Subject, protocol: str, size: tuple[int, int, int], out: Path) -> Job:
    """A subject's job, with the digest of its files and settings."""
    settings = {"recipe": RECIPE, "labels": protocol, "size": list(size), "cohort": subject.cohort}
    files = {"image": sha256(subject.image), "label": sha256(subject.label)}
    return Job(subject.name, Raw(subject, protocol, size), digest(settings | files), out)


def prepare_subject(job: Job) -> dict[str, Any]:
    """Write one subject's files; return its row of the report."""
    image, labels = read(job.raw.subject)
    brain = image.voxels != 0
    values = relabel(labels.voxels, job.raw.protocol)
    voxels, grid = fit(normalize(image.voxels, brain), image.affine, job.raw.size)
    save_nifti(voxels, grid.affine, job.output("image"))
    fitted, _ = fit(values, labels.affine, job.raw.size)
    save_nifti(fitted, grid.affine, job.output("label"))
    return report_row(job, image, labels, fitted, cut_percent(brain, image.affine, grid, np.eye(4)))


def fit(voxels: np.ndarray, affine: np.ndarray, size: tuple[int, int, int]) -> tuple[np.ndarray, Grid]:
    """Turn an array to LIA, then crop or pad it with 0 about its middle; nothing is interpolated."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(ORIENTATION))
    turned = apply_orientation(voxels, turn)
    affine = affine @ inv_ornt_aff(turn, voxels.shape)
    start = (np.array(turned.shape) - size) // 2  # where the new array begins in the turned one
    inside = tuple(slice(max(s, 0), min(s + n, m)) for s, n, m in zip(start, size, turned.shape, strict=True))
    fitted = np.zeros(size, voxels.dtype)
    fitted[tuple(slice(p.start - s, p.stop - s) for p, s in zip(inside, start, strict=True))] = turned[inside]
    affine[:3, 3] += affine[:3, :3] @ start
    return fitted, Grid(size, affine)


def report_row(job: Job, image: Volume, labels: Volume, values: np.ndarray, cut: float) -> dict[str, Any]:
    """What a person checks of one subject: cohort, grid, which way it lies, intensities, labels left."""
    subject = job.raw.subject
    names = label_names(job.raw.protocol)
    found = set(np.unique(values).tolist())
    unnamed = sorted(set(np.unique(labels.voxels).tolist()) - {0} - set(label_names("dkt31")))
    brain = image.voxels[image.voxels != 0]
    return {
        "id": job.name,
        "cohort": subject.cohort,
        "person_of_oasis1": "yes" if any(p.startswith("OAS1_") for p in persons_of("mindboggle", job.name)) else "",
        "raw_size": " ".join(map(str, image.voxels.shape)),
        "raw_spacing_mm": " ".join(f"{s:g}" for s in voxel_sizes(image.affine).round(4)),
        "raw_orientation": "".join(nib.aff2axcodes(image.affine)),
        "wrong_way_round": way_round(labels),
        **{f"p{p:g}": round(float(np.percentile(brain, p)), 3) for p in PERCENTILES},
        "labels_found": sum(value in found for value in names),
        "labels_missing": " ".join(str(value) for value in names if value not in found),
        "labels_left_out": " ".join(map(str, unnamed)),
        "cut_percent": round(cut, 4),
    }


def header(protocol: str, target: str, wrong: dict[str, str], flipped: str) -> dict[str, Any]:
    """What the datalist says of all its scans."""
    return {
        "name": "mindboggle",
        "modality": "T1-weighted MR",
        "orientation": ORIENTATION,
        "spacing_mm": [SPACING_MM] * 3,
        "licence": LICENSE,
        "labels": {str(value): name for value, name in label_names(protocol).items()},
        "intensity": "divided by the 99.9th percentile of the brain, clipped to [0, 1], 0 outside it",
        "alignment": "the archive's, to MNI152",
        "fixed": target,
        "wrong_way_round": {
            name: f"{text}; {'kept' if flipped == 'keep' else 'left out'}" for name, text in wrong.items()
        },
        "leakage": "OASIS-TRT-20 are persons of OASIS-1: leave them out of testing, or of training on OASIS",
    }


def sheet_rows(jobs: Sequence[Job], wrong: dict[str, str]) -> Iterator[SheetRow]:
    """The prepared scans under the outline of their labels; what lies the wrong way round is marked."""
    for job in jobs:
        image, label = (nib.load(job.output(kind)) for kind in ("image", "label"))
        name = f"{job.name} !" if job.name in wrong else job.name
        voxels, mask = np.asarray(image.dataobj), np.asarray(label.dataobj) > 0
        yield SheetRow(name, voxels, mask, [SPACING_MM] * 3, ORIENTATION)


SOURCES = (
    Source(
        name="mindboggle",
        title="Mindboggle-101, release 3: 101 brains, 62 cortical structures by hand (DKT31)",
        license=LICENSE,
        citation="Klein, A., Tourville, J.: 101 labeled brain images and a consistent human cortical labeling "
        "protocol. Frontiers in Neuroscience 6 (2012) 171, doi:10.3389/fnins.2012.00171",
        page="https://zenodo.org/records/22070005",
        terms="Read the terms of the five cohorts (OASIS-TRT-20, NKI-TRT-20, NKI-RS-22, MMRR-21, Extra-18) there; "
        "nothing to sign",
        files=(
            RemoteFile(
                "Mindboggle101_release3.zip",
                "https://zenodo.org/api/records/22070005/files/Mindboggle101_release3.zip/content",
                size=5_232_272_873,
                md5="7178353814033f9f56dc97bdef2d68e4",
            ),
        ),
        prepare=prepare,
    ),
)
