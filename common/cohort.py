"""Many pairs: what is finished is skipped, what fails is told at the end, and the rest is registered.

The pieces stand around MONAI's evaluator: :class:`PreparePairs` is the data set's transform, :class:`PairEvaluator` the
engine, :class:`SummarizeRegistrations` a handler.
"""

import csv
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.transforms import Compose, LoadImaged

from .datalist import check_datalist
from .errors import RegEnvError, RegInputError, RegNumericsError, first_line, mendable
from .files import remove_leftovers, save_atomically
from .fingerprint import file_fingerprint, fingerprint
from .geometry import spatial_affine
from .inference import AlignAffined, ExtractBraind
from .outputs import SaveRegistrationd, matching
from .points import read_points
from .quality import STATES
from .stopwatch import Stopwatch, now
from .transform_files import check_orthonormal
from .volumes import open_volume, spatial_size

__all__ = ["FAILURES", "FailedPair", "PairEvaluator", "PreparePairs", "SummarizeRegistrations", "write_failures"]

logger = logging.getLogger(__name__)

STEPS = {LoadImaged: "read", ExtractBraind: "extract", AlignAffined: "align"}  # what else there is prepares the image
KINDS = {kind.exit_status: kind for kind in (RegInputError, RegEnvError, RegNumericsError)}

FAILURES = "failures.csv"


class FailedPair(NamedTuple):
    """A pair that was not registered, as :data:`FAILURES` has it.

    Attributes:
        pair: name of the folder that its results would have.
        fixed: name of the image file.
        moving: likewise.
        sentence: why.
    """

    pair: str
    fixed: str
    moving: str
    sentence: str

    @property
    def name(self) -> str:
        """What it is called in a message."""
        return f"{self.moving} -> {self.fixed}"


class PreparePairs:
    """Preprocessing of a pair's paths that never raises: the item says what is wrong, or that nothing is left to do.

    Args:
        transform: what loads the pair and makes the network's image of it.
        save: says which pairs are finished.
        depends_on: what a result depends on besides the files: the network, its weights' file, settings. Looked at when
            a pair is asked for, so that weights are loaded by then.
    """

    def __init__(self, transform: Callable, save: SaveRegistrationd, depends_on: Sequence[Any] = ()) -> None:
        self.transform = transform
        self.save = save
        self.depends_on = tuple(depends_on)

    def __call__(self, pair: Mapping[str, str]) -> dict:
        """The transformed pair with ``fingerprint`` and ``seconds_by_step``; or ``failed`` with a sentence; or
        ``finished``. But for the last it has ``folder``, the name of its results'."""
        named = {"folder": self.save.folder_of(pair).name}
        try:
            check_datalist([dict(pair)])
            check_fixed_grid(pair["fixed"])
            check_points(pair, self.save.points_space)
            key = self._fingerprint(pair)
            if self.save.finished(pair, key):
                logger.info("%s: finished before, nothing to do", self.save.folder_of(pair))
                return {"finished": True}
            watch = Stopwatch()
            item = self._transformed(dict(pair), watch)
            return {**item, **named, "fingerprint": key, "seconds_by_step": watch.seconds}
        except Exception as error:
            return {**failure(error), **named, **{role: Path(pair[role]).name for role in ("fixed", "moving")}}

    def _transformed(self, item: dict, watch: Stopwatch) -> dict:
        """What the transform makes of an item, its parts timed."""
        if not isinstance(self.transform, Compose):
            with watch.step("prepare"):
                return self.transform(item)
        for part in self.transform.transforms:
            with watch.step(STEPS.get(type(part), "prepare")):
                item = Compose([part])(item)
        return item

    def _fingerprint(self, pair: Mapping[str, str]) -> str:
        files = {key: file_fingerprint(path) for key, path in sorted(pair.items()) if key != "name"}
        return fingerprint(files, self.transform, self.save.settings, *self.depends_on)


