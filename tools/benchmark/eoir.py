"""How EOIR's accuracy, smoothness and cost change with encoder depth, width and smoothness weight.

The questions are those of the paper's Figure 4 (Dice against multiply-adds for 0 to 6 encoder layers) and of its
accuracy-smoothness trade-off. Every network is trained by the bundle's own configuration in a process of its own and
scored on the validation pairs; its row is on disk before the next one starts. ``report_eoir.py`` draws the csv.

Source: Chen et al., "Encoder-Only Image Registration", arXiv 2509.00451.
"""

import copy
import csv
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.errors import RegInputError, sentence_of

from ..repository import REPOSITORY, commit
from .measuring import apart, clock, device_name, file_name, summary

__all__ = ["Sweep", "benchmark_eoir", "multiply_adds", "settings"]

BUNDLE = REPOSITORY / "bundles" / "eoir"
KEY = (
    *("dataset", "grid", "encoder_depth", "channels", "smooth_weight", "steps", "overlays", "seed"),
    *("device", "torch", "threads", "commit"),
)
"""Columns that make two rows the same measurement."""
SETTING = ("encoder_depth", "channels", "smooth_weight")


class Setting(NamedTuple):
    """One network of a sweep; the columns of the same names. Without any it is the identity transform."""

    encoder_depth: int
    channels: int
    smooth_weight: float


class Sweep(NamedTuple):
    """What all networks of a sweep share; plain values, so that a process of its own can be handed it."""

    dataset_dir: str | None = None
    """Prepared data set; the bundle's phantom if None."""
    overlays: tuple[str, ...] = ()
    """Configurations laid over ``train.json``: names in the bundle's configs, or paths."""
    steps: int | None = None
    """Training steps; those of the configuration if None."""
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    work: str = str(BUNDLE / "eval" / "sweep")
    """Folder for every network's ``models/model.pt`` and TensorBoard curves."""


def benchmark_eoir(
    out: Path,
    sweep: Sweep,
    depths: Sequence[int] = (0, 1, 2, 3),
    widths: Sequence[int] = (4, 8, 16),
    smooth_weights: Sequence[float] = (0.1, 0.5, 1.0, 2.0),
    *,
    command: str,
    say: Callable[[str], None] = print,
) -> Path:
    """Train and score one EOIR per setting and append a row each; rows that are there already are not run again.

    A row is there already if the data set, the setting, steps, overlays, seed, device, torch, threads and commit agree;
    two trees with uncommitted changes on one commit count as the same.

    The network scored is the one after the last step, so nothing is chosen on the validation pairs. Times are of steps
    (forward, loss, backward, update) without the loading of data.

    Args:
        out: folder for ``eoir-<data set>-<device>-<stack>.csv``.
        sweep: what all settings share.
        depths: encoder layers, 0 to 6.
        widths: start channels N_s.
        smooth_weights: weights of the smoothness term, at the last depth and width.
        command: what to write in the ``command`` column.
        say: is handed a line for each row.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: settings or a data set that cannot be trained, before the first step of any.
    """
    check_sweep(sweep, depths, widths, smooth_weights)
    plan = apart(read_plan, sweep)
    sweep = sweep._replace(dataset_dir=plan["dataset_dir"], steps=plan["steps"])
    path = Path(out) / file_name(f"eoir-{slug(plan['dataset'])}", sweep.device, sweep.threads)
    done = read_rows(path)
    for setting in settings(depths, widths, smooth_weights, plan["smooth_weight"]):
        head = heading(sweep, plan, setting)
        if identity(head) in {identity(row) for row in done}:
            say(f"{name_of(setting)}: already in {path}")
            continue
        row = {**head, **apart(run_setting, sweep, setting), "command": command}
        done.append({key: str(value) for key, value in row.items()})
        append(path, row)
        say(f"{name_of(setting)}: Dice {row['dice']}, SDlogJ {row['sdlogj']}, {row['step_s_median']} s a step")
    return path


def settings(
    depths: Sequence[int], widths: Sequence[int], smooth_weights: Sequence[float], smooth_weight: float
) -> list[Setting | None]:
    """The identity (None), every depth with every width at the configuration's smoothness, then the other weights.

    Without an encoder the image itself is the one feature channel: depth 0 is one network, of one channel.
    """
    networks = [Setting(depth, width if depth else 1, smooth_weight) for depth in depths for width in widths]
    last = networks[-1]
    networks += [last._replace(smooth_weight=weight) for weight in smooth_weights]
    return [None, *dict.fromkeys(networks)]


