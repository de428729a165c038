"""How much memory a whole volume takes a network of windows, by the windows in flight and by the volume.

Question: is what the network itself needs bounded by the windows in flight, whatever the volume? Every row is a process
of its own that holds nothing else. ``fields_mib`` is the size of the volume's displacement, of which integration and
composition hold several whatever the network is; ``one_stage_mib`` is what the first stage's velocity takes, the
volume's own image and velocity left out.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from common.errors import RegInputError

from .epoch import seconds_of, synthetic_pair
from .measuring import apart, check_device, file_name, peak_memory, stack_of, start_memory, write
from .network_variants import VARIANTS, training_parts

__all__ = ["benchmark_windows"]

FLOAT_BYTES = 4


def benchmark_windows(
    out: Path,
    sizes: Sequence[tuple[int, ...]],
    in_flight: Sequence[int] = (4, 16),
    network: str = "Patch FCN light",
    *,
    threads: int = 2,
    device: str = "cpu",
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Peak memory and seconds of one registration of noise, without gradients, of each size and number of windows.

    Args:
        out: folder for ``windows-<device>-<stack>.csv``.
        sizes: three sides each.
        in_flight: windows that pass the network at once.
        network: of :data:`tools.benchmark.network_variants.VARIANTS`, of the bundle ``patch_fcn``.
        threads: of torch.
        device: "cpu" or "cuda".
        command: what to write in the ``command`` column.
        say: is handed a line for each row.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: another network, no window, or no such device.
    """
    check_device(device)
    if network not in VARIANTS or VARIANTS[network].bundle != "patch_fcn" or min(in_flight, default=0) < 1:
        raise RegInputError(
            f"got the network {network} with {list(in_flight)} windows in flight; expected one of the bundle patch_fcn "
            "and 1 window or more; correct them."
        )
    rows = []
    for size in sizes:
        for count in in_flight:
            found = apart(measure, network, size, count, threads, device)
            rows.append({"network": network, "windows_in_flight": count, **found, **stack_of(size, device, threads)})
            say(f"{rows[-1]['size']}, {count} windows: {found['peak_memory_mib']} MiB in {found['seconds']} s")
    return write(Path(out) / file_name("windows", device, threads), [{**row, "command": command} for row in rows])


def measure(network: str, size: tuple[int, ...], in_flight: int, threads: int, device: str) -> dict[str, float]:
    """One registration; alters the process's settings."""
    torch.set_num_threads(threads)
    model = training_parts(network, device, windows_in_flight=in_flight).network.eval()
    model.stages_in_use = len(model.stages)
    pair = synthetic_pair(size, device)
    image = torch.cat([pair.pop("moving"), pair.pop("fixed")], dim=1)
    field = len(size) * image[0, 0].numel() * FLOAT_BYTES
    with torch.no_grad():
        model(image[(..., *[slice(VARIANTS[network].settings["core_size"])] * len(size))])  # what loads only once
        before = start_memory(device)
        svf = model.stages[0](image)
        one_stage = peak_memory(device) - before - svf.numel() * FLOAT_BYTES
        del svf
        seconds = seconds_of(lambda: model(image), device)
    peak = peak_memory(device) - before
    values = {"seconds": seconds, "peak_memory_mib": peak / 2**20, "one_stage_mib": one_stage / 2**20}
    return {key: round(value, 1) for key, value in values.items()} | {"fields_mib": round(field / 2**20, 1)}
