"""Learn2Reg LungCT: chest scans in expiration and inspiration -> images in [0, 1], lung masks, datalist.json.

Source:  https://zenodo.org/records/3835682 (training.zip), or LungCT of https://learn2reg.grand-challenge.org
License: CC BY 4.0 says the record, CC BY-NC a mirror: read it before use. By A. Hering, K. Murphy, B. van Ginneken.
Usage:   regbundles data prepare lung-ct --raw /data/raw/lung_ct --out /data/lung_ct

An evaluation data set, nothing to train on: the eight intra-patient pairs of the first eight cases, fixed in
expiration, and the 56 ordered pairs of their scans in expiration. Scans stay on their grid.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import ScaleIntensityRange
from nibabel.affines import voxel_sizes

from common.datalist import check_counts, check_keypoints
from common.errors import RegInputError
from common.intensity import check_hounsfield
from common.preflight import AFFINE_ATOL, Volume, check_image, check_label, findings, refuse
from common.report import SheetRow

from .files import save_nifti, save_text, sha256
from .lung_ct_layout import CASES, EXPIRATION, INSPIRATION, Scan, find_scans
from .prepared import Job, finish_dataset, make_all, pair_entry
from .resume import digest
from .source import RemoteFile, Source

__all__ = ["INTENSITIES", "SOURCES", "prepare"]

LICENSE = "CC BY 4.0 (Zenodo 3835682), CC BY-NC by a mirror; A. Hering, K. Murphy, B. van Ginneken"
RECIPE = 1  # goes up when the same input would give other voxels, so that what lies there is made again
INTENSITIES = {"hounsfield": (-1000.0, 500.0), "stored": (-285.0, 3770.0)}
"""Values that become 0 and 1. "stored" is for archives that are not in Hounsfield units: the range that DeepReg
(github.com/DeepRegNet/DeepReg, paired_ct_lung) takes for the Zenodo files."""
INTENSITY_TEXT = {
    "hounsfield": "Hounsfield units, -1000 to 500 mapped to [0, 1], clipped",
    "stored": "stored values, not Hounsfield units; -285 to 3770 mapped to [0, 1], clipped",
}
PERCENTILES = (1.0, 50.0, 99.0)


def prepare(
    raw: str,
    out: str,
    intensity: str = "hounsfield",
    workers: int | None = None,
    force: bool = False,
    cases: Sequence[str] = CASES,
) -> Path:
    """Prepare both scans of every case under ``raw`` and write ``datalist.json``; a second run writes the same bytes.

    Args:
        raw: folder of the challenge's or of Zenodo's archive, unpacked at any depth.
        out: folder to fill with ``images/``, ``labels/``, ``keypoints/``, ``records/``, ``datalist.json``,
            ``report.csv`` and ``contact_sheet.png``.
        intensity: "hounsfield" refuses scans that are not in HU and takes the window -1000 to 500; "stored" takes
            the files' values as they are, see ``INTENSITIES``.
        workers: processes; by default one a processor.
        force: prepare again what is finished.
        cases: ids of four digits, two at least.

    Returns:
        The path of ``datalist.json``. Its section "testing" has the intra-patient pairs, with their keypoints where
        both scans have some, then the inter-patient pairs. Labels and masks of a pair are the lung masks.

    Raises:
        RegInputError: before any work, with every finding about the input.
    """
    if intensity not in INTENSITIES:
        raise RegInputError(f"intensity is '{intensity}', expected one of {', '.join(INTENSITIES)}; choose one.")
    scans = find_scans(Path(raw), tuple(cases))
    orientation, spacing_mm = check_scans(scans, intensity)
    jobs = [make_job(scan, intensity, Path(out)) for scan in scans]
    rows = make_all(prepare_scan, jobs, title="lung-ct", workers=workers, force=force)
    content = header(intensity, orientation, spacing_mm) | {"testing": pairs(scans)}
    return finish_dataset(Path(out), rows, sheet_rows(jobs), content)


def check_scans(scans: Sequence[Scan], intensity: str) -> tuple[str, list[float]]:
    """Orientation and spacing that all scans share, after every file has been read; all findings in one error."""
    sentences = [text for scan in scans for text in findings([(check_scan, scan, intensity)])]
    points = [scan.keypoints for scan in scans]
    both = [pair for pair in zip(points[::2], points[1::2], strict=True) if None not in pair]
    sentences += findings([(check_counts, *pair) for pair in both])
    refuse(sentences)
    orientation, spacing_mm = grid_of(scans[0])
    others = [(scan.name, *grid_of(scan)) for scan in scans]
    refuse(
        [
            f"{name} has the orientation {codes} and voxels of {spacing} mm, expected {orientation} and {spacing_mm} "
            f"as {scans[0].name} has; resample it."
            for name, codes, spacing in others
            if codes != orientation or not np.allclose(spacing, spacing_mm, atol=AFFINE_ATOL)
        ]
    )
    return orientation, spacing_mm


def grid_of(scan: Scan) -> tuple[str, list[float]]:
    """Orientation and spacing of a scan's header."""
    affine = nib.load(scan.image).affine
    return "".join(nib.aff2axcodes(affine)), voxel_sizes(affine).round(4).tolist()


