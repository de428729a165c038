"""How much of a training epoch the local cross-correlation takes: the fast LNCC paper's Table 1, run again.

Five networks, three forms of the loss, batch 1, Adam, synthetic tensors, no data loader. Every case is measured in a
process of its own; of one step the loss is timed apart too, so that what a faster LNCC saves can be told from the
network it is trained with.

Source: X. Jia et al., doi:10.20944/preprints202502.2200.v1, Table 1.
Differs: seconds of the median step times 403 instead of whole epochs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from .measuring import (
    apart,
    clock,
    file_name,
    peak_memory,
    stack_of,
    start_memory,
    summary,
    time_once,
    write,
)
from .network_variants import FAST_LNCC, check_request, training_parts

__all__ = ["BACKENDS", "EPOCH", "benchmark_epoch", "synthetic_pair"]

BACKENDS = ("five_conv", "group_conv", "auto")
EPOCH = 403
"""Iterations of an epoch: subjects of the IXI training set."""


def benchmark_epoch(
    out: Path,
    size: tuple[int, ...],
    runs: int = 5,
    warmup: int = 1,
    *,
    networks: Sequence[str] = FAST_LNCC,
    backends: Sequence[str] = BACKENDS,
    threads: int = 2,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Seconds of a training step and of an epoch for every network and every form of the loss.

    Args:
        out: folder for ``epoch-<device>-<stack>.csv``.
        size: three sides of the grid.
        runs: timed steps of each case.
        warmup: steps before them.
        networks: of :data:`tools.benchmark.network_variants.VARIANTS`.
        backends: of :func:`common.lncc.lncc`.
        threads: of torch.
        device: "cpu" or "cuda".
        command: what to write in the ``command`` column.
        say: is handed a line for each row.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: unknown networks, no run, or no such device.
    """
    check_request(networks, runs, device)
    stack = stack_of(size, device, threads) | {"runs": runs, "warmup": warmup, "command": command}
    rows = []
    for name in networks:
        cases = [apart(measure, name, backend, size, runs, warmup, threads, device) for backend in backends]
        add_savings(cases, cases[0]["backend"])
        for row in cases:
            say(f"{name}, {row['backend']}: {row['step_s_median']} s a step, {row['saved_percent']} % saved")
        rows += [{**row, **stack} for row in cases]
    return write(Path(out) / file_name("epoch", device, threads), rows)


def measure(
    name: str, backend: str, size: tuple[int, ...], runs: int, warmup: int, threads: int, device: str
) -> dict[str, str | float]:
    """Times and memory of one network with one form of the loss; alters the process's settings."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    parts = training_parts(name, device, lncc_backend=backend)
    pair = synthetic_pair(size, device)
    before = start_memory(device)
    steps = [seconds_of(lambda: parts.step(pair), device) for _ in range(warmup + runs)][warmup:]
    peak = peak_memory(device) - before
    similarity = [time_once(similarity_of(parts.loss), pair["fixed"], pair["moving"], device) for _ in range(1 + runs)]
    step = summary("step_s", steps)
    return {
        "network": name,
        "backend": backend,
        **step,
        **summary("lncc_s", [forward + backward for forward, backward, _ in similarity[1:]]),
        "epoch_s": round(EPOCH * step["step_s_median"], 1),
        "peak_memory_mib": round(peak / 2**20, 1),
        "parameters": sum(p.numel() for p in parts.network.parameters()),
    }


def add_savings(rows: Sequence[dict], reference: str = BACKENDS[0]) -> None:
    """What each form of the loss saves of the reference's step with the same network; empty without that one."""
    steps = {row["network"]: float(row["step_s_median"]) for row in rows if row["backend"] == reference}
    for row in rows:
        step = steps.get(row["network"])
        saved = None if step is None else round(step - float(row["step_s_median"]), 7)
        row["saved_s"] = "" if saved is None else saved
        row["saved_percent"] = "" if saved is None else round(100 * saved / step, 1)


def similarity_of(loss: torch.nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """The similarity alone, of (fixed, warped)."""
    return lambda fixed, warped: loss.compare(warped, fixed)


def seconds_of(function: Callable, device: str) -> float:
    """Seconds that a call takes, the device's work included."""
    started = clock(device)
    function()
    return clock(device) - started


def synthetic_pair(size: Sequence[int], device: str) -> dict[str, Tensor]:
    """Two related images of noise (1, 1, *S) in [0, 1]."""
    fixed, noise = torch.rand(2, 1, 1, *size, generator=torch.Generator().manual_seed(0)).to(device)
    return {"fixed": fixed, "moving": (fixed + noise) / 2}
