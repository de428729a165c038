"""How long our building blocks take, and how much memory, beside what they replace.

Question for ``lncc``: how much faster than the published convolutions and than MONAI's loss is each backend, forward
and backward apart? Every row is measured in a process of its own.
"""

import csv
import multiprocessing
import platform
import re
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from common.errors import RegInputError
from common.lncc import lncc_mean

__all__ = ["LNCC_BACKENDS", "benchmark_lncc"]

LNCC_BACKENDS = ("five_conv", "group_conv", "monai", "separable", "cpu")
REPOSITORY = Path(__file__).parent.parent


def benchmark_lncc(
    out: Path,
    sizes: Sequence[tuple[int, ...]] = ((160, 192, 224),),
    windows: Sequence[int] = (9,),
    runs: int = 5,
    *,
    warmup: int = 1,
    threads: int | None = None,
    device: str = "cpu",
    backends: Sequence[str] = LNCC_BACKENDS,
    command: str | None = None,
) -> Path:
    """Time the mean LNCC and its gradient by the warped image, batch 1, float32, and write one row per case.

    Memory is the growth of the peak over what the process held with both images made: resident set on the CPU, torch's
    allocations on a GPU. The separable backend forms its gradient in the forward pass, so compare totals.

    Args:
        out: folder for the csv, whose name tells device and stack.
        sizes: spatial sizes, two or three sides each.
        windows: odd kernel sizes in voxels.
        runs: timed runs, at least 1; median and interquartile range are reported.
        warmup: runs before them.
        threads: threads of torch; its own choice if None.
        device: "cpu" or "cuda".
        backends: from ``LNCC_BACKENDS``.
        command: what to write in the ``command`` column; made from the arguments if None.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: an unknown backend, no run, a window that does not fit, or no such device.
    """
    check(sizes, windows, runs, device, backends)
    threads = threads or torch.get_num_threads()
    sides = ["x".join(map(str, size)) for size in sizes]
    command = command or (
        f"regbundles benchmark lncc --sizes {','.join(sides)} --windows {','.join(map(str, windows))} --runs {runs} "
        f"--warmup {warmup} --threads {threads} --device {device} --backends {','.join(backends)}"
    )
    stack = {"device": device_name(device), "torch": torch.__version__, "threads": threads, "runs": runs}
    rows = []
    for side, size in zip(sides, sizes, strict=True):
        for window in windows:
            cases = [apart(measure, backend, size, window, runs, warmup, threads, device) for backend in backends]
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
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise RegInputError(f"device is {device!r}; expected 'cpu', or 'cuda' where torch sees one; choose another.")


def apart(function: Callable, *arguments) -> dict:
    """Call in a fresh process, so that neither memory nor thread pools carry over."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measure(
    backend: str, size: tuple[int, ...], window: int, runs: int, warmup: int, threads: int, device: str
) -> dict[str, str | float]:
    """Times (s) and peak memory (MiB) of one backend on noise in [0, 1]; alters the process's settings."""
    torch.set_num_threads(threads)
    fixed, warped = torch.rand(2, 1, 1, *size, generator=torch.Generator().manual_seed(0)).to(device)
    warped = (fixed + warped) / 2
    loss = lncc_loss(backend, window, len(size))
    before = start_memory(device)
    times = [time_once(loss, fixed, warped, device) for _ in range(warmup + runs)][warmup:]
    forward, backward, values = zip(*times, strict=True)
    return {
        "backend": backend,
        **summary("forward_s", forward),
        **summary("backward_s", backward),
        **summary("total_s", [f + b for f, b in zip(forward, backward, strict=True)]),
        "peak_memory_mib": round((peak_memory(device) - before) / 2**20, 1),
        "loss": round(values[0], 7),
    }


def lncc_loss(backend: str, window: int, dimensions: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss -mean(lncc) of (fixed, warped)."""
    if backend == "monai":
        from monai.losses import LocalNormalizedCrossCorrelationLoss  # seconds to import: only in the process it is for

        theirs = LocalNormalizedCrossCorrelationLoss(spatial_dims=dimensions, kernel_size=window)
        return lambda fixed, warped: theirs(warped, fixed)
    return lambda fixed, warped: -lncc_mean(fixed, warped, window, backend=backend)


def time_once(loss: Callable, fixed: Tensor, warped: Tensor, device: str) -> tuple[float, float, float]:
    """Seconds forward, seconds backward, and the loss."""
    warped = warped.clone().requires_grad_()
    marks = [clock(device)]
    value = loss(fixed, warped)
    marks.append(clock(device))
    value.backward()
    marks.append(clock(device))
    return marks[1] - marks[0], marks[2] - marks[1], value.item()


def time_once_of(function: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[float, float]:
    """Seconds forward and backward of a function on the CPU, with a gradient of ones."""
    inputs = inputs.clone().requires_grad_()
    started = time.perf_counter()
    value = function(inputs)
    between = time.perf_counter()
    value.backward(torch.ones_like(value))
    return between - started, time.perf_counter() - between


def clock(device: str) -> float:
    """Seconds now that the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median and interquartile range; the range of one run is 0."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (0, 0, 0)
    return {f"{name}_median": round(statistics.median(values), 5), f"{name}_iqr": round(high - low, 5)}


def start_memory(device: str) -> int:
    """Bytes held now; the peak counts from here where the system can reset it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is resident
    except OSError:
        pass
    return peak_memory(device)


def peak_memory(device: str) -> int:
    """Largest number of bytes held since the start."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    unit = 1 if platform.system() == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def add_ratios(cases: list[dict]) -> None:
    """How many times faster than Algorithm 1 and than MONAI, by median totals; empty where those were not run."""
    totals = {case["backend"]: case["total_s_median"] for case in cases}
    for case in cases:
        for other in ("five_conv", "monai"):
            ratio = totals[other] / case["total_s_median"] if other in totals else None
            case[f"times_faster_than_{other}"] = "" if ratio is None else round(ratio, 2)


def device_name(device: str) -> str:
    """The processor or the GPU in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def file_name(subject: str, device: str, threads: int) -> str:
    """``lncc-cpu-2threads-torch2.13.0.csv``, ``lncc-nvidia-h200-torch2.13.0.csv``."""
    version = torch.__version__.split("+")[0]
    if device == "cuda":
        return f"{subject}-{re.sub('[^a-z0-9]+', '-', device_name(device).lower())}-torch{version}.csv"
    return f"{subject}-cpu-{threads}threads-torch{version}.csv"


def commit() -> str:
    """Short hash of the checkout, ``+dirty`` with uncommitted changes but results; "unknown" outside of one."""
    try:
        arguments = {"cwd": REPOSITORY, "capture_output": True, "text": True, "check": True}
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **arguments).stdout.strip()
        paths = [".", ":(exclude)results", ":(exclude)docs"]  # what a benchmark writes changes no later row
        changed = subprocess.run(["git", "status", "--porcelain", "--", *paths], **arguments).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+dirty" if changed else "")


def write(path: Path, rows: list[dict]) -> Path:
    """Write the rows as csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
