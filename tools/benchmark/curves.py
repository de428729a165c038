"""Whether the form of LNCC alters a training: VoxelMorph-1's loss, step by step, from one seed by each of them.

Rounding alone makes two trainings part after some dozens of steps, so that the first form is run twice: the second time
from weights that are all one float32 larger. Forms that differ no more than these two do not alter the training. The
runs are the bundle's own ``train.json``, on the phantom unless a data set is named, each in a process of its own.

Source: X. Jia et al., doi:10.20944/preprints202502.2200.v1, whose claim is that results are not affected.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.bundle import ConfigWorkflow
from monai.utils.enums import CommonKeys as Keys

from common.errors import RegInputError
from common.report import save_figure

from ..repository import REPOSITORY, commit
from .epoch import BACKENDS
from .measuring import apart, check_device, device_name, file_name, write
from .network_variants import VARIANTS

__all__ = ["benchmark_curves", "largest_difference"]

NETWORK = "VoxelMorph-1"
NUDGED = "nudged"
"""Column of the first form's second run."""
STEPS_PER_EPOCH = 8


def benchmark_curves(
    out: Path,
    steps: int = 200,
    *,
    dataset_dir: str | None = None,
    backends: Sequence[str] = BACKENDS,
    threads: int = 2,
    device: str = "cpu",
    work: Path,
    command: str = "",
    **settings: Any,
) -> Path:
    """Train with every form of the loss and write a row a step, a column a run; draw the curves beside the csv.

    Args:
        out: folder for ``curves-<device>-<stack>.csv`` and ``.png``.
        steps: of each training, a multiple of 8.
        dataset_dir: prepared data set; the bundle's phantom if None.
        backends: of :func:`common.lncc.lncc`; the first one is what the others are compared with.
        threads: of torch.
        device: "cpu" or "cuda".
        work: folder for what the trainings write.
        command: what to write in the ``command`` column.
        settings: further values of ``train.json`` by id.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: if ``steps`` is no multiple of an epoch's, or no such device.
    """
    if steps < 1 or steps % STEPS_PER_EPOCH:
        raise RegInputError(f"steps is {steps}; expected a multiple of {STEPS_PER_EPOCH}, the pairs of an epoch.")
    check_device(device)
    if dataset_dir:
        settings["dataset_dir"] = dataset_dir
    losses = {
        name: apart(losses_of, b, steps, threads, device, str(work / name), settings, up)
        for name, b, up in runs_of(backends)
    }
    stack = {"device": device_name(device), "torch": torch.__version__, "threads": threads}
    stack |= {"commit": commit(), "command": command}
    path = write(Path(out) / file_name("curves", device, threads), [{**row, **stack} for row in curve_rows(losses)])
    save_figure(curve_figure(losses, stack), path.with_suffix(".png"))
    return path


def runs_of(backends: Sequence[str]) -> list[tuple[str, str, bool]]:
    """A column, the form of the loss and whether its weights are nudged, for every training."""
    return [*((backend, backend, False) for backend in backends), (NUDGED, backends[0], True)]


def curve_rows(losses: dict[str, list[float]]) -> list[dict]:
    """A row a step."""
    columns = zip(*losses.values(), strict=True)
    return [
        {"step": k + 1, **dict(zip(losses, values, strict=True)), "network": NETWORK}
        for k, values in enumerate(columns)
    ]


def losses_of(
    backend: str, steps: int, threads: int, device: str, work: str, settings: dict[str, Any], nudged: bool = False
) -> list[float]:
    """The loss of every step, from weights all one float32 larger if ``nudged``; alters the process's settings."""
    torch.set_num_threads(threads)
    variant = VARIANTS[NETWORK]
    bundle = REPOSITORY / "bundles" / variant.bundle
    epochs = steps // STEPS_PER_EPOCH
    places = {"bundle_root": str(bundle), "ckpt_dir": f"{work}/models", "output_dir": work}
    length = {"steps_per_epoch": STEPS_PER_EPOCH, "batch_size": 1, "max_epochs": epochs, "val_interval": epochs}
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"),
        logging_file=False,
        workflow_type="train",
        **{
            **places,
            **length,
            "device": f"$torch.device('{device}')",
            **variant.settings,
            **settings,
            "lncc_backend": backend,
        },
    )
    workflow.initialize()
    if nudged:
        nudge(workflow.parser.get_parsed_content("network"))
    trainer = workflow.parser.get_parsed_content("train::trainer")
    losses: list[float] = []

    def note(engine: Engine) -> None:
        losses.append(float(engine.state.output[0][Keys.LOSS]))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, note)
    workflow.run()
    workflow.finalize()
    return losses


@torch.no_grad()
def nudge(network: torch.nn.Module) -> None:
    """Replace every weight by the next larger number of its type."""
    for weight in network.parameters():
        weight.copy_(torch.nextafter(weight, torch.full_like(weight, torch.inf)))


def largest_difference(losses: Sequence[float], others: Sequence[float]) -> float:
    """Largest difference of two curves at a step, relative to the first one's value there."""
    return max(abs(a - b) / abs(a) for a, b in zip(losses, others, strict=True))


def curve_figure(losses: dict[str, list[float]], stack: dict) -> Figure:
    """Above the curves, which lie on one another where nothing is altered; below their distance from the first one."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    (reference, first), *others = losses.items()
    steps = range(1, len(first) + 1)
    for width, (name, values) in zip((5, 3, 1.5, 0.7), losses.items(), strict=False):
        above.plot(steps, values, label=name, linewidth=width, alpha=0.8)
    for name, values in others:
        difference = [max(abs(a - b) / abs(a), 1e-9) for a, b in zip(first, values, strict=True)]
        below.semilogy(steps, difference, label=f"{name} against {reference}", linewidth=1)
    above.set_ylabel("loss")
    below.set_ylabel("relative difference")
    below.set_xlabel("step")
    above.set_title(f"{NETWORK}, {stack['device']}, torch {stack['torch']}, one seed", fontsize=9)
    above.legend(fontsize=8)
    if others:
        below.legend(fontsize=8)
    return figure
