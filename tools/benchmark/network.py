"""What every network of the collection costs: parameters, a registration, a training step, memory."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from .eoir import multiply_adds
from .epoch import seconds_of, synthetic_pair
from .measuring import (
    apart,
    file_name,
    peak_memory,
    stack_of,
    start_memory,
    summary,
    write,
)
from .network_variants import VARIANTS, check_request, training_parts

__all__ = ["benchmark_network"]


def benchmark_network(
    out: Path,
    size: tuple[int, ...],
    runs: int = 5,
    warmup: int = 1,
    *,
    networks: Sequence[str] = tuple(VARIANTS),
    threads: int = 2,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Latency of a registration, time of a training step, peak memory of both, for every network.

    A registration is ``forward`` without gradients, on the device already; a training step is that of the bundle's
    ``train.json``, its loss and optimizer included. Each is measured in a process of its own.

    Args:
        out: folder for ``network-<device>-<stack>.csv``.
        size: three sides of the grid.
        runs: timed runs of each case.
        warmup: runs before them.
        networks: of :data:`tools.benchmark.network_variants.VARIANTS`.
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
        row = {"network": name, **apart(measure_forward, name, size, runs, warmup, threads, device)}
        row |= apart(measure_training, name, size, runs, warmup, threads, device)
        say(f"{name}: {row['forward_s_median']} s a registration, {row['step_s_median']} s a training step")
        rows.append({**row, **stack})
    return write(Path(out) / file_name("network", device, threads), rows)


def measure_forward(name: str, size: tuple[int, ...], runs: int, warmup: int, threads: int, device: str) -> dict:
    """Parameters, multiply-adds, seconds and memory of a registration; alters the process's settings."""
    torch.set_num_threads(threads)
    network = training_parts(name, device).network.eval()
    pair = synthetic_pair(size, device)
    image = torch.cat([pair["moving"], pair["fixed"]], dim=1)
    before = start_memory(device)
    with torch.no_grad():
        times = [seconds_of(lambda: network(image), device) for _ in range(warmup + runs)][warmup:]
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds_g": round(multiply_adds(network, size) / 1e9, 2),
        **summary("forward_s", times),
        "forward_memory_mib": round((peak_memory(device) - before) / 2**20, 1),
    }


def measure_training(name: str, size: tuple[int, ...], runs: int, warmup: int, threads: int, device: str) -> dict:
    """Seconds and memory of a training step; alters the process's settings."""
    torch.set_num_threads(threads)
    parts, pair = training_parts(name, device), synthetic_pair(size, device)
    before = start_memory(device)
    times = [seconds_of(lambda: parts.step(pair), device) for _ in range(warmup + runs)][warmup:]
    return {**summary("step_s", times), "step_memory_mib": round((peak_memory(device) - before) / 2**20, 1)}
