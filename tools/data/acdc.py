"""ACDC: short-axis cine MR of 150 hearts, end-diastole and end-systole -> 128 x 128 x 16 voxels of 1.8 x 1.8 x 10 mm.

Source:  https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html (asks for a registration: nothing is fetched)
License: CC BY-NC-SA 4.0; read the page's terms. Cite Bernard et al. 2018.
Usage:   regbundles data prepare acdc --raw /data/raw/ACDC --out /data/acdc

What happens to a frame, after EOIR (Chen et al., arXiv:2509.00451) and Mem-Warp, whose spacing and size these are;
how they interpolate they do not say: one interpolation onto a grid along the scan's own axes, linear for the image and
nearest neighbor for the labels, about the middle voxel of the scan, with 0 beyond it (a Gaussian first along axes that
become coarser); then minimum and maximum of each image become 0 and 1. A middle voxel meets a middle voxel, so that
slices 10 mm apart stay as they are. Every patient is a pair in both directions: end-systole onto end-diastole, and
back.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from os import cpu_count
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from scipy.ndimage import affine_transform, gaussian_filter

from common.errors import RegInputError
from common.preflight import AFFINE_ATOL, Volume, check_image, check_label, findings, refuse
from common.report import SheetRow

from .acdc_layout import LABELS, SPLIT, Frame, find_frames
from .brain import FWHM_PER_SIGMA, Grid, cut_percent
from .files import save_nifti, sha256
from .prepared import Job, finish_dataset, make_all, pair_entry
from .resume import digest
from .source import Source

__all__ = ["SOURCES", "prepare"]

LICENSE = "CC BY-NC-SA 4.0; O. Bernard et al., doi:10.1109/TMI.2018.2837502"
RECIPE = 1  # goes up when the same input would give other voxels, so that what lies there is made again
SIZE = (128, 128, 16)
SPACING_MM = (1.8, 1.8, 10.0)
PERCENTILES = (1.0, 50.0, 99.0)


def prepare(raw: str, out: str, workers: int | None = None, force: bool = False) -> Path:
    """Prepare both frames of every patient under ``raw``; a second run writes the same bytes.

    Args:
        raw: folder with ``patientNNN/`` of the training and the testing set, at any depth.
        out: folder to fill with ``images/``, ``labels/``, ``records/``, ``datalist.json``, ``report.csv`` and
            ``contact_sheet.png``.
        workers: processes; by default one a processor.
        force: prepare again what is finished.

    Returns:
        The path of ``datalist.json``: pairs in every section, to be trained on with pairing "given". Of each twenty
        patients with one diagnosis the first 17 are trained and the last three validated on; 101 to 150 are tested on.
        Patients that are absent are left out.

    Raises:
        RegInputError: before any work, with every finding about the input.
    """
    frames = find_frames(Path(raw))
    check_frames(frames, workers or cpu_count() or 1)
    jobs = [make_job(frame, Path(out)) for frame in frames]
    rows = make_all(prepare_frame, jobs, title="acdc", workers=workers, force=force)
    return finish_dataset(Path(out), rows, sheet_rows(jobs), header(jobs) | sections(frames))


def check_frames(frames: Sequence[Frame], workers: int) -> None:
    """Read every file to its end; refuse, all at once, what is unsound and frames of a patient on two grids."""
    patients = list(zip(frames[::2], frames[1::2], strict=True))
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda pair: findings([(check_patient, *pair)]), patients)
        refuse([sentence for part in parts for sentence in part])


def check_patient(diastole: Frame, systole: Frame) -> None:
    """Refuse a patient whose files are unsound, have other labels, or lie on different grids."""
    (first, _), (second, _) = (read(frame) for frame in (diastole, systole))
    if first.voxels.shape != second.voxels.shape or not np.allclose(first.affine, second.affine, atol=AFFINE_ATOL):
        raise RegInputError(
            f"{first.path} and {second.path} lie on different grids, expected both frames of a patient on one; fetch "
            "them again."
        )


def read(frame: Frame) -> tuple[Volume, Volume]:
    """Image and labels of a frame; a header without a position is taken as nibabel reads it."""
    image = check_image(frame.image, 3, assume_affine=True)
    labels = check_label(frame.label, image)
    unknown = sorted(set(np.unique(labels.voxels).tolist()) - {0, *LABELS})
    if unknown:
        raise RegInputError(f"{frame.label} has the labels {unknown}, expected {sorted(LABELS)}; check its origin.")
    return image, labels


def make_job(frame: Frame, out: Path) -> Job:
    """A frame's job, with the digest of its files and settings."""
    settings = {"recipe": RECIPE, "image": sha256(frame.image), "label": sha256(frame.label), "group": frame.group}
    return Job(frame.name, frame, digest(settings | {"size": SIZE, "spacing_mm": SPACING_MM}), out)