def check_sweep(sweep: Sweep, depths: Sequence[int], widths: Sequence[int], smooth_weights: Sequence[float]) -> None:
    """Refuse before the first minute is spent."""
    if not depths or not all(0 <= depth <= 6 for depth in depths):
        raise RegInputError(f"depths are {list(depths)}; expected whole numbers from 0 to 6; correct them.")
    if not widths or not all(width > 0 for width in widths):
        raise RegInputError(f"widths are {list(widths)}; expected channels above 0; correct them.")
    if not all(weight >= 0 for weight in smooth_weights):
        raise RegInputError(f"smooth weights are {list(smooth_weights)}; expected numbers from 0; correct them.")
    if sweep.steps is not None and sweep.steps < 1:
        raise RegInputError(f"steps is {sweep.steps}; expected at least 1; train for some steps.")
    if sweep.device != "cpu" and not (sweep.device == "cuda" and torch.cuda.is_available()):
        raise RegInputError(f"device is {sweep.device!r}; expected 'cpu', or 'cuda' where torch sees one.")
    config_files(sweep)


def config_files(sweep: Sweep) -> list[str]:
    """``train.json`` and the overlays, as paths."""
    configs = BUNDLE / "configs"
    files = [configs / "train.json"]
    for overlay in sweep.overlays:
        found = [path for path in (configs / overlay, Path(overlay)) if path.is_file()]
        if not found:
            offered = sorted(path.name for path in configs.glob("*.json"))
            raise RegInputError(f"there is no overlay '{overlay}'; expected a file or one of {', '.join(offered)}.")
        files.append(found[0])
    return [str(file) for file in files]


def read_plan(sweep: Sweep) -> dict:
    """What the configuration and the data set say: name, grid's spacing, steps and smoothness; makes the phantom."""
    parser = ConfigParser()
    parser.read_config(config_files(sweep))
    parser.update({"bundle_root": str(BUNDLE)} | ({"dataset_dir": sweep.dataset_dir} if sweep.dataset_dir else {}))
    header = understood(lambda: parser.get_parsed_content("header"))
    an_epoch = int(parser.get_parsed_content("steps_per_epoch"))
    steps = sweep.steps or an_epoch * int(parser.get_parsed_content("max_epochs"))
    if steps % an_epoch:
        raise RegInputError(f"steps is {steps}; expected a multiple of the configuration's {an_epoch} an epoch.")
    dataset = parser.get_parsed_content("train::dataset")
    if len(dataset) != an_epoch:
        raise RegInputError(
            f"an epoch has {len(dataset)} pairs, expected {an_epoch}, the configuration's steps_per_epoch; use an "
            "overlay with random pairs."
        )
    return {
        "dataset": header["name"],
        "dataset_dir": str(Path(parser.get_parsed_content("dataset_dir")).absolute()),
        "grid": size_text(dataset[0]["fixed"].shape[1:]),
        "spacing_mm": size_text(header["spacing_mm"]),
        "smooth_weight": float(parser.get_parsed_content("smooth_weight")),
        "steps": steps,
    }


def understood(make: Callable):
    """What ``make`` returns; of a chain of errors the sentence, because the chain does not cross processes."""
    try:
        return make()
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        raise RegInputError(sentence) from None


def heading(sweep: Sweep, plan: dict, setting: Setting | None) -> dict:
    """The first columns of a row: what is measured, and on what."""
    columns = setting._asdict() if setting else dict.fromkeys(SETTING, "")
    return {
        "dataset": plan["dataset"],
        "grid": plan["grid"],
        "spacing_mm": plan["spacing_mm"],
        **columns,
        "steps": sweep.steps if setting else 0,
        "overlays": "+".join(Path(overlay).stem for overlay in sweep.overlays),
        "seed": sweep.seed if setting else "",
        "device": device_name(sweep.device),
        "torch": torch.__version__,
        "threads": sweep.threads,
        "commit": commit(),
    }


def identity(row: dict) -> tuple[str, ...]:
    """What makes a row the same measurement as another, read from a csv or not."""
    return tuple(str(row[key]) for key in KEY)


def name_of(setting: Setting | None) -> str:
    """``d3-c8-s0.5``, or ``identity``."""
    return f"d{setting.encoder_depth}-c{setting.channels}-s{setting.smooth_weight:g}" if setting else "identity"


def run_setting(sweep: Sweep, setting: Setting | None) -> dict[str, str | float]:
    """Scores, cost and times of one setting; alters the process's settings."""
    torch.set_num_threads(sweep.threads)
    folder = folder_of(sweep, setting)
    shutil.rmtree(folder, ignore_errors=True)  # an earlier, interrupted run of the same
    workflow = workflow_of(sweep, setting, folder)
    if setting is None:
        return score_identity(workflow.parser)
    return understood(lambda: train_and_score(workflow.parser, sweep.device))


