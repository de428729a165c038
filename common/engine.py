"""The joints between registration and MONAI's engines: batch in, loss out, epochs, progress, pictures."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from ignite.utils import manual_seed
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from tqdm import tqdm

from .pair_reports import images_in, validation_page, view_in
from .report import registration_caption, registration_figure

__all__ = [
    "PairPicture",
    "PreparePair",
    "Progress",
    "StartEpoch",
    "StopEarly",
    "TrainingView",
    "end_process_group",
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


class StartEpoch:
    """Handler that makes an epoch's random numbers, and its pairs, a function of its number.

    Seeds ``random``, numpy and torch with seed, epoch and rank, and tells a :class:`common.data.PairDataset` the epoch.
    What a resumed run draws is therefore what an uninterrupted one would have drawn.

    Args:
        dataset: the training data.
        seed: of the run.
    """

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Before each epoch's first batch is asked for."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed, and pass the engine's epoch on."""
        ranks = idist.get_world_size()
        manual_seed((self.seed + 1_000_003 * (engine.state.epoch * ranks + idist.get_rank())) % 2**32)
        self.dataset.set_epoch(engine.state.epoch)


class StopEarly:
    """Handler of a trainer: ends the run once the evaluator's metric has not improved for ``patience`` validations.

    Args:
        evaluator: what validates.
        metric: name of its metric. One that is NaN (no labels) never ends a run.
        patience: validations to wait; ``None`` never stops.
        lower_is_better: whether the metric is an error.
    """

    def __init__(
        self, evaluator: Engine, metric: str, patience: int | None = None, lower_is_better: bool = False
    ) -> None:
        self.evaluator = evaluator
        self.metric = metric
        self.patience = patience
        self.sign = -1 if lower_is_better else 1
        self.handler: EarlyStopping | None = None

    def attach(self, engine: Engine) -> None:
        """Watch the evaluator; name it after :class:`common.checkpoint.TrainingState`, whose past it heeds."""
        if self.patience is None:
            return
        self.handler = EarlyStopping(self.patience, self._score, engine)
        self.evaluator.add_event_handler(Events.COMPLETED, self.handler)
        engine.add_event_handler(Events.STARTED, self._start)

    def _score(self, evaluator: Engine) -> float:
        return self.sign * float(evaluator.state.metrics[self.metric])

    def _start(self, engine: Engine) -> None:
        if self.handler.counter >= self.patience:
            logger.warning("this run had stopped early after epoch %d: nothing is left to do.", engine.state.epoch)
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Best value and waiting time so far, for :class:`common.checkpoint.TrainingState`."""
        return {} if self.handler is None else dict(self.handler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; ignored where this run or that one does not stop early."""
        if self.handler is not None and state:
            self.handler.load_state_dict(state)


class Progress:
    """Handler that draws one progress bar over the whole run: steps, time left, epoch and loss.

    Away from a terminal it writes a line a minute instead of redrawing.

    Args:
        name: what the bar is called.
        shown: whether there is one.
    """

    def __init__(self, name: str, shown: bool = True) -> None:
        self.name = name
        self.shown = shown
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
            disable=idist.get_rank() > 0 or not self.shown,
            desc=self.name,
            total=state.max_epochs * state.epoch_length,
            initial=state.iteration,
            mininterval=0.5 if sys.stderr.isatty() else 60,
            dynamic_ncols=True,
        )

    def _advance(self, engine: Engine) -> None:
        first = engine.state.output[0] if isinstance(engine.state.output, list) else {}
        loss = {"loss": f"{float(first[Keys.LOSS]):.4f}"} if Keys.LOSS in first else {}
        self.bar.set_postfix(epoch=engine.state.epoch, **loss, refresh=False)
        self.bar.update()

    def _close(self, engine: Engine) -> None:
        if self.bar is not None:  # a handler that starts earlier may have refused
            self.bar.close()

    def _close_and_raise(self, engine: Engine, error: Exception) -> None:
        self._close(engine)
        raise error


class PairPicture:
    """Handler of an evaluator that draws its first pair at every validation: for TensorBoard, and as a page.

    Both are made of one :class:`common.report_data.PairView`.

    Args:
        writer: ``torch.utils.tensorboard.SummaryWriter``.
        tag: name of the picture.
        page: HTML file that is replaced at every validation; None writes none.
        header: the data set's, for spacing, orientation and label names; None takes voxels of 1 mm as they are stored.
    """

    def __init__(
        self, writer: Any, tag: str = "validation", page: str | None = None, header: Mapping | None = None
    ) -> None:
        self.writer = writer
        self.tag = tag
        self.page = None if page is None else Path(page)
        self.header = header

    def attach(self, engine: Engine) -> None:
        """Draw after the first pair, on the first rank."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=1), self)

    def __call__(self, engine: Engine) -> None:
        """Add the figure under the trainer's present epoch, replace the page."""
        images, ddf, _ = images_in(engine.state.output)
        view = view_in(images, ddf, self.header)
        figure = registration_figure(
            view.fixed,
            view.moving,
            view.warped,
            view.ddf,
            view.spacing_mm,
            view.orientation,
            caption=registration_caption(view.ddf),
        )
        self.writer.add_figure(self.tag, figure, global_step=engine.state.epoch)
        if self.page is not None:
            validation_page(self.page, view, images, engine.state.epoch, self.header)


def end_process_group() -> None:
    """Wait for all ranks, then leave them; the last thing that a distributed run does.

    The barrier is not only for the others. A thread of gloo's may still hold the tensors of an earlier gather and needs
    the interpreter's lock to let go of them, while this thread, which has that lock, waits for gloo's own lock in order
    to destroy the group: torch 2.13 then hangs with all work done. The barrier comes after the gather in gloo's queue,
    and who waits for it lends out the interpreter's lock.
    """
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
