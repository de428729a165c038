"""What bundles that need no training data reach on a liver that breathes, a lung that does, and changed contrasts."""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from common.affine import register_affine
from common.errors import RegInputError
from common.geometry import mm_to_ddf, resample_mm, transform_points, warp_mm
from common.metrics import dice, folds, ndv, sdlogj
from common.outputs import read_volume
from common.velocity import warp_by_velocity, warp_exactly

from ..data.malc_layout import LABELS
from ..repository import commit
from .bundle_in_process import BundleInProcess
from .measuring import device_name, write

__all__ = ["benchmark_contrast", "benchmark_force", "benchmark_liver", "benchmark_lung"]

LIVER_PAIRS = (("19", "cyc_1_6"), ("19", "cyc_1_9"), ("26", "cyc_1_6"), ("26", "cyc_4_7"))
BRAINS = ("1013", "1014")  # fixed and moving: none of those that ``benchmark pairs`` reports


def benchmark_liver(data: Path, out: Path, threads: int = 2) -> Path:
    """Mean landmark error of the SVF bundle with its overlay ``liver_mr``, inside and outside the liver, as csv.

    Args:
        data: folder of ``dataset<id>_exhMaster_unmasked.force_direction.mha``, the breathing states beside it and
            their ``LMliver.vtk`` and ``LMoutside.vtk``.
        out: where ``liver-svf.csv`` goes.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    bundle = BundleInProcess("svf", ["liver_mr"], {"network_def::progress": False})
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for subject, state in LIVER_PAIRS:
            stems = (f"dataset{subject}_exhMaster", f"dataset{subject}_{state}")
            sources = (f"{stems[0]}_unmasked.force_direction.mha", f"{stems[1]}.force_direction.mha")
            fixed, moving = (as_nifti(data / source, Path(work)) for source in sources)
            started = time.perf_counter()
            field = bundle(fixed, moving).total
            row = {"pair": f"{subject} {state}", "seconds": round(time.perf_counter() - started, 1)}
            for region in ("liver", "outside"):
                points = [read_vtk_points(data / f"{stem}LM{region}.vtk") for stem in stems]
                row |= landmark_errors(*points, field, nib.load(fixed).affine, region)
            rows.append(row | regularity(field, nib.load(fixed).affine))
    return save(rows, out / "liver-svf.csv", threads, f"regbundles benchmark liver --data DATA --threads {threads}")


def benchmark_lung(data: Path, out: Path, bundles: Sequence[str] = ("svf", "ncf"), threads: int = 2) -> Path:
    """Lung-mask Dice, folds and seconds of followup onto baseline, after one affine, as csv.

    Args:
        data: folder of ``baseline.mha``, ``followup.mha`` and their ``_mask.mha``.
        out: where ``lung-<bundles>.csv`` goes.
        bundles: that have an overlay ``lung_ct``.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        names = ("baseline", "followup", "baseline_mask", "followup_mask")
        fixed, moving, fixed_mask, moving_mask = (as_nifti(data / f"{name}.mha", Path(work)) for name in names)
        images = [nib.load(path) for path in (fixed, moving)]
        initial = register_affine(*((i.get_fdata(dtype=np.float32), i.affine) for i in images)).matrix
        size, affine = images[0].shape, images[0].affine
        truth, mask = (read_volume(path, 3) for path in (fixed_mask, moving_mask))
        aligned = resample_mm(*mask, affine, size, initial, mode="nearest")
        by_header = resample_mm(*mask, affine, size, None, mode="nearest")
        before = {"dice_by_header": overlap(by_header, truth[0]), "dice_affine": overlap(aligned, truth[0])}
        for name in bundles:
            started = time.perf_counter()
            own, total = BundleInProcess(name, ["lung_ct"])(fixed, moving, initial)
            seconds = round(time.perf_counter() - started, 1)
            after = overlap(warp_mm(*mask, total, affine, mode="nearest"), truth[0])
            rows.append({"bundle": name, **before, "dice": after, **regularity(own, affine), "seconds": seconds})
    command = f"regbundles benchmark lung --data DATA --bundles {','.join(bundles)} --threads {threads}"
    return save(rows, out / f"lung-{'-'.join(bundles)}.csv", threads, command)


def benchmark_contrast(data: Path, out: Path, threads: int = 2) -> Path:
    """Dice of one native MALC pair with the moving scan's contrast as it is, inverted and T2-like, as csv.

    Args:
        data: folder of ``<id>_SS.nii.gz`` and ``<id>_glm.nii.gz``.
        out: where ``contrast-svf.csv`` goes.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    brains = Brains(data)
    moving = nib.load(brains.moving)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for similarity in ("lncc", "mi", "mind"):
            bundle = BundleInProcess("svf", (), {"similarity": similarity, "network_def::progress": False})
            for contrast, remap in CONTRASTS.items():
                path = Path(work) / "moving.nii.gz"
                nib.save(nib.Nifti1Image(remap(moving.get_fdata(dtype=np.float32)), moving.affine), path)
                rows.append({"similarity": similarity, "contrast": contrast, **brains.register(bundle, path)})
    return save(
        rows, out / "contrast-svf.csv", threads, f"regbundles benchmark contrast --data DATA --threads {threads}"
    )


def benchmark_force(data: Path, out: Path, threads: int = 2) -> Path:
    """What the gradient through every squaring brings over the force at the end point, on one native MALC pair, as csv.

    Args:
        data: folder of ``<id>_SS.nii.gz`` and ``<id>_glm.nii.gz``.
        out: where ``force-svf.csv`` goes.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    brains = Brains(data)
    rows = []
    for gradient, warping in (("end point", warp_by_velocity), ("through the squarings", warp_exactly)):
        bundle = BundleInProcess("svf", (), {"network_def::progress": False})
        bundle.network.registration.warping = warping
        brains.register(bundle, brains.moving)  # compile
        rows.append({"gradient": gradient, **brains.register(bundle, brains.moving)})
    return save(rows, out / "force-svf.csv", threads, f"regbundles benchmark force --data DATA --threads {threads}")


