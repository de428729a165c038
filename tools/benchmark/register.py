"""What `regbundles register` costs from two raw files to the last result: seconds and the peak of resident memory.

Each row is the command in a process of its own, start-up, reading, affine alignment and every output included. Scans
are a phantom's two subjects, made at a fraction of the size and interpolated: their content changes neither time nor
memory.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch.nn import functional as F

from common.phantom import phantom_subject

from ..repository import commit
from .measuring import device_name, file_name, write

__all__ = ["benchmark_register"]

DRAWN = 96  # voxels along the longest axis at which the phantom is made
FIELD_MM = 240.0  # along the longest axis, whatever the size


def benchmark_register(
    out: Path,
    sizes: Sequence[tuple[int, ...]],
    bundles: Sequence[str] = ("svf",),
    *,
    threads: int = 2,
    say: Callable[[str], None] = print,
) -> Path:
    """Register a pair of each size with each bundle and write the csv.

    Args:
        out: folder for the csv, whose name tells device and stack.
        sizes: grids, (X, Y, Z).
        bundles: names; those that need weights must have them.
        threads: that the process may use.
        say: gets a line after each row.

    Returns:
        Path of the csv.
    """
    stack = {"device": device_name("cpu"), "torch": torch.__version__, "threads": threads, "commit": commit()}
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for size in sizes:
            pair = write_scans(Path(work) / "x".join(map(str, size)), size)
            for bundle in bundles:
                row = measure(pair, bundle, Path(work) / "result", threads)
                rows.append({**stack, "bundle": bundle, "size": "x".join(map(str, size)), **row})
                say(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
    return write(out / file_name("register", "cpu", threads), rows)


def measure(pair: Sequence[Path], bundle: str, out: Path, threads: int, flags: Sequence[str] = ()) -> dict[str, float]:
    """Wall and processor seconds, and peak memory, of the command."""
    words = [sys.executable, "-m", "tools", "register", *map(str, pair), "--bundle", bundle, "--out", str(out), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    process = subprocess.Popen([*words, "--force", "--quiet", "--device", "cpu"], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{' '.join(words)} ended with status {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gib": round(usage.ru_maxrss / 2**20, 2),
    }


def write_scans(folder: Path, size: tuple[int, ...]) -> list[Path]:
    """Two subjects as int16 NIfTI of a size, 240 mm along the longest axis."""
    folder.mkdir()
    drawn = [max(round(n * DRAWN / max(size)), 16) for n in size]
    spacing = FIELD_MM / max(size)
    paths = []
    for seed in (0, 1):
        image = phantom_subject(seed, drawn).image[None].float()
        voxels = F.interpolate(image, size, mode="trilinear", align_corners=True)[0, 0].numpy()
        paths.append(folder / f"subject{seed}.nii.gz")
        scaled = np.rint(1000 * voxels / voxels.max()).astype(np.int16)
        nib.save(nib.Nifti1Image(scaled, np.diag([spacing] * 3 + [1])), paths[-1])
    return paths
