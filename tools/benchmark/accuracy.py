"""Every bundle of the collection on the same pairs of one data set, each trained for the same time on the same device.

Networks are trained by their bundles' own ``train.json`` until the time is over, then registered and scored by
``regbundles evaluate`` on pairs that no training saw; bundles that optimise a pair, and the prepared images as they
are, are scored without one. What is finished is not done again. ``report_accuracy.py`` tables it.
"""

import csv
import os
import re
import resource
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ignite.engine import Events
from ignite.handlers import TimeLimit
from monai.bundle import ConfigParser, ConfigWorkflow

from common.errors import RegInputError

from ..evaluate import evaluate
from ..repository import REPOSITORY, commit
from .eoir import append, slug, understood
from .measuring import apart, check_device, clock, device_name, file_name, peak_memory, start_memory
from .network_variants import VARIANTS, Variant

__all__ = ["METHODS", "Method", "Terms", "benchmark_accuracy", "methods_of"]

FOREVER = 10**6
"""Epochs; the time ends a training before."""
TRIAL_STEPS = 8
"""Of each stage, to see how many of them fit into the time; a network in stages has epochs of that many."""
START = "as prepared"
TRAINED = ("VoxelMorph-1", "VoxelMorph-2", "LKU-Net 8,5", "TransMorph", "SYMNet", "EOIR 8", "Patch FCN small")
OPTIMISED = {"SVF": Variant("svf", {}), "NCF": Variant("ncf", {})}
METHODS = (START, *OPTIMISED, *TRAINED)
SMOOTHNESS = {"SVF": "divergence_weight", **dict.fromkeys(VARIANTS, "smooth_weight")}
"""Which value of a bundle's configuration trades overlap for smoothness."""
SCORES = ("dice", "sdlogj", "ndv_percent", "seconds")


class Method(NamedTuple):
    """One line of the table: a network, or a bundle without one, and how much smoothness weighs."""

    name: str
    weight: float | None = None
    """Of what ``SMOOTHNESS`` names; None keeps the configuration's."""

    @property
    def setting(self) -> str:
        """``smooth_weight 0.5``; empty for the configuration's own."""
        return "" if self.weight is None else f"{SMOOTHNESS[self.name]} {self.weight:g}"

    @property
    def title(self) -> str:
        """For people, and as a folder's name after :func:`slug`."""
        return f"{self.name} {self.setting}".strip()

    @property
    def variant(self) -> Variant:
        """Its bundle and settings, smoothness included."""
        found = OPTIMISED.get(self.name) or VARIANTS[self.name]
        weight = {} if self.weight is None else {SMOOTHNESS[self.name]: self.weight}
        return Variant(found.bundle, {**found.settings, **weight})


class Terms(NamedTuple):
    """What all methods share; plain values, so that a process of its own can be handed it."""

    dataset_dir: str
    section: str = "testing"
    minutes: float = 30.0
    """Of every training, validation not counted in."""
    learning_rate: float = 0.0004
    batch_size: int = 1
    roi_size: tuple[int, ...] | None = None
    """Center of the training grid that is trained on, voxels; all of it if None."""
    seed: int = 0
    threads: int = 2
    device: str = "cpu"


def methods_of(
    names: Sequence[str], smooth_weights: Sequence[float | None], svf_weights: Sequence[float | None] = (None,)
) -> list[Method]:
    """A line for every weight of every network and of SVF; one for what has none."""
    weights = {"SVF": svf_weights, **dict.fromkeys(VARIANTS, smooth_weights)}
    return [Method(name, weight) for name in names for weight in weights.get(name, (None,))]


def benchmark_accuracy(
    out: Path,
    terms: Terms,
    methods: Sequence[Method],
    *,
    work: Path,
    command: str,
    say: Callable[[str], None] = print,
) -> Path:
    """Train and score what is not in the csv yet, a row a method and pair.

    Args:
        out: folder for ``accuracy-<data set>-<device>-<stack>.csv``.
        terms: what all share.
        methods: the lines of the table.
        work: folder for weights and registrations, kept.
        command: what to write in the ``command`` column.
        say: is handed a line for each method.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: an unknown method, no time, no such device, or a data set that cannot be used.
    """
    check_device(terms.device)
    unknown = [method.name for method in methods if method.name not in {*METHODS, *VARIANTS}]
    if unknown or terms.minutes <= 0:
        raise RegInputError(
            f"got the methods {unknown} and {terms.minutes} minutes; expected some of {'; '.join(METHODS)} and a time "
            "above 0."
        )
    name = slug(Path(terms.dataset_dir).name)
    path = Path(out) / file_name(f"accuracy-{name}", terms.device, terms.threads)
    done = {(row["method"], row["setting"]) for row in read_rows(path)}
    for method in methods:
        if (method.name, method.setting) in done:
            say(f"{method.title}: already in {path}")
            continue
        for row in rows_of(method, terms, Path(work) / slug(method.title)):
            append(path, {**row, "command": command})
        say(f"{method.title}: scored")
    return path


def rows_of(method: Method, terms: Terms, folder: Path) -> list[dict[str, str | float]]:
    """Train where there is something to train, register, and score every pair."""
    training = {"steps": 0, "training_s": 0.0, "training_memory_mib": 0.0, "parameters": 0}
    if method.name in VARIANTS:
        training = apart(train, method, terms, str(folder))
    stack = {"device": device_name(terms.device), "torch": torch.__version__, "threads": terms.threads}
    common = {**training, **stack, "seed": terms.seed, "commit": commit()}
    pairs = apart(score, method, terms, str(folder))
    return [{"method": method.name, "setting": method.setting, **pair, **common} for pair in pairs]


