"""How long the local normalized cross-correlation takes, and how much memory, beside what our backends replace.

Question: how much faster than the published convolutions and than MONAI's loss is each backend, forward and backward
apart, and how far is it from the time that the bytes alone take? Every row is measured in a process of its own.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from common.errors import RegEnvError, RegInputError
from common.lncc import BACKENDS, lncc_mean

from ..repository import commit
from .measuring import (
    apart,
    check_device,
    copy_bandwidth,
    device_name,
    file_name,
    peak_memory,
    start_memory,
    summary,
    time_once,
    write,
)

__all__ = ["LNCC_BACKENDS", "benchmark_lncc", "lncc_backends"]

OURS = tuple(backend for backend in BACKENDS if backend != "auto")
PEERS = ("monai", "fused_lncc")
COMPILED = "compiled_"
LNCC_BACKENDS = (*OURS, *PEERS, *(COMPILED + name for name in ("five_conv", "group_conv", "separable", "monai")))
FLOATS_MOVED = 3
"""Per voxel, by any method: both images are read once and one gradient is written."""


def lncc_backends(device: str) -> tuple[str, ...]:
    """What there is to measure on a device, the published algorithms first; torch.compile's forms on a GPU only."""
    if device == "cpu":
        return ("five_conv", "group_conv", "monai", "separable", "cpu")
    fused = ("fused_lncc",) if importlib.util.find_spec("fused_lncc") else ()
    triton = ("triton",) if "triton" in OURS else ()
    compiled = tuple(name for name in LNCC_BACKENDS if name.startswith(COMPILED))
    return ("five_conv", "group_conv", "monai", "separable", *triton, *fused, *compiled)


def benchmark_lncc(
    out: Path,
    sizes: Sequence[tuple[int, ...]] = ((160, 192, 224),),
    windows: Sequence[int] = (9,),
    runs: int = 5,
    *,
    warmup: int = 1,
    threads: int | None = None,
    device: str = "cpu",
    backends: Sequence[str] | None = None,
    batch: tuple[int, int] = (1, 1),
    command: str | None = None,
) -> Path:
    """Time the mean LNCC and its gradient by the warped image in float32, and write one row per case.

    Memory is the growth of the peak over what the process held with both images made: resident set on the CPU, torch's
    allocations on a GPU. Our own backends form their gradient in the forward pass, so compare totals. ``floor_s`` is
    what reading both images and writing one gradient takes at the bandwidth of a copy, measured in the same process.

    Args:
        out: folder for the csv, whose name tells device and stack.
        sizes: spatial sizes, two or three sides each.
        windows: odd kernel sizes in voxels.
        runs: timed runs, at least 1; median and interquartile range are reported.
        warmup: runs before them.
        threads: threads of torch; its own choice if None.
        device: "cpu" or "cuda".
        backends: from ``LNCC_BACKENDS``; those of :func:`lncc_backends` if None. "compiled_" is torch.compile's form,
            "fused_lncc" the CUDA extension of that name, which has to be installed.
        batch: batch and channels.
        command: what to write in the ``command`` column; made from the arguments if None.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: an unknown backend, no run, a window that does not fit, or no such device.
        RegEnvError: "fused_lncc" without the package or a GPU.
    """
    backends = tuple(backends) if backends is not None else lncc_backends(device)
    check(sizes, windows, runs, device, backends)
    threads = threads or torch.get_num_threads()
    sides = ["x".join(map(str, size)) for size in sizes]
    command = command or (
        f"regbundles benchmark lncc --sizes {','.join(sides)} --windows {','.join(map(str, windows))} --runs {runs} "
        f"--warmup {warmup} --threads {threads} --device {device} --backends {','.join(backends)} "
        f"--batch {batch[0]}x{batch[1]}"
    )
    stack = {"device": device_name(device), "torch": torch.__version__, "threads": threads, "runs": runs}
    stack |= {"warmup": warmup, "batch": "x".join(map(str, batch))}
    rows = []
    for side, size in zip(sides, sizes, strict=True):
        for window in windows:
            grid = (*batch, *size)
            cases = [apart(measure, backend, grid, window, runs, warmup, threads, device) for backend in backends]
            add_ratios(cases)
            rows += [{"size": side, "window": window, **case, **stack} for case in cases]
    for row in rows:
        row |= {"commit": commit(), "command": command}
    return write(Path(out) / file_name("lncc", device, threads), rows)