def check_scan(scan: Scan, intensity: str) -> None:
    """Refuse a scan whose files are unsound or whose values are not what ``intensity`` says."""
    image, _ = read(scan)
    if intensity == "hounsfield":
        try:
            check_hounsfield(image.voxels, str(scan.image))
        except RegInputError as error:
            raise RegInputError(f"{error} --intensity stored takes the values as they are.") from None
    if scan.keypoints is not None:
        check_keypoints(str(scan.keypoints), image.voxels.shape)


def read(scan: Scan) -> tuple[Volume, Volume]:
    """The scan and its mask; a header without a position is taken as nibabel reads it."""
    image = check_image(scan.image, 3, assume_affine=True)
    return image, check_label(scan.mask, image)


def make_job(scan: Scan, intensity: str, out: Path) -> Job:
    """A scan's job, with the digest of its files and settings."""
    files = {"image": scan.image, "mask": scan.mask, "keypoints": scan.keypoints}
    settings = {kind: sha256(path) for kind, path in files.items() if path is not None}
    kinds = ("image", "label") if scan.keypoints is None else ("image", "label", "keypoints")
    return Job(scan.name, (scan, intensity), digest(settings | {"recipe": RECIPE, "intensity": intensity}), out, kinds)


def prepare_scan(job: Job) -> dict[str, Any]:
    """Write one scan's files; return its row of the report."""
    scan, intensity = job.raw
    image, mask = read(scan)
    low, high = INTENSITIES[intensity]
    voxels = ScaleIntensityRange(low, high, 0, 1, clip=True)(image.voxels)
    save_nifti(np.asarray(voxels), image.affine, job.output("image"))
    save_nifti((mask.voxels > 0).astype(np.uint8), image.affine, job.output("label"))
    if scan.keypoints is not None:
        save_text(scan.keypoints.read_text(encoding="utf-8-sig"), job.output("keypoints"))
    return report_row(scan, image, mask)


def report_row(scan: Scan, image: Volume, mask: Volume) -> dict[str, Any]:
    """What a person checks of one scan: grid, stored values, volume of the lungs."""
    lung = mask.voxels > 0
    return {
        "id": scan.name,
        "size": " ".join(map(str, image.voxels.shape)),
        "spacing_mm": " ".join(f"{s:g}" for s in voxel_sizes(image.affine)),
        "orientation": "".join(nib.aff2axcodes(image.affine)),
        "lung_ml": round(float(lung.sum() * np.prod(voxel_sizes(image.affine)) / 1000), 1),
        "lung_median": round(float(np.median(image.voxels[lung])), 1),
        **{f"p{p:g}": round(float(np.percentile(image.voxels, p)), 1) for p in PERCENTILES},
        "keypoints": "" if scan.keypoints is None else len(scan.keypoints.read_text().split()),
    }


def header(intensity: str, orientation: str, spacing_mm: list[float]) -> dict[str, Any]:
    """What the datalist says of all its scans."""
    return {
        "name": "lung_ct",
        "modality": "CT",
        "orientation": orientation,
        "spacing_mm": spacing_mm,
        "licence": LICENSE,
        "labels": {"1": "lung"},
        "intensity": INTENSITY_TEXT[intensity],
    }


def pairs(scans: Sequence[Scan]) -> list[dict[str, str]]:
    """Intra-patient pairs, fixed in expiration, then all ordered pairs of two patients in expiration."""
    by_name = {(scan.case, scan.phase): scan for scan in scans}
    cases = list(dict.fromkeys(scan.case for scan in scans))
    intra = [pair(by_name[case, EXPIRATION], by_name[case, INSPIRATION]) for case in cases]
    inter = [pair(by_name[a, EXPIRATION], by_name[b, EXPIRATION]) for a, b in permutations(cases, 2)]
    return intra + inter


def pair(fixed: Scan, moving: Scan) -> dict[str, str]:
    """An entry of the datalist; keypoints correspond within a patient only. Labels and masks are the lung masks."""
    has_points = fixed.case == moving.case and fixed.keypoints is not None and moving.keypoints is not None
    entry = pair_entry(fixed.name, moving.name, ("label", "keypoints") if has_points else ("label",))
    return entry | {f"{role}_mask": entry[f"{role}_label"] for role in ("fixed", "moving")}


def sheet_rows(jobs: Sequence[Job]) -> Iterator[SheetRow]:
    """The prepared scans under the outline of their lungs."""
    for job in jobs:
        image, label = (nib.load(job.output(kind)) for kind in ("image", "label"))
        spacing_mm, orientation = voxel_sizes(image.affine).tolist(), "".join(nib.aff2axcodes(image.affine))
        yield SheetRow(job.name, np.asarray(image.dataobj), np.asarray(label.dataobj) > 0, spacing_mm, orientation)


SOURCES = (
    Source(
        name="lung-ct",
        title="Learn2Reg LungCT as Zenodo has it: 20 patients in expiration and inspiration, lung masks",
        license=LICENSE,
        citation="A. Hering, K. Murphy, B. van Ginneken, Learn2Reg Challenge: CT Lung Registration, Training Data, "
        "2020, doi:10.5281/zenodo.3835682",
        page="https://zenodo.org/records/3835682",
        terms="",
        files=(
            RemoteFile(
                "training.zip",
                "https://zenodo.org/api/records/3835682/files/training.zip/content",
                sha256="920e33e9cac0e99bacfee3243dc908ac0dd92c1ac781567c7c3328ddb0ae5f88",
                md5="cd4ef606641b915603a8a0f6a4664a6c",
            ),
        ),
        prepare=prepare,
    ),
)