def prepare_frame(job: Job) -> dict[str, Any]:
    """Write one frame's files; return its row of the report."""
    image, labels = read(job.raw)
    grid = centered_grid(image)
    voxels, values = resample(image, grid, order=1), resample(labels, grid, order=0)
    low, high = voxels.min(), voxels.max()
    save_nifti(((voxels - low) / (high - low)).astype(np.float32), grid.affine, job.output("image"))
    save_nifti(values.astype(np.uint8), grid.affine, job.output("label"))
    return report_row(job, image, labels, values, grid)


def centered_grid(image: Volume) -> Grid:
    """The grid along the scan's axes whose voxel at half its size is the scan's at half its."""
    matrix = image.affine.copy()
    matrix[:3, :3] *= np.array(SPACING_MM) / voxel_sizes(image.affine)
    middle = apply_affine(image.affine, np.array(image.voxels.shape) // 2)
    matrix[:3, 3] = middle - matrix[:3, :3] @ (np.array(SIZE) // 2)
    return Grid(SIZE, matrix)


def resample(volume: Volume, grid: Grid, order: int) -> np.ndarray:
    """Sample a volume on a grid along its own axes: order 1 linear, 0 nearest; 0 beyond it."""
    voxels, fine_mm = volume.voxels, voxel_sizes(volume.affine)
    if order:
        wider_mm = np.sqrt(np.maximum(voxel_sizes(grid.affine) ** 2 - fine_mm**2, 0))
        voxels = gaussian_filter(voxels, wider_mm / FWHM_PER_SIGMA / fine_mm, mode="nearest")
    matrix = np.linalg.inv(volume.affine) @ grid.affine
    return affine_transform(voxels, np.diag(matrix)[:3], matrix[:3, 3], grid.size, order=order, mode="constant")


def report_row(job: Job, image: Volume, labels: Volume, values: np.ndarray, grid: Grid) -> dict[str, Any]:
    """What a person checks of one frame: raw grid and values, labels left, how much of the heart is cut off."""
    found = set(np.unique(values).tolist())
    return {
        "id": job.name,
        "group": job.raw.group,
        "raw_size": " ".join(map(str, image.voxels.shape)),
        "raw_spacing_mm": " ".join(f"{s:g}" for s in voxel_sizes(image.affine).round(4)),
        "raw_orientation": "".join(nib.aff2axcodes(image.affine)),
        **{f"p{p:g}": round(float(np.percentile(image.voxels, p)), 2) for p in PERCENTILES},
        "labels_found": sum(value in found for value in LABELS),
        "labels_missing": " ".join(str(value) for value in LABELS if value not in found),
        "cut_percent": round(cut_percent(labels.voxels > 0, labels.affine, grid, np.eye(4)), 3),
    }


def header(jobs: Sequence[Job]) -> dict[str, Any]:
    """What the datalist says of all its scans; axes are the scans' own, so most headers decide the orientation."""
    codes = ["".join(nib.aff2axcodes(nib.load(job.output("image")).affine)) for job in jobs]
    return {
        "name": "acdc",
        "modality": "cine MR",
        "orientation": max(sorted(set(codes)), key=codes.count),
        "spacing_mm": list(SPACING_MM),
        "licence": LICENSE,
        "labels": {str(value): name for value, name in LABELS.items()},
        "intensity": "minimum and maximum of each image mapped to [0, 1]",
    }


def sections(frames: Sequence[Frame]) -> dict[str, list[dict[str, str]]]:
    """Both directions of every patient that is there, fixed in end-diastole first."""
    names: dict[int, list[str]] = {}
    for frame in frames:
        names.setdefault(frame.patient, []).append(frame.name)
    pairs = {number: [pair_entry(a, b), pair_entry(b, a)] for number, (a, b) in names.items()}
    content = {part: [pairs[number] for number in numbers if number in pairs] for part, numbers in SPLIT.items()}
    return {part: list(chain.from_iterable(items)) for part, items in content.items() if items}


def sheet_rows(jobs: Sequence[Job]) -> Iterator[SheetRow]:
    """The prepared frames under the outline of the heart."""
    for job in jobs:
        image, label = (nib.load(job.output(kind)) for kind in ("image", "label"))
        orientation = "".join(nib.aff2axcodes(image.affine))
        yield SheetRow(
            job.name, np.asarray(image.dataobj), np.asarray(label.dataobj) > 0, list(SPACING_MM), orientation
        )


SOURCES = (
    Source(
        name="acdc",
        title="ACDC 2017: 100 + 50 hearts in short-axis cine MR, three structures at end-diastole and end-systole",
        license=LICENSE,
        citation="Bernard, O. et al.: Deep learning techniques for automatic MRI cardiac multi-structures segmentation "
        "and diagnosis: is the problem solved? IEEE Transactions on Medical Imaging 37 (2018), "
        "doi:10.1109/TMI.2018.2837502",
        page="https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html",
        terms="Register at https://humanheart-project.creatis.insa-lyon.fr, accept its terms, fetch the database there "
        "and prepare it from its folder",
        files=(),
        prepare=prepare,
    ),
)
