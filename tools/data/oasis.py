"""neurite-OASIS v1: stripped and aligned T1 brains of OASIS-1 -> NIfTI + datalist.json.

Source:  https://github.com/adalca/medical-datasets/blob/master/neurite-oasis.md
License: OASIS' Data Use Agreement (https://oasis-brains.org/#access): read and accept it before use.
Usage:   regbundles data prepare oasis --raw /data/raw/oasis --out /data/oasis [--labels seg4] [--split patch]

Images stay as they are: ``aligned_norm``, float in [0, 1] on 160 x 192 x 224 voxels of 1 mm, axes LIA. Where the labels
name the sides, they must agree with the header about left and right.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from common.errors import RegInputError
from common.preflight import AFFINE_ATOL, check_image, check_label, findings, refuse

from .align import sheet_rows
from .files import save_nifti, sha256
from .label_orientation import SEG35, label_orientation, reorient
from .oasis_layout import SPLITS, Scan, Split, find_label_names, find_scans, split_of
from .prepared import Job, finish_dataset, make_all, pair_entry, subject_entry
from .resume import digest
from .source import RemoteFile, Source
from .transmorph import PERCENTILES, RANGE_ATOL, SIZE

__all__ = ["CITATION", "LABELS", "LICENSE", "PAGE", "SOURCES", "TERMS", "prepare"]

LICENSE = "OASIS Data Use Agreement, https://oasis-brains.org/#access; processed by A. Hoopes and A. V. Dalca (neurite)"
CITATION = (
    "A. Hoopes et al., HyperMorph: Amortized Hyperparameter Learning for Image Registration, IPMI 2021, "
    "arXiv:2101.01035; D. S. Marcus et al., Open Access Series of Imaging Studies (OASIS), J. Cogn. Neurosci. 19, "
    "2007, doi:10.1162/jocn.2007.19.9.1498"
)
PAGE = "https://github.com/adalca/medical-datasets/blob/master/neurite-oasis.md"
TERMS = "read and accept OASIS' Data Use Agreement, https://oasis-brains.org/#access; no login is asked for"
RECIPE = 1  # goes up when the same input would give other voxels, so that what lies there is made again
LABELS = ("seg35", "seg4")
SPLIT_TEXT = {
    "learn2reg": "Learn2Reg 2021, task 3: the first 394 scans train, the last 20 are 19 consecutive pairs",
    "patch": "as arXiv 2404.04244: 182 pairs of 364 scans train, 6 scans are 5 consecutive pairs, without the known "
    "persons of MALC and Mindboggle; which scans is not published, here the first and last of those left",
}


def prepare(
    raw: str,
    out: str,
    labels: str = "seg35",
    split: str = "learn2reg",
    partial: bool = False,
    workers: int | None = None,
    force: bool = False,
    size: tuple[int, int, int] = SIZE,
) -> Path:
    """Prepare every scan that a split uses and write ``datalist.json``; a second run writes the same bytes.

    Args:
        raw: folder of ``OASIS_OAS1_<number>_MR1`` with ``aligned_norm.nii.gz`` and ``aligned_<labels>.nii.gz``, at any
            depth.
        out: folder to fill with ``images/``, ``labels/``, ``records/``, ``datalist.json``, ``report.csv`` and
            ``contact_sheet.png``, where each brain lies under the first one's outline.
        labels: "seg35", 35 structures, or "seg4", tissues.
        split: "learn2reg" or "patch", see :func:`tools.data.oasis_layout.split_of`.
        partial: accept fewer scans than the split has; pairs that lack one are left out.
        workers: processes; by default one a processor.
        force: prepare again what is finished.
        size: voxels toward left, down and front that every brain must have.

    Raises:
        RegInputError: before any work, with every finding about the input.
    """
    for given, known, name in ((labels, LABELS, "labels"), (split, SPLITS, "split")):
        if given not in known:
            raise RegInputError(f"{name} is '{given}', expected {' or '.join(known)}; choose one.")
    parts = split_of(split)
    scans, names = find_scans(Path(raw), labels, parts.names, partial), find_label_names(Path(raw), labels)
    check_scans(scans, labels, names, tuple(size), workers)
    jobs = [make_job(scan, names, Path(out)) for scan in scans]
    rows = make_all(prepare_scan, jobs, title="oasis", workers=workers, force=force)
    present = {scan.name for scan in scans}
    content = header(names, labels, split) | sections(parts, present)
    return finish_dataset(Path(out), rows, sheet_rows(jobs, scans[0].name), content)


def check_scans(
    scans: Sequence[Scan], labels: str, names: Mapping[int, str], size: tuple[int, ...], workers: int | None
) -> None:
    """Read every file to its end; all findings in one error."""
    with ThreadPoolExecutor(workers or cpu_count() or 1) as pool:  # most of the time goes into zlib
        parts = pool.map(lambda scan: findings([(check_scan, scan, labels, names, size)]), scans)
        refuse([sentence for part in parts for sentence in part])


def check_scan(scan: Scan, labels: str, names: Mapping[int, str], size: tuple[int, ...]) -> None:
    """Refuse a scan whose files are unsound or not what the release has."""
    image, values, affine = read(scan)
    if image.shape != size or not np.allclose(voxel_sizes(affine), 1, atol=AFFINE_ATOL):
        raise RegInputError(
            f"{scan.image} has {image.shape} voxels of {voxel_sizes(affine).round(3).tolist()} mm toward left, down "
            f"and front, expected {size} of 1 mm; check that it is the aligned scan."
        )
    if image.min() < -RANGE_ATOL or image.max() > 1 + RANGE_ATOL:
        raise RegInputError(
            f"{scan.image} has intensities from {image.min():g} to {image.max():g}, expected 0 to 1; check that it is "
            f"the release's aligned_norm."
        )
    unknown = sorted(set(np.unique(values).tolist()) - {0, *names})
    if unknown:
        raise RegInputError(f"{scan.label} has the labels {unknown[:9]}, expected 0 to {max(names)}; check its origin.")
    codes = label_orientation(values, SEG35) if labels == "seg35" else "LIA"
    if codes != "LIA":
        raise RegInputError(
            f"{scan.label} lies {codes or 'in no known way'} by its labels once its header is heeded, expected LIA; "
            f"one of the two is wrong about left and right, mend it or leave the subject out with --partial."
        )


def read(scan: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, labels and (4, 4) affine, all turned to LIA by the header; no voxel is interpolated."""
    image = check_image(scan.image, 3)
    labels = check_label(scan.label, image)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt("LIA"))
    affine = image.affine @ inv_ornt_aff(turn, image.voxels.shape)
    codes = aff2axcodes(image.affine)
    return reorient(image.voxels, codes, "LIA"), reorient(labels.voxels, codes, "LIA"), affine