def train(method: Method, terms: Terms, folder: str) -> dict[str, float]:
    """Train until the time is over; weights go to ``folder/models``. Alters the process's settings."""
    torch.set_num_threads(terms.threads)
    workflow = training_of(method, terms, folder, **stage_lengths(method, terms, folder))
    trainer = workflow.parser.get_parsed_content("train::trainer")
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    before = start_memory(terms.device)
    limit = TimeLimit(round(60 * terms.minutes))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, limit)
    started = clock(terms.device)
    understood(trainer.run)
    seconds, peak = clock(terms.device) - started, peak_memory(terms.device) - before
    evaluator.run()  # writes last.pt, and the grid that it was trained on
    network = workflow.parser.get_parsed_content("network_def")
    return {
        "steps": trainer.state.iteration,
        "training_s": round(seconds, 1),
        "training_memory_mib": round(peak / 2**20, 1),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def stage_lengths(method: Method, terms: Terms, folder: str) -> dict[str, int]:
    """Values with which the stages of a network that is trained in stages are equally many steps and fill the time.

    Two epochs of each stage are tried for that, which the training does not count: in its first one a stage may ask the
    earlier ones for every pair, whose answers are kept.
    """
    train = config_of(method, "train.json")
    if "stages" not in train:
        return {}
    lengths = {"steps_per_epoch": TRIAL_STEPS, "stage_epochs": 2}
    trial = training_of(method, terms, str(Path(folder, "trial")), **lengths, max_epochs=2 * train["stages"])
    trainer, ticks = trial.parser.get_parsed_content("train::trainer"), []
    for event in (Events.STARTED, Events.EPOCH_COMPLETED):
        trainer.add_event_handler(event, lambda: ticks.append(time.perf_counter()))
    understood(trainer.run)
    seconds = [after - before for before, after in pairwise(ticks)]
    first, second = sum(seconds[::2]), sum(seconds[1::2])
    return {**lengths, "stage_epochs": max(1, int((60 * terms.minutes - first) / second) + 1)}


def training_of(method: Method, terms: Terms, folder: str, **lengths: int) -> ConfigWorkflow:
    """The bundle's training on the shared terms, without validation on its way."""
    bundle = REPOSITORY / "bundles" / method.variant.bundle
    overrides: dict[str, Any] = {
        "bundle_root": str(bundle),
        "dataset_dir": terms.dataset_dir,
        "ckpt_dir": str(Path(folder) / "models"),
        "output_dir": folder,
        "device": f"$torch.device('{terms.device}')",
        "seed": terms.seed,
        "learning_rate": terms.learning_rate,
        "batch_size": terms.batch_size,
        "max_epochs": FOREVER,
        "val_interval": FOREVER,
        "checkpoint_interval": FOREVER,
        **method.variant.settings,
        **lengths,
    }
    if terms.roi_size is not None:
        crop = {"_target_": "CenterSpatialCropd", "keys": "@subject_keys", "roi_size": list(terms.roi_size)}
        overrides["train::preprocessing::transforms"] = [
            *config_of(method, "train.json").get()["train"]["preprocessing"]["transforms"],
            {**crop, "allow_missing_keys": True},
        ]
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"), logging_file=False, workflow_type="train", **overrides
    )
    understood(workflow.initialize)
    return workflow


def config_of(method: Method, name: str) -> ConfigParser:
    """One of the bundle's configurations, as it is written."""
    parser = ConfigParser()
    parser.read_config(str(REPOSITORY / "bundles" / method.variant.bundle / "configs" / name))
    return parser


def score(method: Method, terms: Terms, folder: str) -> list[dict[str, str | float]]:
    """A row a pair from ``regbundles evaluate``, with the peak memory of the process that registered, all in all.

    Alters the process's environment: bundles are run in processes of their own, which take their threads from it.
    """
    os.environ |= {name: str(terms.threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    scores = Path(folder, "scores")
    name = re.sub("[^A-Za-z0-9]+", "-", method.title)
    source, overrides = source_of(method, terms, Path(folder))
    named = [f"{name}:{key}={value}" for key, value in overrides.items()]
    evaluate(terms.dataset_dir, terms.section, [f"{name}={source}"], str(scores), overrides=named)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if source != "none" else 0
    with (scores / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {"pair": row["pair"], **{key: row[key] for key in SCORES}, "registration_memory_mib": round(peak, 1)}
        for row in rows
    ]


def source_of(method: Method, terms: Terms, folder: Path) -> tuple[str, dict[str, Any]]:
    """What ``regbundles evaluate`` takes as the method's source, and its values by id."""
    if method.name == START:
        return "none", {}
    inference = config_of(method, "inference.json")
    known = {key: value for key, value in method.variant.settings.items() if key in inference}  # the rest is training's
    values = {**known, "device": terms.device}
    if method.name in VARIANTS:
        values["ckpt_path"] = str((folder / "models" / "last.pt").absolute())
    return str(REPOSITORY / "bundles" / method.variant.bundle), values


def read_rows(path: Path) -> list[dict[str, str]]:
    """The finished rows; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
