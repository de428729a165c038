"""How much memory a bundle needs: the peak of one registration, and what many registrations or steps leave behind.

Every row is a process of its own that runs the bundle's ``inference.json`` or ``train.json`` on phantoms, reading and
writing included. Weights of inference are random: they change neither time nor memory.

Two slopes say what is left behind. Resident memory swings by tens of MiB with the allocator's free lists, so a leak
of some kB a step is lost in it; the heap in use, as glibc counts it, has no such noise.
"""

import ctypes
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.checkpoint import save_checkpoint
from common.errors import RegInputError
from common.phantom import write_phantom

from ..repository import REPOSITORY, commit
from .measuring import apart, device_name, file_name, peak_memory, write

__all__ = ["benchmark_memory"]

WARM = 100  # iterations before memory is watched
SMALL = (32, 32, 32)


def benchmark_memory(
    out: Path,
    bundle: str = "eoir",
    size: tuple[int, ...] = (160, 192, 224),
    overlays: Sequence[str] = ("", "half_resolution.json"),
    repeats: int = 500,
    steps: int = 2000,
    *,
    threads: int = 1,
    command: str,
    say: Callable[[str], None] = print,
) -> Path:
    """Measure one registration at ``size`` with each overlay, then many registrations and steps at 32 voxels a side.

    Args:
        out: folder for the csv, whose name tells device and stack.
        bundle: folder under bundles/.
        size: spatial size of the large pair.
        overlays: configs over inference.json, each measured; "" is none.
        repeats: registrations of the small pair, 200 or more; 0 leaves that row out.
        steps: training steps, 200 or more; 0 leaves that row out.
        threads: of torch.
        command: what to write in the ``command`` column.
        say: gets a line after each row.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: for an unknown bundle or overlay, or too few repeats or steps.
    """
    configs = REPOSITORY / "bundles" / bundle / "configs"
    lacking = [name for name in ("inference.json", *filter(None, overlays)) if not (configs / name).is_file()]
    if lacking or 0 < repeats < 2 * WARM or 0 < steps < 2 * WARM:
        raise RegInputError(
            f"{lacking or 'no file'} missing in {bundle}/configs, {repeats} repeats and {steps} steps, expected a "
            f"bundle, and {2 * WARM} or more of both or 0; correct them."
        )
    stack = {"device": device_name("cpu"), "torch": torch.__version__, "threads": threads, "commit": commit()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = [(register, overlay, size, 1) for overlay in overlays]
        cases += [(register, "", SMALL, repeats)] if repeats else []
        cases += [(train, "", SMALL, steps)] if steps else []
        for index, (work, overlay, side, count) in enumerate(cases):
            data = make_data(Path(folder) / "x".join(map(str, side)), side)
            row = apart(work, bundle, overlay, data, count, threads, Path(folder) / f"case_{index}")
            head = {"bundle": bundle, "work": work.__name__, "overlay": Path(overlay).stem, "size": data.name}
            rows.append({**head, "count": count, **row, **stack, "command": command})
            say(", ".join(f"{key} {value}" for key, value in list(rows[-1].items())[:10]))
    return write(Path(out) / file_name(f"memory-{bundle}", "cpu", threads), rows)


def make_data(folder: Path, size: tuple[int, ...]) -> Path:
    """A phantom with two subjects to train on and a pair to register; one that is there already stays."""
    if (folder / "datalist.json").is_file():
        return folder
    return write_phantom(folder, subjects=2, size=size, validation_pairs=1, testing_pairs=1).parent


def register(bundle: str, overlay: str, data: Path, count: int, threads: int, work: Path) -> dict[str, str | float]:
    """Register a data set's pair ``count`` times in one engine run."""
    weights = work / "model.pt"
    workflow = workflow_of(bundle, "inference", overlay, data, threads, output_dir=work / "out", ckpt_path=weights)
    save_checkpoint(workflow.parser.get_parsed_content("network_def").state_dict(), weights)
    workflow.parser.get_parsed_content("dataset").data *= count
    return watched(workflow, "evaluator", count)


def train(bundle: str, overlay: str, data: Path, count: int, threads: int, work: Path) -> dict[str, str | float]:
    """Train for ``count`` steps in epochs of fifty, each with a checkpoint, and validate at the end."""
    epochs = -(-count // 50)
    settings = {"max_epochs": epochs, "steps_per_epoch": 50, "val_interval": epochs, "channels": 4}
    places = {"ckpt_dir": work / "models", "output_dir": work / "out"}
    return watched(workflow_of(bundle, "train", overlay, data, threads, **places, **settings), "train::trainer", count)


def workflow_of(bundle: str, config: str, overlay: str, data: Path, threads: int, **settings):
    """A bundle's initialized workflow on the CPU; alters the process's settings."""
    from monai.bundle import ConfigWorkflow  # seconds to import: only in the process that it is for

    torch.set_num_threads(threads)
    root = REPOSITORY / "bundles" / bundle
    workflow = ConfigWorkflow(
        [str(root / "configs" / name) for name in (f"{config}.json", *filter(None, [overlay]))],
        workflow_type="train" if config == "train" else "infer",
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(data),
        device="$torch.device('cpu')",
        **{key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
    )
    workflow.initialize()
    return workflow


def watched(workflow, engine: str, count: int) -> dict[str, str | float]:
    """Run a workflow and note after each iteration of an engine what the process holds."""
    from ignite.engine import Events

    samples: list[Sample] = []
    workflow.parser.get_parsed_content(engine).add_event_handler(
        Events.ITERATION_COMPLETED, lambda _: samples.append(sample())
    )
    begin = time.perf_counter()
    workflow.run()
    seconds = time.perf_counter() - begin
    return {
        "seconds_each": round(seconds / count, 3),
        "peak_memory_mib": round(peak_memory("cpu") / 2**20),
        **growth(samples),
    }


class Sample(NamedTuple):
    """What a process holds at one moment."""

    resident_kb: float
    heap_kb: float
    """In use, glibc's count; NaN elsewhere."""
    files: int


def sample() -> Sample:
    """Now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(pages * os.sysconf("SC_PAGE_SIZE") / 1024, heap_in_use() / 1024, len(os.listdir("/proc/self/fd")))


class Mallinfo2(ctypes.Structure):
    """glibc's ``struct mallinfo2``, see mallinfo(3)."""

    _fields_ = tuple((f"field_{k}", ctypes.c_size_t) for k in range(10))


def heap_in_use() -> float:
    """Bytes that are allocated and not freed, small (uordblks) and mapped (hblkhd)."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = Mallinfo2
        info = libc.mallinfo2()
    except AttributeError:  # not glibc, or one before 2.33
        return float("nan")
    return info.field_7 + info.field_4


def growth(samples: Sequence[Sample]) -> dict[str, str | float]:
    """Slopes by least squares and new open files, after the first hundred iterations."""
    if len(samples) <= WARM:
        return {"heap_growth_kb_each": "", "resident_growth_kb_each": "", "open_files_gained": ""}
    resident, heap, files = (np.array(column, dtype=float)[WARM:] for column in zip(*samples, strict=True))
    return {
        "heap_growth_kb_each": slope(heap),
        "resident_growth_kb_each": slope(resident),
        "open_files_gained": int(files[-1] - files[0]),
    }


def slope(values: np.ndarray) -> float:
    """Of a straight line through the values; NaN where they are."""
    return round(float(np.polyfit(np.arange(len(values)), values, 1)[0]), 3) if np.isfinite(values).all() else np.nan
