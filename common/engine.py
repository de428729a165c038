"""The joints between registration and MONAI's engines: batch in, loss out, guarded steps, metrics, checkpoints."""

import csv
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from tqdm import tqdm

from .errors import RegInputError, RegNumericsError
from .files import save_atomically
from .metrics import dice, ndv, sdlogj, warp_label

__all__ = [
    "CheckpointBest",
    "GuardedStep",
    "LoadWeights",
    "MeanDice",
    "NonDiffeomorphicVolume",
    "PreparePair",
    "Progress",
    "SDLogJ",
    "SetEpoch",
    "TrainingView",
    "WritePairMetrics",
]

logger = logging.getLogger(__name__)


class PreparePair:
    """``prepare_batch`` of the engines: the network's 2-channel image, and the whole pair as the loss's target."""

    def __call__(
        self, batch: dict, device: torch.device | str | None = None, non_blocking: bool = False, **_: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Move a batch of :class:`common.data.PairDataset` to ``device``.

        Returns:
            image (B, 2, *S), channel 0 moving and 1 fixed, and {"moving", "fixed", ...} with every tensor of the batch.
        """
        pair = {
            key: value.to(device, non_blocking=non_blocking).as_subclass(Tensor)
            for key, value in batch.items()
            if isinstance(value, Tensor)
        }
        return torch.cat([pair["moving"], pair["fixed"]], dim=1), pair


class TrainingView(nn.Module):
    """A network seen through another of its methods, so that ``forward`` keeps its contract in training too.

    Args:
        network: module whose ``forward`` returns a ddf.
        method: the method that says what the loss needs, called with the same image.
    """

    def __init__(self, network: nn.Module, method: str) -> None:
        super().__init__()
        self.network = network
        self.method = method

    def forward(self, image: Tensor) -> Any:
        """What ``network.<method>(image)`` returns."""
        return getattr(self.network, self.method)(image)


class GuardedStep:
    """``iteration_update`` of a SupervisedTrainer that skips steps whose loss or gradient is not finite.

    Args:
        max_skipped: that many skipped steps in a row stop the run; the last good checkpoint stays as it is.
        max_norm: gradient norm to clip to, or ``None``.
    """

    def __init__(self, max_skipped: int = 3, max_norm: float | None = None) -> None:
        self.max_skipped = max_skipped
        self.max_norm = max_norm
        self.skipped_in_a_row = 0

    def __call__(self, engine: Any, batch: dict) -> dict:
        """Run one training step on ``batch`` and return {image, label, pred, loss} as MONAI's own step does.

        Raises:
            RegNumericsError: when ``max_skipped`` steps in a row were not finite.
        """
        image, pair = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        pred = engine.inferer(image, engine.network)
        loss = engine.loss_function(pred, pair)
        engine.state.output = {Keys.IMAGE: image, Keys.LABEL: pair, Keys.PRED: pred, Keys.LOSS: loss.detach()}
        if bool(torch.isfinite(loss)):
            loss.backward()
        self._step(engine, finite=bool(torch.isfinite(loss)))
        return engine.state.output

    def _step(self, engine: Any, finite: bool) -> None:
        parameters = [p for p in engine.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]) if finite else torch.tensor(torch.nan)
        if not bool(torch.isfinite(norm)):
            return self._skip(engine, "gradient" if finite else "loss")
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        engine.optimizer.step()
        self.skipped_in_a_row = 0

    def _skip(self, engine: Any, what: str) -> None:
        engine.optimizer.zero_grad(set_to_none=True)
        self.skipped_in_a_row += 1
        logger.warning("step %d skipped: its %s is not finite.", engine.state.iteration, what)
        if self.skipped_in_a_row >= self.max_skipped:
            raise RegNumericsError(
                f"training stopped at step {engine.state.iteration}: {self.skipped_in_a_row} steps in a row had no "
                f"finite {what}, expected finite values; lower learning_rate and restart from the last checkpoint."
            )


class PairMetric(Metric):
    """Mean over pairs of a value that one pair's ddf and tensors give; NaN values do not count.

    Attached to an evaluator it reads ``engine.state.output`` as MONAI makes it: a list of {"pred", "label", ...}.
    """

    def __init__(self) -> None:
        super().__init__(output_transform=lambda output: output)

    def reset(self) -> None:
        """Forget every pair."""
        self.values: list[float] = []

    def update(self, output: Sequence[dict]) -> None:
        """Add the pairs of one batch."""
        for item in output:
            pair = {key: value[None] for key, value in item[Keys.LABEL].items()}
            self.values.append(float(self.of_pair(item[Keys.PRED][None], pair)))

    def compute(self) -> float:
        """The mean, NaN when no pair had a value."""
        return float(torch.tensor(self.values, dtype=torch.float64).nanmean())

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """The value of one pair, ddf (1, N, *S) and its tensors with a batch axis of 1."""
        raise NotImplementedError


class MeanDice(PairMetric):
    """Dice of the nearest-warped label against the fixed label, mean over the labels present in the fixed one.

    Args:
        labels: the values to score; ``None`` scores every value above 0 of the fixed label.
    """

    def __init__(self, labels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.labels = None if labels is None else [int(v) for v in labels]

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Mean Dice in [0, 1], NaN for a pair without labels."""
        if "fixed_label" not in pair or "moving_label" not in pair:
            return float("nan")
        moving, fixed = pair["moving_label"], pair["fixed_label"]
        labels = self.labels or [int(v) for v in fixed.unique() if v > 0]
        return float(dice(warp_label(moving, ddf), fixed, labels, moving).nanmean())


class SDLogJ(PairMetric):
    """Standard deviation of log det J, ``common.metrics.sdlogj``."""

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Over the whole grid."""
        return float(sdlogj(ddf))


class NonDiffeomorphicVolume(PairMetric):
    """Non-diffeomorphic volume in percent, ``common.metrics.ndv``."""

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Over the whole grid."""
        return float(ndv(ddf))


class CheckpointBest:
    """Handler of an evaluator: writes ``last.pt`` after each validation and ``model.pt`` whenever the metric rises.

    Both hold a plain state dict that loads with ``weights_only=True``.

    Args:
        network: module to save.
        save_dir: folder to write into; made when needed.
        metric: name of the engine's metric; higher is better.
        best_name: file of the best weights.
        last_name: file of the newest weights.
    """

    def __init__(
        self, network: nn.Module, save_dir: str, metric: str, best_name: str = "model.pt", last_name: str = "last.pt"
    ) -> None:
        self.network = network
        self.save_dir = Path(save_dir)
        self.metric = metric
        self.best_name = best_name
        self.last_name = last_name
        self.best = float("-inf")

    def attach(self, engine: Engine) -> None:
        """Save at the end of every evaluation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the network's present weights under the names that its metric earned."""
        value = float(engine.state.metrics[self.metric])
        weights = self.network.state_dict()
        save_atomically(lambda path: torch.save(weights, path), self.save_dir / self.last_name)
        if not value <= self.best:  # a metric that is NaN (no labels) keeps the newest
            self.best = value
            save_atomically(lambda path: torch.save(weights, path), self.save_dir / self.best_name)
            logger.info("%s %.4f is the best so far: saved %s.", self.metric, value, self.save_dir / self.best_name)


class LoadWeights:
    """Handler that loads a state dict before the engine starts.

    Args:
        network: module to fill; every key and shape must fit.
        path: file written by a train command, or any plain state dict of tensors.
        train_command: what the message advises when there is no file.
    """

    def __init__(self, network: nn.Module, path: str, train_command: str) -> None:
        self.network = network
        self.path = Path(path)
        self.train_command = train_command

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Fill the network.

        Raises:
            RegInputError: if the file is missing, damaged or of another network.
        """
        if not self.path.is_file():
            raise RegInputError(
                f"{self.path} is missing, expected trained weights; make them with `{self.train_command}`."
            )
        device = next(self.network.parameters()).device
        try:
            self.network.load_state_dict(torch.load(self.path, map_location=device, weights_only=True))
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RegInputError(
                f"{self.path} does not hold this network's weights ({reason}); train again or give the same settings "
                "as in training."
            ) from error


class SetEpoch:
    """Handler that tells a :class:`common.data.PairDataset` the epoch, so that each draws its own pairs."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Before each epoch's first batch is asked for."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Pass the engine's epoch on."""
        self.dataset.set_epoch(engine.state.epoch)


class Progress:
    """Handler that draws one progress bar over the whole run: steps, time left, epoch and loss.

    Away from a terminal it writes a line a minute instead of redrawing.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def attach(self, engine: Engine) -> None:
        """Open at the start, advance after every step, close at the end whatever happens."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._close_and_raise)

    def _open(self, engine: Engine) -> None:
        state = engine.state
        self.bar = tqdm(
            desc=self.name,
            total=state.max_epochs * state.epoch_length,
            initial=state.iteration,
            mininterval=0.5 if sys.stderr.isatty() else 60,
            dynamic_ncols=True,
        )

    def _advance(self, engine: Engine) -> None:
        output = engine.state.output[0] if isinstance(engine.state.output, list) else engine.state.output
        loss = {"loss": f"{float(output[Keys.LOSS]):.4f}"} if Keys.LOSS in output else {}
        self.bar.set_postfix(epoch=engine.state.epoch, **loss, refresh=False)
        self.bar.update()

    def _close(self, engine: Engine) -> None:
        self.bar.close()

    def _close_and_raise(self, engine: Engine, error: Exception) -> None:
        self.bar.close()
        raise error


class WritePairMetrics:
    """Handler of an evaluator: one row a pair, one column a metric, and a last row with the means.

    Args:
        path: csv file to write.
        pairs: the datalist's pairs, in the order of the loader, for their names.
        metrics: names of the engine's :class:`PairMetric` objects and the objects.
    """

    def __init__(self, path: str, pairs: Sequence[dict], metrics: dict[str, PairMetric]) -> None:
        self.path = Path(path)
        self.pairs = pairs
        self.metrics = metrics

    def attach(self, engine: Engine) -> None:
        """Write when the engine is done."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file and log the means."""
        names = [[Path(pair[role]).name for role in ("fixed", "moving")] for pair in self.pairs]
        columns = [metric.values for metric in self.metrics.values()]
        rows = [[*name, *values] for name, *values in zip(names, *columns, strict=True)]
        means = ["mean", "", *[metric.compute() for metric in self.metrics.values()]]

        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([["fixed", "moving", *self.metrics], *rows, means])

        save_atomically(write, self.path)
        summary = ", ".join(f"{name} {value:.4f}" for name, value in zip(self.metrics, means[2:], strict=True))
        logger.info("%d pairs: %s; each pair's values are in %s.", len(rows), summary, self.path)