class PairEvaluator(SupervisedEvaluator):
    """MONAI's evaluator over the items of :class:`PreparePairs`; a pair that fails does not end the run.

    After the last pair, and after its handlers, :meth:`run` raises what failed, in one sentence.
    """

    def run(self, global_epoch: int = 1) -> None:
        """Register every pair.

        Args:
            global_epoch: as in MONAI.

        Raises:
            RegError: of the first failure's kind, if any pair failed.
        """
        self.failures: list[FailedPair] = []
        self.status = RegInputError.exit_status  # of the first failure
        super().run(global_epoch)
        if not self.failures:
            return
        kind = KINDS.get(self.status, RegInputError)
        total = self.state.epoch_length
        if len(self.failures) == total and len({pair.sentence for pair in self.failures}) == 1:
            raise kind(self.failures[0].sentence)  # one pair, or settings that suit none
        listed = " ".join(f"({k}) {pair.name}: {pair.sentence}" for k, pair in enumerate(self.failures, 1))
        raise kind(f"{len(self.failures)} of {total} pairs failed, expected none; the others are done: {listed}")

    def _iteration(self, engine: SupervisedEvaluator, batchdata: dict) -> dict:
        if "finished" in batchdata:
            return {}
        if "failed" in batchdata:
            words = (batchdata[key][0] for key in ("folder", "fixed", "moving", "failed"))
            return self._fail(FailedPair(*words), int(batchdata["status"][0]))
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:
            what = failure(error)
            names = (Path(batchdata[role].meta["filename_or_obj"][0]).name for role in ("fixed", "moving"))
            return self._fail(FailedPair(batchdata["folder"][0], *names, what["failed"]), what["status"])

    def _fail(self, pair: FailedPair, status: int) -> dict:
        self.status = self.status if self.failures else status
        self.failures.append(pair)
        if self.state.epoch_length > 1:  # of a single pair it is what the run ends with
            logger.error("%s: %s", pair.name, pair.sentence)
        return {}


def check_fixed_grid(path: str) -> None:
    """Raise RegInputError, before any work, if ITK could not read results on the grid of the fixed image."""
    image = open_volume(path)
    try:
        check_orthonormal(spatial_affine(image.affine, len(spatial_size(image.shape))))
    except RegInputError as error:
        raise RegInputError(f"{path} cannot be the fixed image: {error}") from error


def check_points(pair: Mapping[str, str], space: str | None) -> None:
    """Raise RegInputError, before any work, if a pair's landmarks cannot be read or are not as many."""
    found = {key: read_points(pair[key], space) for key in ("fixed_points", "moving_points") if key in pair}
    if len(found) == 2:
        matching(found["moving_points"], found["fixed_points"], pair)


def failure(error: Exception) -> dict:
    """What is told of an error: its sentence, or its kind and first line, and the exit status that it stands for."""
    found = mendable(error)
    if found is not None:
        return {"failed": str(found), "status": found.exit_status}
    logger.error("a pair failed", exc_info=error)  # nobody foresaw it: where it happened matters
    return {"failed": f"{type(error).__name__}: {first_line(error)}", "status": 1}


class SummarizeRegistrations:
    """Handler that writes ``metrics.csv``, a row a pair and one of means, when all pairs are done.

    Pairs that failed stand in ``failures.csv`` beside it, a row each; without any there is no such file. What killed
    runs left beside the results goes then. The column ``seconds`` is the network's time for a pair, reading,
    resampling, writing and the self-check's further starts left out; pairs finished before have none.

    Args:
        save: the :class:`common.outputs.SaveRegistrationd` that saw the pairs, one a batch.
    """

    def __init__(self, save: SaveRegistrationd) -> None:
        self.save = save
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Time every forward pass; write when the engine is done."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)
        engine.add_event_handler(Events.COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self.started = now()

    def _stop(self, engine: Engine) -> None:
        spent = getattr(engine.inferer, "starts_seconds", 0.0)
        self.save.starts_seconds, self.save.seconds = spent, now() - self.started - spent

    def __call__(self, engine: Engine) -> None:
        """Write the tables and log the means."""
        rows, folder = self.save.rows, self.save.output_dir
        remove_leftovers(folder.parent if self.save.own_folder else folder)
        if self.save.own_folder:  # one pair's own folder holds its own scores
            return
        write_failures(getattr(engine, "failures", ()), folder / FAILURES)
        if not rows:
            return
        columns = list(dict.fromkeys(key for row in rows for key in row))
        numbers = [key for key in columns if key not in ("fixed", "moving", "verdict", "reasons")]
        means = {key: mean_of(row.get(key) for row in rows) for key in numbers}

        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows([*rows, {"fixed": "mean", **means}])

        path = folder / "metrics.csv"
        save_atomically(write, path)
        states = Counter(row["verdict"] for row in rows if "verdict" in row)
        told = [f"{states[state]} {state}" for state in STATES if states[state]]
        summary = ", ".join([*told, *(f"{key} {value:.4g}" for key, value in means.items())])
        logger.info("%d pairs: %s; each pair's values are in %s.", len(rows), summary, path)


def write_failures(failures: Sequence[FailedPair], path: Path) -> None:
    """Replace the table of the pairs that failed, or take it away where none did.

    One that cannot be written is told in a warning: the run ends with the failures' own sentences.
    """

    def write(target: Path) -> None:
        with target.open("w", newline="", encoding="utf-8", errors="replace") as file:
            table = csv.writer(file)
            table.writerows([FailedPair._fields, *failures])

    try:
        if failures:
            save_atomically(write, path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s", first_line(error))


def mean_of(values: Iterable[float | None]) -> float:
    """The mean of the numbers that there are; NaN if there is none."""
    known = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