def folder_of(sweep: Sweep, setting: Setting | None) -> Path:
    """Where one network's weights and curves go: ``<work>/malc-half-resolution-d3-c8-s0.5-1200steps-seed0``."""
    names = [Path(sweep.dataset_dir).name, *(Path(overlay).stem for overlay in sweep.overlays)]
    return Path(sweep.work) / f"{slug(' '.join(names))}-{name_of(setting)}-{sweep.steps}steps-seed{sweep.seed}"


def workflow_of(sweep: Sweep, setting: Setting | None, folder: Path) -> ConfigWorkflow:
    """The bundle's training, set up for one setting; one validation, after the last step."""
    overrides = {
        "bundle_root": str(BUNDLE),
        "dataset_dir": sweep.dataset_dir,
        "ckpt_dir": str(folder / "models"),
        "output_dir": str(folder),
        "device": f"$torch.device('{sweep.device}')",
        "seed": sweep.seed,
        "check_files": False,  # read_plan has
    }
    if setting:
        parser = ConfigParser()
        parser.read_config(config_files(sweep))
        epochs = sweep.steps // int(parser.get_parsed_content("steps_per_epoch"))
        overrides |= {
            "network_def::encoder_depth": setting.encoder_depth,
            "channels": setting.channels,
            "smooth_weight": setting.smooth_weight,
            "max_epochs": epochs,
            "val_interval": epochs,
        }
    workflow = ConfigWorkflow(config_files(sweep), logging_file=False, workflow_type="train", **overrides)
    understood(workflow.initialize)
    return workflow


def train_and_score(parser: ConfigParser, device: str) -> dict[str, str | float]:
    """Train, validate and count one network."""
    trainer = parser.get_parsed_content("train::trainer")
    evaluator = parser.get_parsed_content("validate::evaluator")
    network = parser.get_parsed_content("network_def")
    size = parser.get_parsed_content("validate::dataset")[0]["fixed"].shape[1:]
    times = StepTimes(device)
    times.attach(trainer)
    started = clock(device)
    trainer.run()
    seconds = clock(device) - started
    metrics = evaluator.state.metrics
    return {
        "pairs": len(parser.get_parsed_content("validate::dataset")),
        "dice": round(metrics["val_dice"], 5),
        "sdlogj": round(metrics["val_sdlogj"], 5),
        "ndv_percent": round(metrics["val_ndv"], 6),
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds_g": round(multiply_adds(network, size) / 1e9, 4),
        **summary("step_s", times.seconds),
        "total_s": round(seconds, 1),
    }


def score_identity(parser: ConfigParser) -> dict[str, str | float]:
    """The row without a transform: the Dice that a registration starts from."""
    dataset, metric = (parser.get_parsed_content(f"validate::{part}") for part in ("dataset", "key_metric::val_dice"))
    for pair in dataset:
        pair = {key: value.as_subclass(torch.Tensor) for key, value in pair.items() if isinstance(value, torch.Tensor)}
        size = pair["fixed"].shape[1:]
        metric.update([{"pred": torch.zeros(len(size), *size), "label": pair}])
    scores = {"pairs": len(dataset), "dice": round(metric.compute(), 5)}
    zeros = ("sdlogj", "ndv_percent", "parameters", "multiply_adds_g", "step_s_median", "step_s_iqr", "total_s")
    return scores | dict.fromkeys(zeros, 0)


class StepTimes:
    """Seconds of every training step, from the batch in hand to the updated weights."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: list[float] = []
        self.start = 0.0

    def attach(self, engine: Engine) -> None:
        """Watch every step of ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end)

    def _begin(self, engine: Engine) -> None:
        self.start = clock(self.device)

    def _end(self, engine: Engine) -> None:
        self.seconds.append(clock(self.device) - self.start)


def multiply_adds(network: nn.Module, size: Sequence[int]) -> int:
    """Multiplications with an addition in the convolutions of one registration.

    The encoder counts twice, once an image. Warps, normalizations, activations and resampling are not counted, nor are
    they in the paper's numbers, which count the biases besides (0.4 percent at 8 channels). Nothing is computed: the
    network is counted on torch's meta device.

    Args:
        network: maps an image pair (1, 2, *S) to a ddf.
        size: S.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copy.deepcopy(network).to("meta")(torch.empty(1, 2, *size, device="meta"))
    return counter.get_total_flops() // 2


def read_rows(path: Path) -> list[dict[str, str]]:
    """The finished rows of a csv; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not set(KEY) <= set(rows[0]):
        raise RegInputError(f"{path} has the columns {sorted(rows[0])}, expected {sorted(KEY)}; move it away.")
    return rows


def append(path: Path, row: dict) -> None:
    """Add one row in one write, so that two sweeps may share a file; a new file begins with the names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def size_text(size: Sequence[float]) -> str:
    """``80x80x96``."""
    return "x".join(f"{side:g}" for side in size)


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
