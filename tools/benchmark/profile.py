"""Where the seconds of a training step go, network by network, and what becomes of them by what torch offers.

Rows of two kinds: ``operator`` (on a GPU ``kernel`` too) are the dearest of a step by torch's profiler; ``variant`` are
the step as the bundle's ``train.json`` makes it, ``plain``, and that step changed in one way. A variant is worth its
place where it is quicker and its losses are those of ``plain``.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .cases import Case
from .epoch import seconds_of, synthetic_pair
from .measuring import apart, file_name, peak_memory, stack_of, start_memory, summary, write
from .network_variants import FAST_LNCC, TrainingParts, check_request, training_parts

__all__ = ["STEP_VARIANTS", "add_differences", "benchmark_profile", "profile_cases"]

TOP = 10
"""Operators of a step that get a row."""


def bf16(parts: TrainingParts, device: str) -> TrainingParts:
    """The network under autocast; the loss keeps float32."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.view = parts.view

        def forward(self, image: Tensor) -> Mapping[str, Tensor] | Tensor:
            with torch.autocast(device, torch.bfloat16):
                return self.view(image)

    return parts._replace(view=Half())


def in_format(memory_format: torch.memory_format) -> Callable[[TrainingParts, str], TrainingParts]:
    """The network's weights in this order of bytes, from which its answers follow."""

    def changed(parts: TrainingParts, device: str) -> TrainingParts:
        parts.network.to(memory_format=memory_format)
        return parts

    return changed


def compiled(**options: str) -> Callable[[TrainingParts, str], TrainingParts]:
    """The network by ``torch.compile``."""
    return lambda parts, device: parts._replace(view=torch.compile(parts.view, **options))


def fused_adam(parts: TrainingParts, device: str) -> TrainingParts:
    """The optimizer in one kernel."""
    own = copy.copy(parts.optimizer.defaults) | {"fused": True, "foreach": False}
    return parts._replace(optimizer=type(parts.optimizer)(parts.network.parameters(), **own))


STEP_VARIANTS: Mapping[str, Callable[[TrainingParts, str], TrainingParts]] = {
    "plain": lambda parts, device: parts,
    "bf16 autocast": bf16,
    "channels_last_3d": in_format(torch.channels_last_3d),
    "contiguous": in_format(torch.contiguous_format),
    "fused Adam": fused_adam,
    "torch.compile": compiled(),
    "torch.compile, CUDA graphs": compiled(mode="reduce-overhead"),
}


