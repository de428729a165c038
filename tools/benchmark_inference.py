"""What one registration by a bundle needs: peak memory and seconds, and whether many of them leak.

Every row is a process of its own that runs the bundle's ``inference.json`` on phantom pairs, reading, resampling and
writing included. Weights are random: they change neither time nor memory.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from common.checkpoint import save_checkpoint
from common.errors import RegInputError
from common.phantom import write_phantom

from .benchmark import REPOSITORY, apart, commit, device_name, file_name, peak_memory, write

__all__ = ["benchmark_inference"]

WARM = 100  # registrations before memory is watched


def benchmark_inference(
    out: Path,
    bundle: str = "eoir",
    size: tuple[int, ...] = (160, 192, 224),
    overlays: Sequence[str] = ("", "half_resolution.json"),
    repeats: int = 500,
    *,
    threads: int = 1,
    command: str,
    say: Callable[[str], None] = print,
) -> Path:
    """Measure one registration at ``size`` with each overlay, then the growth of memory over many at 32 voxels a side.

    Args:
        out: folder for the csv, whose name tells device and stack.
        bundle: folder under bundles/.
        size: spatial size of the large pair.
        overlays: configs over inference.json, each measured; "" is none.
        repeats: registrations of the small pair, 200 or more; 0 leaves that row out.
        threads: of torch.
        command: what to write in the ``command`` column.
        say: gets a line after each row.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: for an unknown bundle or overlay, or too few repeats.
    """
    configs = REPOSITORY / "bundles" / bundle / "configs"
    lacking = [name for name in ("inference.json", *filter(None, overlays)) if not (configs / name).is_file()]
    if lacking or 0 < repeats < 2 * WARM:
        raise RegInputError(
            f"{lacking or 'no file'} missing in {bundle}/configs and {repeats} repeats, expected a bundle and "
            f"{2 * WARM} repeats or more, or 0; correct them."
        )
    stack = {"device": device_name("cpu"), "torch": torch.__version__, "threads": threads, "commit": commit()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        cases = [(size, overlay, 1) for overlay in overlays] + ([((32, 32, 32), "", repeats)] if repeats else [])
        for index, (side, overlay, count) in enumerate(cases):
            data = make_pair(work / "x".join(map(str, side)), side)
            row = apart(register, bundle, overlay, data, count, threads, work / f"case_{index}")
            rows.append({"bundle": bundle, "overlay": Path(overlay).stem, **row, **stack, "command": command})
            say(", ".join(f"{key} {value}" for key, value in list(rows[-1].items())[:8]))
    return write(Path(out) / file_name(f"inference-{bundle}", "cpu", threads), rows)


def make_pair(folder: Path, size: tuple[int, ...]) -> Path:
    """A data set with one pair to register; one that is there already stays."""
    if (folder / "datalist.json").is_file():
        return folder
    return write_phantom(folder, subjects=2, size=size, validation_pairs=0, testing_pairs=1).parent


def register(bundle: str, overlay: str, data: Path, count: int, threads: int, work: Path) -> dict[str, str | float]:
    """Register a data set's pair ``count`` times in one engine run; alters the process's settings."""
    from ignite.engine import Events
    from monai.bundle import ConfigWorkflow

    torch.set_num_threads(threads)
    root = REPOSITORY / "bundles" / bundle
    weights = work / "model.pt"
    files = [str(root / "configs" / name) for name in ("inference.json", *filter(None, [overlay]))]
    workflow = ConfigWorkflow(
        files,
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(root),
        dataset_dir=str(data),
        output_dir=str(work / "out"),
        ckpt_path=str(weights),
        device="$torch.device('cpu')",
    )
    workflow.initialize()
    parser = workflow.parser
    save_checkpoint(parser.get_parsed_content("network_def").state_dict(), weights)
    parser.get_parsed_content("dataset").data *= count
    samples: list[tuple[float, int]] = []

    def note(engine) -> None:
        status = Path("/proc/self/status").read_text()
        samples.append((float(re.search(r"VmRSS:\s+(\d+) kB", status)[1]), len(os.listdir("/proc/self/fd"))))

    parser.get_parsed_content("evaluator").add_event_handler(Events.ITERATION_COMPLETED, note)
    begin = time.perf_counter()
    workflow.run()
    seconds = time.perf_counter() - begin
    return {
        "size": data.name,
        "registrations": count,
        "seconds_each": round(seconds / count, 3),
        "peak_memory_mib": round(peak_memory("cpu") / 2**20),
        **growth(samples),
    }


def growth(samples: Sequence[tuple[float, int]]) -> dict[str, str | float]:
    """Slope of resident memory by least squares and new open files, after the first hundred registrations."""
    if len(samples) <= WARM:
        return {"growth_kb_each": "", "open_files_gained": ""}
    resident, files = (np.array(column, dtype=float)[WARM:] for column in zip(*samples, strict=True))
    slope = np.polyfit(np.arange(len(resident)), resident, 1)[0]
    return {"growth_kb_each": round(float(slope), 3), "open_files_gained": int(files[-1] - files[0])}
