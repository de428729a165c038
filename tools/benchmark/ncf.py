"""How much memory a step of NCF needs, and how long it takes, by size and by how the network is evaluated.

Question: the network whole keeps every hidden map of every voxel; does a scan fit 12 GB in parts, and at what price?
Every row is a process of its own that optimises a pair of noise images as the bundle's ``inference.json`` builds the
network; steps differ in nothing, so two or three tell the time of a thousand.
"""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch

from common.errors import RegInputError

from ..repository import REPOSITORY, commit
from .measuring import apart, clock, device_name, file_name, peak_memory, start_memory, summary, write

__all__ = ["PARTS", "benchmark_ncf"]

CONFIG = REPOSITORY / "bundles" / "ncf" / "configs" / "inference.json"
PARTS = ("whole", "auto")


def benchmark_ncf(
    out: Path,
    sizes: Sequence[tuple[int, ...]] = ((192, 192, 208),),
    parts: Sequence[str] = PARTS,
    steps: int = 3,
    *,
    threads: int = 1,
    device: str = "cpu",
    command: str,
    say: Callable[[str], None] = print,
) -> Path:
    """Measure some steps at each size, evaluated in each way.

    Args:
        out: folder for the csv, whose name tells device and stack.
        sizes: spatial sizes, two or three sides each.
        parts: "whole", "auto" (the bundle's own choice) or a number, the voxels that the linear layers take at a time.
        steps: timed steps, at least 1; one before them warms up.
        threads: of torch.
        device: "cpu" or "cuda".
        command: what to write in the ``command`` column.
        say: gets a line after each row.

    Returns:
        Path of the csv. ``peak_memory_mib`` is the whole process's resident set on a CPU (interpreter and libraries
        included) and torch's allocations on a GPU; ``growth_mib`` what came on top of both images.

    Raises:
        RegInputError: for a size of another number of sides, an unknown way, no step or no such device.
    """
    check(sizes, parts, steps, device)
    stack = {"device": device_name(device), "torch": torch.__version__, "threads": threads, "commit": commit()}
    rows = []
    for size in sizes:
        for part in parts:
            row = apart(measure, size, part, steps, threads, device)
            rows.append({"size": "x".join(map(str, size)), "parts": part, "steps": steps, **row, **stack})
            say(", ".join(f"{key} {value}" for key, value in list(rows[-1].items())[:7]))
    path = Path(out) / file_name("ncf", device, threads)
    return write(path, [row | {"command": command} for row in rows])


def check(sizes: Sequence[tuple[int, ...]], parts: Sequence[str], steps: int, device: str) -> None:
    """Refuse before the first minute is spent."""
    unknown = [part for part in parts if part not in PARTS and not (part.isdecimal() and int(part) > 0)]
    odd = [size for size in sizes if len(size) not in (2, 3) or min(size) < 11]
    if unknown or odd or steps < 1:
        raise RegInputError(
            f"parts are {list(parts)}, sizes {[tuple(size) for size in sizes]} and steps {steps}, expected parts "
            f"out of {PARTS} or numbers of voxels, two or three sides of 11 voxels or more, and a step; correct them."
        )
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise RegInputError(f"device is {device!r}; expected 'cpu', or 'cuda' where torch sees one; choose another.")


def measure(size: tuple[int, ...], part: str, steps: int, threads: int, device: str) -> dict[str, str | float]:
    """Seconds a step and peak memory of one way; alters the process's settings."""
    torch.set_num_threads(threads)
    network = make_network(part, steps + 1)
    image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0)).to(device)
    before = start_memory(device)
    marks = marked(network, device)
    begin = time.perf_counter()
    network(image)
    seconds = time.perf_counter() - begin
    peak = peak_memory(device)
    return {
        **summary("seconds_per_step", [late - early for early, late in pairwise(marks)]),
        "peak_memory_mib": round(peak / 2**20),
        "growth_mib": round((peak - before) / 2**20),
        "total_s": round(seconds, 2),
    }


def make_network(part: str, iterations: int) -> torch.nn.Module:
    """The network of ``inference.json``, evaluated in parts of this kind, all steps at full resolution."""
    from monai.bundle import ConfigParser  # seconds to import: only in the process that it is for

    parser = ConfigParser()
    parser.read_config(str(CONFIG))
    parser["iterations"], parser["half_resolution_steps"] = iterations, 0
    settings = {"whole": {"chunk": 0, "slab": 0}, "auto": {}}
    settings = settings[part] if part in settings else {"chunk": int(part)}
    for key, value in {**settings, "progress": False}.items():
        parser[f"network_def::{key}"] = value
    return parser.get_parsed_content("network_def")


def marked(network: torch.nn.Module, device: str) -> list[float]:
    """The time at the start of every evaluation of the loss, filled while the network runs."""
    marks: list[float] = []
    terms = network.terms

    def timed(*arguments):
        marks.append(clock(device))
        return terms(*arguments)

    network.terms = timed
    return marks
