"""What all measurements share: a process of its own for each, clocks, memory, names of device and stack, csv files."""

import csv
import multiprocessing
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from common.errors import RegInputError

from ..repository import commit

__all__ = [
    "apart",
    "check_device",
    "clock",
    "copy_bandwidth",
    "device_name",
    "file_name",
    "peak_memory",
    "stack_of",
    "start_memory",
    "summary",
    "time_once",
    "time_once_of",
    "usual_size",
    "write",
]


def apart(function: Callable, *arguments) -> dict:
    """Call in a fresh process, so that neither memory nor thread pools carry over."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def check_device(device: str) -> None:
    """RegInputError unless torch has it."""
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise RegInputError(f"device is {device!r}; expected 'cpu', or 'cuda' where torch sees one; choose another.")


def time_once(loss: Callable, fixed: Tensor, warped: Tensor, device: str) -> tuple[float, float, float]:
    """Seconds forward, seconds backward, and the loss."""
    warped = warped.clone().requires_grad_()
    marks = [clock(device)]
    value = loss(fixed, warped)
    marks.append(clock(device))
    value.backward()
    marks.append(clock(device))
    return marks[1] - marks[0], marks[2] - marks[1], value.item()


def time_once_of(function: Callable[[Tensor], Tensor], inputs: Tensor, device: str = "cpu") -> tuple[float, float]:
    """Seconds forward and backward of a function, with a gradient of ones."""
    inputs = inputs.clone().requires_grad_()
    started = clock(device)
    value = function(inputs)
    between = clock(device)
    value.backward(torch.ones_like(value))
    return between - started, clock(device) - between


def copy_bandwidth(device: str, mebibytes: int = 256, runs: int = 7) -> float:
    """Bytes per second that a copy reads and writes, the best of some runs: more than a cache holds."""
    source = torch.ones(mebibytes * 2**18, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(runs + 1):  # the first one maps the memory
        started = clock(device)
        target.copy_(source)
        seconds.append(clock(device) - started)
    return 2 * 4 * source.numel() / min(seconds[1:])


def clock(device: str) -> float:
    """Seconds now that the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def summary(name: str, values: Sequence[float]) -> dict[str, float]:
    """Median and interquartile range; the range of one run is 0."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (0, 0, 0)
    return {f"{name}_median": round(statistics.median(values), 7), f"{name}_iqr": round(high - low, 7)}


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


def usual_size(device: str) -> str:
    """The grid of a benchmark of networks: the papers' on a GPU, half of its resolution on a CPU."""
    return "160x192x224" if device == "cuda" else "80x96x112"


def stack_of(size: Sequence[int], device: str, threads: int) -> dict[str, str | int]:
    """What was measured on, as columns: grid, device, torch, threads, commit."""
    columns = {"size": "x".join(map(str, size)), "device": device_name(device), "torch": torch.__version__}
    return columns | {"threads": threads, "commit": commit()}


def write(path: Path, rows: list[dict]) -> Path:
    """Write the rows as csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
