"""Learn2Reg's releases: what an archive's own ``<NAME>_dataset.json`` says becomes the datalist; scans stay as stored.

Source:  https://learn2reg.grand-challenge.org/Datasets (LungCT, AbdomenCTCT, OASIS, NLST and others in its layout)
License: each release has its own, which its json names and the datalist repeats: read it before use.
Usage:   regbundles data prepare learn2reg --raw /data/raw/LungCT --out /data/lung_ct_l2r

A scan keeps its grid and its values. Pairs, masks, keypoints, landmarks, labels and their names are the archive's.
Whoever is in a pair to validate or test on is not trained on. Pairs to validate or test on take the landmarks that a
person set, where both scans have them, else the keypoints that a program found. Where there are masks and no labels,
as in the lungs, the mask is the label too, so that Dice can be taken.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from common.datalist import check_counts, check_keypoints
from common.errors import RegInputError
from common.preflight import AFFINE_ATOL, Volume, check_image, check_label, findings, refuse
from common.report import SheetRow

from .challenge_layout import Challenge, Scan, read_challenge
from .files import save_nifti, save_text, sha256
from .prepared import Job, finish_dataset, make_all, pair_entry, subject_entry
from .resume import digest
from .source import RemoteFile, Source

__all__ = ["SOURCES", "RawScan", "prepare", "read_scan", "report_row", "save_parts", "write_dataset"]

RECIPE = {"recipe": 1}  # goes up when the same input would give other voxels, so that what lies there is made again
PERCENTILES = (1.0, 50.0, 99.0)
INTENSITY = "as the archive stores it"
PAGE = "https://learn2reg.grand-challenge.org/Datasets"
HERING = (
    "Hering, A. et al.: Learn2Reg: comprehensive multi-task medical image registration challenge, dataset and "
    "evaluation in the era of deep learning. IEEE Transactions on Medical Imaging 42 (2023), "
    "doi:10.1109/TMI.2022.3213983"
)


class RawScan(NamedTuple):
    """What one scan is made from."""

    scan: Scan
    points: Path | None
    """Landmarks or keypoints, voxels of the image."""
    mask_is_label: bool
    names: Mapping[int, str]
    """Of the labels that the archive names."""


def prepare(raw: str, out: str, name: str | None = None, workers: int | None = None, force: bool = False) -> Path:
    """Prepare every scan that a list of the archive names; a second run writes the same bytes.

    Args:
        raw: folder of the unpacked archive, its ``<NAME>_dataset.json`` at any depth.
        out: folder to fill with ``images/``, ``labels/``, ``masks/``, ``keypoints/``, ``records/``, ``datalist.json``,
            ``report.csv`` and ``contact_sheet.png``.
        name: of the data set, where the folder holds several.
        workers: processes; by default one a processor.
        force: prepare again what is finished.

    Returns:
        The path of ``datalist.json``. "training" holds the pairs of ``training_paired_images`` where there are any
        (train with pairing "given"), else scans.

    Raises:
        RegInputError: before any work, with every finding about the description and the scans.
    """
    return write_dataset(read_challenge(Path(raw), name), Path(out), workers=workers, force=force)


def keep_scan(job: Job) -> dict[str, Any]:
    """Write one scan's files with the values they have; return its row of the report."""
    image, label, mask = read_scan(job.raw)
    save_nifti(compact(image.voxels), image.affine, job.output("image"))
    save_parts(job, label, mask)
    return report_row(job, image, label, mask)


