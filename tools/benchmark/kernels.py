"""What compiled loops, on a GPU kernels, gain over torch, operator by operator; each case in its own process."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common.lncc import lncc_mean
from common.smooth import gaussian_smooth
from common.spatial import compose, upsample, warp
from common.ssim import ssim

from ..repository import commit
from .measuring import apart, check_device, copy_bandwidth, device_name, file_name, summary, time_once_of, write

__all__ = ["benchmark_kernels"]

OPERATORS = {"compose": 15, "warp": 13, "lncc 5": 3, "lncc 9": 3, "ssim 11": 3, "smooth 1": 12}
"""Floats per voxel that forward and backward move at least, each input read and each output written once a pass."""


def benchmark_kernels(
    out: Path,
    size: tuple[int, ...],
    runs: int = 5,
    warmup: int = 2,
    threads: int = 2,
    device: str = "cpu",
    command: str = "",
) -> Path:
    """Seconds forward and backward of every operator by torch and by compiled loops, as ``kernels-<device>-*.csv``.

    On a GPU only LNCC has a form of its own, by triton; the others are torch's alone.

    ``floor_s`` is what moving :data:`OPERATORS`' floats takes at the bandwidth of a copy.

    Args:
        out: where the csv goes.
        size: three sides of the grid.
        runs: timed runs of each case.
        warmup: runs before them; the first compiles.
        threads: of torch and of the loops.
        device: "cpu" or "cuda".
        command: that is noted in every row.
    """
    check_device(device)
    rows, bandwidth = [], apart(pace, threads, device)["bytes_per_s"]
    for operator in OPERATORS:
        names = ("torch", "cpu") if device == "cpu" else ("torch", "triton") if "lncc" in operator else ("torch",)
        cases = [apart(measure, operator, size, runs, warmup, threads, device, name) for name in names]
        floor = 4 * OPERATORS[operator] * math.prod(size) / bandwidth
        for case in cases:
            case["times_faster_than_torch"] = round(cases[0]["total_s_median"] / case["total_s_median"], 1)
            case |= {"floor_s": float(f"{floor:.3g}"), "times_the_floor": round(case["total_s_median"] / floor, 1)}
        rows += cases
    stack = {"size": "x".join(map(str, size)), "device": device_name(device), "threads": threads}
    stack |= {"torch": torch.__version__, "commit": commit(), "command": command}
    return write(out / file_name("kernels", device, threads), [{**row, **stack} for row in rows])


def pace(threads: int, device: str) -> dict[str, float]:
    """Bytes per second of a copy by so many threads; alters the process's settings."""
    torch.set_num_threads(threads)
    return {"bytes_per_s": copy_bandwidth(device)}


def measure(
    operator: str, size: tuple[int, ...], runs: int, warmup: int, threads: int, device: str, backend: str
) -> dict:
    """Times of one operator; alters the process's settings."""
    if backend == "torch":
        os.environ["NUMBA_DISABLE_JIT"] = "1"  # what ``common.kernels_cpu`` heeds
    torch.set_num_threads(threads)
    value, inputs = case(operator, size, device, "separable" if backend == "torch" else backend)
    times = [time_once_of(value, inputs, device) for _ in range(warmup + runs)][warmup:]
    forward, backward = zip(*times, strict=True)
    return {
        "operator": operator,
        "backend": backend,
        **summary("forward_s", forward),
        **summary("backward_s", backward),
        **summary("total_s", [f + b for f, b in zip(forward, backward, strict=True)]),
    }


def case(operator: str, size: tuple[int, ...], device: str, lncc: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A function of one tensor, and the tensor: a smooth field of some voxels, or an image."""
    generator = torch.Generator().manual_seed(0)
    field = 2 * upsample(torch.randn(1, 3, *[n // 16 for n in size], generator=generator), list(size), [1.0] * 3)
    image, other = torch.rand(2, 1, 1, *size, generator=generator)
    field, image, other = (tensor.to(device) for tensor in (field, image, other))
    name, *option = operator.split()
    functions = {
        "compose": (lambda x: compose(x, x), field),
        "warp": (lambda x: warp(image, x), field),
        "lncc": (lambda x: lncc_mean(other, x, int(option[0]), backend=lncc), image),
        "ssim": (lambda x: ssim(other, x, kernel_size=int(option[0])).mean(), image),
        "smooth": (lambda x: gaussian_smooth(x, float(option[0])), field),
    }
    return functions[name]
