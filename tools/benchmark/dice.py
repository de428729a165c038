"""What the soft Dice of many labels costs without their one-hot maps, beside MONAI's loss on them.

Every row is one forward and backward pass of ``1 - Dice`` of a moving label map under a displacement field, in a
process of its own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from common.errors import RegInputError
from common.soft_dice import SoftDiceLoss
from common.spatial import warp

from ..repository import commit
from .measuring import apart, device_name, file_name, peak_memory, start_memory, summary, time_once, write

__all__ = ["DICE_BACKENDS", "benchmark_dice"]

DICE_BACKENDS = ("monai", "soft_dice")
BLOCK = 16  # voxels along each side of a synthetic structure


def benchmark_dice(
    out: Path,
    size: tuple[int, ...] = (160, 192, 224),
    labels: Sequence[int] = (36,),
    runs: int = 1,
    *,
    warmup: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    backends: Sequence[str] = DICE_BACKENDS,
    command: str,
) -> Path:
    """Time the loss and its gradient by the ddf, batch 1, float32, and write one row per case.

    Memory is the growth of the peak over what the process held with label maps and ddf made.

    Args:
        out: folder for the csv, whose name tells device and stack.
        size: two or three sides.
        labels: numbers of labels.
        runs: timed runs, at least 1; median and interquartile range are reported.
        warmup: runs before them.
        threads: threads of torch; its own choice if None.
        device: "cpu" or "cuda".
        backends: from ``DICE_BACKENDS``.
        command: what to write in the ``command`` column.

    Raises:
        RegInputError: an unknown backend, no run, no label, or no such device.
    """
    if set(backends) - set(DICE_BACKENDS) or not backends:
        raise RegInputError(f"backends are {list(backends)}; expected some of {DICE_BACKENDS}; correct the names.")
    if runs < 1 or not labels or min(labels) < 1 or len(size) not in (2, 3):
        raise RegInputError(f"got {runs} runs, {list(labels)} labels and size {size}; expected one or more of each.")
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise RegInputError(f"device is {device!r}; expected 'cpu', or 'cuda' where torch sees one; choose another.")
    threads = threads or torch.get_num_threads()
    rows = []
    for count in labels:
        for backend in backends:
            case = apart(measure, backend, size, count, runs, warmup, threads, device)
            rows.append({"size": "x".join(map(str, size)), "labels": count, **case})
    stack = {"device": device_name(device), "torch": torch.__version__, "threads": threads, "runs": runs}
    rows = [{**row, **stack, "commit": commit(), "command": command} for row in rows]
    return write(Path(out) / file_name("dice", device, threads), rows)


def measure(
    backend: str, size: tuple[int, ...], labels: int, runs: int, warmup: int, threads: int, device: str
) -> dict:
    """Times (s) and peak memory (MiB) of one backend; alters the process's settings."""
    torch.set_num_threads(threads)
    label, ddf = a_pair(size, labels, device)
    loss = dice_loss(backend, labels)
    before = start_memory(device)
    times = [time_once(loss, label, ddf, device) for _ in range(warmup + runs)][warmup:]
    forward, backward, values = zip(*times, strict=True)
    return {
        "backend": backend,
        **summary("forward_s", forward),
        **summary("backward_s", backward),
        **summary("total_s", [f + b for f, b in zip(forward, backward, strict=True)]),
        "peak_memory_mib": round((peak_memory(device) - before) / 2**20, 1),
        "loss": round(values[0], 7),
    }


def a_pair(size: tuple[int, ...], labels: int, device: str) -> tuple[Tensor, Tensor]:
    """A map of blocks of random labels (1, 1, *S), which is moving and fixed, and a ddf of about a voxel."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(labels, [-(-n // BLOCK) for n in size], generator=generator, dtype=torch.int32)
    for axis, n in enumerate(size):
        label = label.repeat_interleave(BLOCK, axis).narrow(axis, 0, n)
    ddf = torch.randn(1, len(size), *size, generator=generator)
    return label[None, None].contiguous().to(device), ddf.to(device)


def dice_loss(backend: str, labels: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of (label, ddf)."""
    if backend == "soft_dice":
        ours = SoftDiceLoss(labels)
        return lambda label, ddf: ours(ddf, label, label)
    from monai.losses import DiceLoss  # seconds to import: only in the process it is for
    from monai.networks import one_hot

    theirs = DiceLoss()

    def loss(label: Tensor, ddf: Tensor) -> Tensor:
        maps = one_hot(label, labels)
        return theirs(warp(maps, ddf), maps)

    return loss
