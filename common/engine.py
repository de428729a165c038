"""The joints between registration and MONAI's engines: batch in, loss out, guarded steps, progress, weights."""

import logging
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from tqdm import tqdm

from .errors import RegInputError, RegNumericsError
from .files import save_atomically
from .report import registration_caption, registration_figure
from .spatial import warp

__all__ = [
    "CheckpointBest",
    "GuardedStep",
    "LoadWeights",
    "PairPicture",
    "PreparePair",
    "Progress",
    "SetEpoch",
    "TrainingView",
    "loss_of",
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
        self.bar: tqdm | None = None

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
        value = loss_of(engine.state.output)
        loss = {} if value is None else {"loss": f"{value:.4f}"}
        self.bar.set_postfix(epoch=engine.state.epoch, **loss, refresh=False)
        self.bar.update()

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:  # a handler that starts earlier may have refused
            self.bar.close()

    def _close_and_raise(self, engine: Engine, error: Exception) -> None:
        self._close(engine)
        raise error


def loss_of(output: Any) -> float | None:
    """The loss in an engine's output, decollated or not; ``None`` where there is none. For logging handlers."""
    first = output[0] if isinstance(output, list) else output
    return float(first[Keys.LOSS]) if Keys.LOSS in first else None


class PairPicture:
    """Handler of an evaluator that draws its first pair for TensorBoard at every validation.

    Args:
        writer: ``torch.utils.tensorboard.SummaryWriter``.
        tag: name of the picture.
    """

    def __init__(self, writer: Any, tag: str = "validation") -> None:
        self.writer = writer
        self.tag = tag

    def attach(self, engine: Engine) -> None:
        """Draw after the first pair."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self)

    def __call__(self, engine: Engine) -> None:
        """Add the figure under the trainer's present epoch."""
        output = engine.state.output[0] if isinstance(engine.state.output, list) else engine.state.output
        ddf = output[Keys.PRED][:1] if output[Keys.PRED].ndim > 4 else output[Keys.PRED][None]
        moving, fixed = output[Keys.IMAGE].reshape(1, 2, *ddf.shape[2:]).chunk(2, dim=1)
        warped = warp(moving, ddf)
        caption = registration_caption(ddf)
        figure = registration_figure(fixed, moving, warped, ddf, [1.0] * ddf.shape[1], caption=caption)
        self.writer.add_figure(self.tag, figure, global_step=engine.state.epoch)