def benchmark_profile(
    out: Path,
    size: tuple[int, ...],
    runs: int = 5,
    warmup: int = 2,
    *,
    networks: Sequence[str] = FAST_LNCC,
    variants: Sequence[str] | None = None,
    threads: int = 2,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """The dearest operators of a training step and its variants, for every network.

    Args:
        out: folder for ``profile-<device>-<stack>.csv``.
        size: three sides of the grid.
        runs: timed steps of each variant, and profiled ones.
        warmup: steps before them, whose losses are compared too.
        networks: of :data:`tools.benchmark.network_variants.VARIANTS`.
        variants: of :data:`STEP_VARIANTS`; all that the device has if None.
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
    rows = []
    for case in profile_cases(size, runs, warmup, networks, variants, threads, device):
        found = apart(case.measure, *case.arguments)
        rows += [{**case.key, **row} for row in (found if isinstance(found, list) else [found])]
        say(f"{case}: {rows[-1]['step_s_median']} s")
    add_differences(rows)
    stack = stack_of(size, device, threads) | {"runs": runs, "warmup": warmup, "command": command}
    return write(Path(out) / file_name("profile", device, threads), [{**row, **stack} for row in rows])


def profile_cases(
    size: tuple[int, ...],
    runs: int,
    warmup: int,
    networks: Sequence[str],
    variants: Sequence[str] | None,
    threads: int,
    device: str,
) -> list[Case]:
    """What there is to measure: of every network its operators, then its variants."""
    names = variants or [name for name in STEP_VARIANTS if device == "cuda" or "CUDA" not in name]
    stack = size, runs, warmup, threads, device
    grid = {"size": "x".join(map(str, size))}
    cases = []
    for network in networks:
        cases.append(Case("profile", {"network": network, "kind": "operator", **grid}, operators, (network, *stack)))
        for name in names:
            key = {"network": network, "kind": "variant", "name": name, **grid}
            cases.append(Case("profile", key, variant, (network, name, *stack), 180.0))
    return cases


def operators(network: str, size: tuple[int, ...], runs: int, warmup: int, threads: int, device: str) -> list[dict]:
    """Rows of the dearest operators and kernels by their own time; alters the process's settings."""
    parts, pair = prepared(network, size, threads, device)
    for _ in range(warmup):
        parts.step(pair)
    gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiler:
        for _ in range(runs):
            parts.step(pair)
        if gpu:
            torch.cuda.synchronize()
    events = [event for event in profiler.key_averages() if not getattr(event, "is_user_annotation", False)]
    rows = []
    for kind, device_type in (("operator", DeviceType.CPU), *((("kernel", DeviceType.CUDA),) if gpu else ())):
        own = {
            e.key: e.self_device_time_total if gpu else e.self_cpu_time_total
            for e in events
            if e.device_type == device_type
        }
        calls = {e.key: e.count for e in events if e.device_type == device_type}
        total = sum(own.values()) or 1
        for name in sorted(own, key=own.get, reverse=True)[:TOP]:
            seconds = own[name] / runs / 1e6
            share = round(100 * own[name] / total, 1)
            rows.append({"kind": kind, "name": name[:100], **columns(seconds, share, calls[name] / runs)})
    return rows


def columns(
    seconds: float, percent: float | str = "", calls: float | str = "", memory: float | str = "", losses: str = ""
) -> dict:
    """What every row has after its names: ``step_s_median`` of an operator is its own part of a step."""
    row = {"step_s_median": round(seconds, 6), "percent": percent, "calls": calls, "peak_memory_mib": memory}
    return row | {"times_faster_than_plain": "", "loss_difference": "", "losses": losses}


def variant(
    network: str, name: str, size: tuple[int, ...], runs: int, warmup: int, threads: int, device: str
) -> dict[str, str | float]:
    """Seconds, memory and losses of a step that is changed in one way; alters the process's settings."""
    parts, pair = prepared(network, size, threads, device)
    parts = STEP_VARIANTS[name](parts, device)
    losses: list[Tensor] = []
    before = start_memory(device)
    times = [seconds_of(lambda: losses.append(parts.step(pair).clone()), device) for _ in range(warmup + runs)]
    memory = round((peak_memory(device) - before) / 2**20, 1)
    seconds = summary("step_s", times[warmup:])["step_s_median"]
    return columns(seconds, memory=memory, losses=" ".join(f"{float(loss):.7g}" for loss in losses))


def prepared(network: str, size: tuple[int, ...], threads: int, device: str) -> tuple[TrainingParts, dict[str, Tensor]]:
    """The same weights and images for every variant."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return training_parts(network, device), synthetic_pair(size, device)


def add_differences(rows: Sequence[dict]) -> None:
    """Complete the variants by their gain and their largest relative difference from the losses of ``plain``."""
    plain = {(row["network"], row["size"]): row for row in rows if row["kind"] == "variant" and row["name"] == "plain"}
    for row in rows:
        reference = plain.get((row["network"], row["size"]))
        if row["kind"] == "variant" and reference:
            found, expected = (torch.tensor([*map(float, r["losses"].split())]) for r in (row, reference))
            row["loss_difference"] = f"{float(((found - expected) / expected).abs().max()):.2g}"
            gain = float(reference["step_s_median"]) / float(row["step_s_median"])
            row["times_faster_than_plain"] = round(gain, 3)