def write_dataset(
    challenge: Challenge,
    out: Path,
    *,
    make: Callable[[Job], dict[str, Any]] = keep_scan,
    check: Callable[[Volume], None] = lambda image: None,
    recipe: Mapping[str, Any] = RECIPE,
    header: Mapping[str, Any] | None = None,
    parts: Sequence[str] = ("label", "mask", "keypoints"),
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Check, prepare and list the scans of a challenge.

    Args:
        challenge: as the archive describes it, or as another protocol splits it.
        out: folder to fill.
        make: a module's function that writes a job's files (``job.raw`` is a :class:`RawScan`) and returns its row.
        check: raises RegInputError if an image is not what ``make`` takes.
        recipe: what the files depend on besides the raw ones, for the digest of a job.
        header: entries of the datalist that differ from, or add to, those made here.
        parts: what may come with an image, if a scan has it.
        workers: processes; by default one a processor.
        force: prepare again what is finished.

    Raises:
        RegInputError: before any work, with every finding about the scans.
    """
    raws = raw_scans(challenge)
    check_scans(raws, challenge, check, workers or cpu_count() or 1)
    jobs = [make_job(raw, recipe, parts, out) for raw in raws]
    rows = make_all(make, jobs, title=challenge.name.lower(), workers=workers, force=force)
    content = describe(challenge, jobs) | dict(header or {}) | sections(challenge, jobs)
    return finish_dataset(out, rows, sheet_rows(jobs), content)


def raw_scans(challenge: Challenge) -> list[RawScan]:
    """The scans that a section uses, in order of their names, each with its points."""
    evaluated = (*challenge.validation, *challenge.testing)
    trained = challenge.training_pairs or [(name, name) for name in challenge.training]
    used = sorted({name for pair in (*evaluated, *trained) for name in pair})
    if not used:
        raise RegInputError(
            f"{challenge.name} lists neither scans to train on nor pairs, expected one at least; fetch its json again."
        )
    scans = challenge.scans
    points: dict[str, Path] = {}
    for kinds, pairs in ((("keypoints",), trained), (("landmarks", "keypoints"), evaluated)):
        for pair in pairs:
            found = ([getattr(scans[name], kind) for name in pair] for kind in kinds)
            both = next((paths for paths in found if None not in paths), None)
            points |= {} if both is None else dict(zip(pair, both, strict=True))
    doubles = not any(scans[name].label for name in used)
    return [RawScan(scans[name], points.get(name), doubles, challenge.labels) for name in used]


def check_scans(raws: Sequence[RawScan], challenge: Challenge, check: Callable[[Volume], None], workers: int) -> None:
    """Read every file to its end; refuse, all at once, what is unsound, of another size, grid or count of points."""
    with ThreadPoolExecutor(workers) as pool:  # most of the time goes into zlib and numpy, which let others run
        parts = pool.map(lambda raw: findings([(check_scan, raw, challenge.sizes, check)]), raws)
        sentences = [sentence for part in parts for sentence in part]
    points = {raw.scan.name: raw.points for raw in raws}
    pairs = (*challenge.training_pairs, *challenge.validation, *challenge.testing)
    both = [(points[fixed], points[moving]) for fixed, moving in pairs if points[fixed] and points[moving]]
    sentences += findings([(check_counts, *paths) for paths in both])
    refuse(sentences)
    first = grid_of(raws[0].scan.image)
    refuse(
        [
            f"{raw.scan.image} has the orientation {codes} and voxels of {spacing} mm, expected {first[0]} and "
            f"{first[1]} as {raws[0].scan.image} has; resample it."
            for raw in raws
            for codes, spacing in [grid_of(raw.scan.image)]
            if codes != first[0] or not np.allclose(spacing, first[1], atol=AFFINE_ATOL)
        ]
    )


def check_scan(raw: RawScan, sizes: Sequence[tuple[int, ...]], check: Callable[[Volume], None]) -> None:
    """Refuse a scan whose files are unsound or that has another size than the archive says."""
    image, _, _ = read_scan(raw)
    if sizes and image.voxels.shape not in sizes:
        raise RegInputError(
            f"{image.path} has {image.voxels.shape} voxels, expected {' or '.join(map(str, sizes))} as the archive's "
            f"json says; fetch it again."
        )
    check(image)
    if raw.points is not None:
        check_keypoints(str(raw.points), image.voxels.shape)


def read_scan(raw: RawScan) -> tuple[Volume, Volume | None, Volume | None]:
    """Image, label and mask; a header without a position is taken as nibabel reads it."""
    image = check_image(raw.scan.image, 3, assume_affine=True)
    mask = None if raw.scan.mask is None else check_label(raw.scan.mask, image)
    if raw.mask_is_label:
        return image, mask and Volume(mask.path, (mask.voxels > 0).astype(np.int32), mask.affine), None
    return image, None if raw.scan.label is None else check_label(raw.scan.label, image), mask


def grid_of(path: Path) -> tuple[str, list[float]]:
    """Orientation and spacing of a file's header."""
    affine = nib.load(path).affine
    return "".join(nib.aff2axcodes(affine)), voxel_sizes(affine).round(4).tolist()


def make_job(raw: RawScan, recipe: Mapping[str, Any], parts: Sequence[str], out: Path) -> Job:
    """A scan's job, with the digest of its files and of how they are made."""
    scan = raw.scan
    label, mask = (scan.mask, None) if raw.mask_is_label else (scan.label, scan.mask)
    there = {"label": label, "mask": mask, "keypoints": raw.points}
    files = {"image": scan.image} | {part: path for part, path in there.items() if path and part in parts}
    names = {str(value): name for value, name in raw.names.items()}
    settings = {part: sha256(path) for part, path in files.items()} | {"names": names} | dict(recipe)
    return Job(scan.name, raw, digest(settings), out, tuple(files))


def save_parts(job: Job, label: Volume | None, mask: Volume | None) -> None:
    """Write what comes with a job's image: label and mask on their grids, points as they are."""
    if label is not None and "label" in job.kinds:
        save_nifti(compact(label.voxels), label.affine, job.output("label"))
    if mask is not None and "mask" in job.kinds:
        save_nifti((mask.voxels > 0).astype(np.uint8), mask.affine, job.output("mask"))
    if "keypoints" in job.kinds:
        save_text(job.raw.points.read_text(encoding="utf-8-sig"), job.output("keypoints"))


def compact(voxels: np.ndarray) -> np.ndarray:
    """The smallest of uint8, int16 and int32 that holds all values, or the array itself if some are fractional."""
    if voxels.dtype.kind == "f" and (voxels != np.round(voxels)).any():
        return voxels
    limits = ((kind, np.iinfo(kind)) for kind in (np.uint8, np.int16, np.int32))
    low, high = voxels.min(), voxels.max()
    return next((voxels.astype(kind) for kind, info in limits if info.min <= low and high <= info.max), voxels)


def report_row(job: Job, image: Volume, label: Volume | None, mask: Volume | None) -> dict[str, Any]:
    """What a person checks of one scan: its grid and values as they came, labels, mask and points."""
    names: Mapping[int, str] = job.raw.names
    found = set() if label is None else set(np.unique(label.voxels).tolist()) - {0}
    missing = [] if label is None else sorted(set(names) - found)
    return {
        "id": job.name,
        "size": " ".join(map(str, image.voxels.shape)),
        "spacing_mm": " ".join(f"{s:g}" for s in voxel_sizes(image.affine)),
        "orientation": "".join(nib.aff2axcodes(image.affine)),
        **{f"p{p:g}": round(float(np.percentile(image.voxels, p)), 3) for p in PERCENTILES},
        "labels_found": len(found) or "",
        "labels_missing": " ".join(map(str, missing)),
        "labels_unnamed": " ".join(map(str, sorted(found - set(names)))) if names else "",
        "mask_percent": "" if mask is None else round(100 * float((mask.voxels > 0).mean()), 2),
        "points": len(job.raw.points.read_text().split()) if "keypoints" in job.kinds else "",
    }


def describe(challenge: Challenge, jobs: Sequence[Job]) -> dict[str, Any]:
    """What the datalist says of all its scans."""
    orientation, spacing_mm = grid_of(jobs[0].output("image"))
    is_mask = any(job.raw.mask_is_label and "label" in job.kinds for job in jobs)
    names = {1: challenge.labels.get(1, "mask")} if is_mask else challenge.labels
    return {
        "name": challenge.name,
        "modality": challenge.modality,
        "orientation": orientation,
        "spacing_mm": spacing_mm,
        "licence": challenge.licence or f"see {PAGE}",
        "labels": {str(value): name for value, name in names.items()},
        "intensity": INTENSITY,
        "hidden_test_pairs": challenge.hidden,
    }


def sections(challenge: Challenge, jobs: Sequence[Job]) -> dict[str, list[dict[str, str]]]:
    """The parts of the datalist; its items have what all of their section have, since batches need the same keys."""
    by_name = {job.name: job for job in jobs}
    trained = challenge.training_pairs or [(name,) for name in challenge.training]
    content = {}
    for section, items in (("training", trained), ("validation", challenge.validation), ("testing", challenge.testing)):
        members = [by_name[name] for item in items for name in item]
        parts = [part for part in ("label", "mask", "keypoints") if all(part in job.kinds for job in members)]
        doubles = "label" in parts and all(job.raw.mask_is_label for job in members)
        if items:
            content[section] = [entry(item, parts, doubles) for item in items]
    return content


def entry(names: Sequence[str], parts: Sequence[str], mask_is_label: bool) -> dict[str, str]:
    """A subject's entry for one name, a pair's for two."""
    if len(names) == 1:
        item = subject_entry(names[0], ("image", *parts))
        return item | ({"mask": item["label"]} if mask_is_label else {})
    item = pair_entry(*names, parts)
    return item | ({f"{role}_mask": item[f"{role}_label"] for role in ("fixed", "moving")} if mask_is_label else {})


def sheet_rows(jobs: Sequence[Job]) -> Iterator[SheetRow]:
    """The prepared scans under the outline of their labels, else of their mask, else of what is bright."""
    for job in jobs:
        image = nib.load(job.output("image"))
        voxels = np.asarray(image.dataobj)
        outline = next((part for part in ("label", "mask") if part in job.kinds), None)
        mask = voxels > voxels.mean() if outline is None else np.asarray(nib.load(job.output(outline)).dataobj) > 0
        orientation = "".join(nib.aff2axcodes(image.affine))
        yield SheetRow(job.name, voxels, mask, voxel_sizes(image.affine).tolist(), orientation)


SOURCES = (
    Source(
        name="learn2reg-lung-ct",
        title="Learn2Reg LungCT, standardized release 1.11: 20 pairs of expiration and inspiration, masks, keypoints",
        license="CC BY 4.0 says Zenodo's record 3835682 of the scans, CC BY-NC a mirror",
        citation=f"Hering, A., Murphy, K., van Ginneken, B. 2020, doi:10.5281/zenodo.3835682; {HERING}",
        page=PAGE,
        terms="Read the license on the challenge's page and cite both; nothing to sign",
        files=(RemoteFile("LungCT.zip", "https://cloud.imi.uni-luebeck.de/s/o7LyCbJCie8fQ3B/download"),),
        prepare=prepare,
        command="learn2reg",
    ),
    Source(
        name="learn2reg-oasis",
        title="Learn2Reg OASIS: 394 + 20 brains, 35 structures, 19 pairs to validate on",
        license="OASIS data use agreement",
        citation=f"Marcus, D. S. et al. 2007, doi:10.1162/jocn.2007.19.9.1498; Hoopes, A. et al. 2021 (HyperMorph); "
        f"{HERING}",
        page=PAGE,
        terms="Accept OASIS's data use agreement (https://www.oasis-brains.org); the challenge's page has OASIS.zip",
        files=(),
        prepare=prepare,
        command="learn2reg",
    ),
    Source(
        name="learn2reg-nlst",
        title="Learn2Reg NLST 2023: follow-up chest CT to baseline, lung masks, keypoints",
        license="as the National Lung Screening Trial's, see the challenge's page",
        citation=HERING,
        page=PAGE,
        terms="The challenge's page may ask for a free account, on which its terms are accepted",
        files=(RemoteFile("NLST2023.zip", "https://cloud.imi.uni-luebeck.de/s/pERQBNyEFNLY8gR/download/NLST2023.zip"),),
        prepare=prepare,
        command="learn2reg",
    ),
)