def check(sizes: Sequence, windows: Sequence[int], runs: int, device: str, backends: Sequence[str]) -> None:
    """Refuse before the first minute is spent."""
    unknown = set(backends) - set(LNCC_BACKENDS)
    if unknown or not backends:
        raise RegInputError(f"backends are {sorted(backends)}; expected some of {LNCC_BACKENDS}; correct the names.")
    if runs < 1:
        raise RegInputError(f"runs is {runs}; expected at least 1; ask for one run or more.")
    for size in sizes:
        for window in windows:
            if len(size) not in (2, 3) or window % 2 == 0 or not 0 < window <= min(size):
                raise RegInputError(
                    f"size {tuple(size)} with window {window}; expected two or three sides and an odd window no larger "
                    "than the shortest; change one of them."
                )
    check_device(device)
    if "fused_lncc" in backends and (device == "cpu" or not importlib.util.find_spec("fused_lncc")):
        found = "the device cpu" if device == "cpu" else "no package of that name"
        raise RegEnvError(
            f"backend 'fused_lncc' found {found}; expected a GPU and the package, MIT-licensed CUDA source that nvcc "
            "builds; `pip install --no-build-isolation fused_lncc`, or leave it out of --backends."
        )


def measure(
    backend: str, grid: tuple[int, ...], window: int, runs: int, warmup: int, threads: int, device: str
) -> dict[str, str | float]:
    """Times (s) and peak memory (MiB) of one backend on noise (B, C, *S) in [0, 1]; alters the process's settings."""
    torch.set_num_threads(threads)
    floor = 4 * FLOATS_MOVED * torch.Size(grid).numel() / copy_bandwidth(device)
    fixed, warped = torch.rand(2, *grid, generator=torch.Generator().manual_seed(0)).to(device)
    warped = (fixed + warped) / 2
    loss = lncc_loss(backend, window, len(grid) - 2)
    before = start_memory(device)
    times = [time_once(loss, fixed, warped, device) for _ in range(warmup + runs)][warmup:]
    forward, backward, values = zip(*times, strict=True)
    total = summary("total_s", [f + b for f, b in zip(forward, backward, strict=True)])
    return {
        "backend": backend,
        **summary("forward_s", forward),
        **summary("backward_s", backward),
        **total,
        "peak_memory_mib": round((peak_memory(device) - before) / 2**20, 1),
        "loss": round(values[0], 7),
        "floor_s": float(f"{floor:.3g}"),
        "times_the_floor": round(total["total_s_median"] / floor, 1),
    }


def lncc_loss(backend: str, window: int, dimensions: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss -mean(lncc) of (fixed, warped)."""
    if backend.startswith(COMPILED):
        return torch.compile(lncc_loss(backend.removeprefix(COMPILED), window, dimensions))
    if backend == "monai":
        from monai.losses import LocalNormalizedCrossCorrelationLoss  # seconds to import: only in the process it is for

        theirs = LocalNormalizedCrossCorrelationLoss(spatial_dims=dimensions, kernel_size=window)
        return lambda fixed, warped: theirs(warped, fixed)
    if backend == "fused_lncc":
        from fused_lncc import fused_lncc_loss  # compiled on the user's machine, so a peer and no dependency

        return lambda fixed, warped: fused_lncc_loss(warped, fixed, kernel_size=window) - 1
    return lambda fixed, warped: -lncc_mean(fixed, warped, window, backend=backend)


def add_ratios(cases: list[dict]) -> None:
    """How many times faster than Algorithm 1 and than MONAI, by median totals; empty where those were not run."""
    totals = {case["backend"]: float(case["total_s_median"]) for case in cases}
    for case in cases:
        for other in ("five_conv", "monai"):
            ratio = totals[other] / totals[case["backend"]] if other in totals else None
            case[f"times_faster_than_{other}"] = "" if ratio is None else round(ratio, 2)