class Brains:
    """A native pair of MALC, its labels and its affine alignment."""

    def __init__(self, data: Path) -> None:
        self.fixed, self.moving = (data / f"{subject}_SS.nii.gz" for subject in BRAINS)
        missing = [path for path in (self.fixed, self.moving) if not path.is_file()]
        if missing:
            raise RegInputError(f"{missing[0]} is missing, expected native scans of MALC; name their folder.")
        self.labels = [read_volume(data / f"{subject}_glm.nii.gz", 3) for subject in BRAINS]
        images = [nib.load(path) for path in (self.fixed, self.moving)]
        self.affine = images[0].affine
        self.initial = register_affine(*((i.get_fdata(dtype=np.float32), i.affine) for i in images)).matrix

    def register(self, bundle: BundleInProcess, moving: Path) -> dict[str, float]:
        """Scores over the 134 labels and seconds, reading included, of a moving image with the moving scan's grid."""
        started = time.perf_counter()
        own, total = bundle(self.fixed, moving, self.initial)
        seconds = round(time.perf_counter() - started, 1)
        (fixed_label, _), (moving_label, grid) = self.labels
        warped = warp_mm(moving_label, grid, total, self.affine, mode="nearest")
        warped, fixed_label, moving_label = (label.round().int() for label in (warped, fixed_label, moving_label))
        overlaps = dice(warped, fixed_label, [int(label) for label in LABELS], moving_label)[0]
        return {"dice": round(float(overlaps.nanmean()), 4), **regularity(own, self.affine), "seconds": seconds}


def remapped(curve: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A curve on intensities that are 1 at the brain's 99th percentile; the background stays 0."""

    def remap(image: np.ndarray) -> np.ndarray:
        inside = image > 0
        return np.where(inside, 1000 * curve(image / np.percentile(image[inside], 99)), 0).astype(np.float32)

    return remap


CONTRASTS = {
    "T1": remapped(lambda x: x),
    "inverted": remapped(lambda x: 1.2 - np.clip(x, 0, 1.1)),
    "T2-like": remapped(lambda x: np.exp(-2.5 * np.clip(x, 0, 1.1))),  # fluid bright, gray above white matter
}


def as_nifti(source: Path, folder: Path) -> Path:
    """A copy as NIfTI of any image that ITK reads."""
    if not source.is_file():
        raise RegInputError(f"{source} is missing, expected the scans of this benchmark; name their folder.")
    target = folder / f"{source.name.split('.')[0]}.nii.gz"
    itk.imwrite(itk.imread(str(source)), str(target))
    return target


def read_vtk_points(path: Path) -> np.ndarray:
    """Points (K, 3) in RAS mm of an ASCII VTK polydata file in ITK's world, LPS mm."""
    found = re.search(r"POINTS (\d+) \w+\s([-+.\deE\s]+)", path.read_text())
    if found is None:
        raise RegInputError(f"{path} holds no ASCII POINTS, expected a VTK polydata file; choose another.")
    count = int(found[1])
    return np.array(found[2].split()[: 3 * count], dtype=float).reshape(count, 3) * [-1, -1, 1]


def landmark_errors(
    fixed: np.ndarray, moving: np.ndarray, field: Tensor, affine: np.ndarray, region: str
) -> dict[str, float]:
    """Mean distance in mm of corresponding points before and after."""
    moved = transform_points(fixed, field, affine)
    before, after = (np.linalg.norm(points - moving, axis=1).mean() for points in (fixed, moved))
    return {f"{region}_before_mm": round(float(before), 2), f"{region}_after_mm": round(float(after), 2)}


def overlap(mask: Tensor, truth: Tensor) -> float:
    """Dice of two masks (1, 1, *S)."""
    return round(float(dice((mask > 0).int(), (truth > 0).int(), [1], (mask > 0).int()).squeeze()), 4)


def regularity(field: Tensor, affine: np.ndarray) -> dict[str, float]:
    """SDlogJ, NDV and folded voxels of a field in mm."""
    ddf = mm_to_ddf(field, affine)
    return {
        "sdlogj": round(float(sdlogj(ddf)), 4),
        "ndv_percent": round(float(ndv(ddf)), 5),
        "folded_percent": round(float(folds(ddf).percent), 5),
    }


def save(rows: list[dict], path: Path, threads: int, command: str) -> Path:
    """Write the rows with device, commit and command."""
    stack = {"device": device_name("cpu"), "threads": threads, "torch": torch.__version__, "commit": commit()}
    return write(path, [{**row, **stack, "command": command} for row in rows])