def make_job(scan: Scan, names: Mapping[int, str], out: Path) -> Job:
    """A scan's job, with the digest of its files and of the labels looked for."""
    settings = {"recipe": RECIPE, "image": sha256(scan.image), "label": sha256(scan.label), "labels": sorted(names)}
    return Job(scan.name, (scan, tuple(names)), digest(settings), out)


def prepare_scan(job: Job) -> dict[str, Any]:
    """Write one scan's files; return its row of the report."""
    scan, names = job.raw
    image, labels, affine = read(scan)
    save_nifti(image.clip(0, 1), affine, job.output("image"))
    save_nifti(labels.astype(np.uint8), affine, job.output("label"))
    found = set(np.unique(labels).tolist())
    missing = [value for value in names if value not in found]
    return {
        "id": scan.name,
        "size": " ".join(map(str, image.shape)),
        "spacing_mm": " ".join(f"{s:g}" for s in voxel_sizes(affine)),
        "raw_orientation": "".join(aff2axcodes(nib.load(scan.image).affine)),
        "brain_ml": round(float((labels > 0).sum() / 1000), 1),
        **{f"p{p:g}": round(float(np.percentile(image[image > 0], p)), 4) for p in PERCENTILES},
        "labels_found": len(names) - len(missing),
        "labels_missing": " ".join(map(str, missing)),
    }


def header(names: Mapping[int, str], labels: str, split: str) -> dict[str, Any]:
    """What the datalist says of all its scans."""
    return {
        "name": "oasis",
        "modality": "T1-weighted MR",
        "orientation": "LIA",
        "spacing_mm": [1.0, 1.0, 1.0],
        "licence": LICENSE,
        "labels": {str(value): name for value, name in names.items()},
        "label_source": f"the release's {labels}",
        "split": SPLIT_TEXT[split],
        "intensity": "as released (aligned_norm): [0, 1], 0 outside the brain",
        "alignment": "as released: 12-parameter, FreeSurfer's Talairach transform",
    }


def sections(parts: Split, present: set[str]) -> dict[str, list[dict[str, str]]]:
    """The sections of the datalist, as far as their scans are there."""
    training = [
        subject_entry(item) if isinstance(item, str) else pair_entry(*item)
        for item in parts.training
        if present.issuperset([item] if isinstance(item, str) else item)
    ]
    validation = [pair_entry(*pair) for pair in parts.validation if present.issuperset(pair)]
    return {"training": training} | ({"validation": validation} if validation else {})


SOURCES = (
    Source(
        name="oasis",
        title="neurite-OASIS v1: 414 stripped and aligned T1 brains of OASIS-1, 35 and 4 labels",
        license=LICENSE,
        citation=CITATION,
        page=PAGE,
        terms=TERMS,
        files=(
            RemoteFile(
                "neurite-oasis.v1.0.tar",
                "https://surfer.nmr.mgh.harvard.edu/ftp/data/neurite/data/neurite-oasis.v1.0.tar",
                md5="081392a8150ff99ab7a64a9ded377835",
            ),
        ),
        prepare=prepare,
        splits="; ".join(f"{name}: {SPLIT_TEXT[name]}" for name in SPLITS),
        about="6.6 GB",
    ),
)
