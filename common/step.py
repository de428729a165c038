"""One training step: precision, accumulated gradients, several ranks, and values that are not finite."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import ignite.distributed as idist
import torch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from .errors import RegInputError, RegNumericsError

__all__ = ["ForwardStep", "GuardedStep"]

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class GuardedStep:
    """``iteration_update`` of a SupervisedTrainer that skips steps whose loss or gradient is not finite.

    The network runs in the given precision; the loss, the weights and the optimizer stay float32. On several ranks all
    skip, step or stop together. The gradient is the mean over the different pairs of the step, whatever the batches'
    sizes: a pair that a sampler repeats to give each rank as many does not count. MONAI's ``amp`` switch is left off,
    because it knows CUDA only.

    Args:
        max_skipped: that many skipped steps in a row stop the run; the last good checkpoint stays as it is.
        max_norm: gradient norm to clip to, or ``None``.
        accumulate: batches whose gradients make one step of the optimizer, as a batch that many times as large. The
            last step of an epoch takes what is left.
        precision: "float32", "bfloat16", or "float16", which scales the loss. The CPU stays with float32 and says so
            once: torch 2.13's bfloat16 convolutions give weights of narrow layers on grids of 2 voxels a side gradients
            of 1e37 there.
        device: where the network is.

    Raises:
        RegInputError: for an unknown precision or fewer than one batch.
    """

    def __init__(
        self,
        max_skipped: int = 3,
        max_norm: float | None = None,
        accumulate: int = 1,
        precision: str = "float32",
        device: torch.device | str = "cpu",
    ) -> None:
        if precision not in DTYPES:
            raise RegInputError(f"precision is {precision!r}, expected one of {', '.join(DTYPES)}.")
        if accumulate < 1:
            raise RegInputError(f"accumulate is {accumulate}, expected the number of batches of a step, 1 or more.")
        self.max_skipped = max_skipped
        self.max_norm = max_norm
        self.accumulate = accumulate
        self.dtype = DTYPES[precision]
        if self.dtype != torch.float32 and torch.device(device).type == "cpu":
            logger.warning("precision %s is for GPUs: training in float32.", precision)
            self.dtype = torch.float32
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.dtype == torch.float16)
        self.skipped_in_a_row = 0
        self.bad_loss = False  # a batch of the present step had a loss that is not finite

    def __call__(self, engine: Any, batch: dict) -> list[dict]:
        """Run one training step on ``batch`` and return [{image, label, pred, loss}].

        A list, as MONAI's decollated outputs are: there its logging and tracking handlers find the loss.

        Raises:
            RegNumericsError: when ``max_skipped`` steps in a row were not finite.
        """
        first, position, size = self._place(engine)
        image, pair = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        counts = [different_items(engine, index) for index in range(first, first + size)]
        own = counts[position][idist.get_rank()]
        if own:  # repeats come last; a rank that has nothing else keeps them, because all must take part
            image, pair = image[:own], {key: value[:own] for key, value in pair.items()}
        engine.network.train()
        if position == 0:
            engine.optimizer.zero_grad(set_to_none=True)
            self.bad_loss = False
        last = position == size - 1
        with nullcontext() if last or not hasattr(engine.network, "no_sync") else engine.network.no_sync():
            with torch.autocast(image.device.type, self.dtype, enabled=self.dtype != torch.float32):
                pred = engine.inferer(image, engine.network)
            loss = engine.loss_function(pred, pair)
            self._backward(loss, idist.get_world_size() * own / sum(map(sum, counts)))  # ranks are averaged
        engine.state.output = [{Keys.IMAGE: image, Keys.LABEL: pair, Keys.PRED: pred, Keys.LOSS: loss.detach()}]
        if last:
            self._step(engine)
        return engine.state.output

    def _place(self, engine: Any) -> tuple[int, int, int]:
        """First batch of this optimizer step in the epoch, which of its batches this is, and how many it has."""
        length = engine.state.epoch_length
        index = (engine.state.iteration - 1) % length
        first = index - index % self.accumulate
        return first, index - first, min(self.accumulate, length - first)

    def _backward(self, loss: Tensor, weight: float) -> None:
        if everywhere(torch.isfinite(loss.detach())):
            self.scaler.scale(loss * weight).backward()
        else:
            self.bad_loss = True

    def _step(self, engine: Any) -> None:
        if self.bad_loss:
            return self._skip(engine, "loss")
        self.scaler.unscale_(engine.optimizer)
        parameters = [p for p in engine.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if not everywhere(torch.isfinite(norm)):
            # a loss scaled too high for float16 ends here as well: the scaler halves it, which is no one's mistake
            harmless = self.scaler.is_enabled() and self.scaler.get_scale() > 1
            self.scaler.update()
            return self._skip(engine, "gradient", counts=not harmless)
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        self.scaler.step(engine.optimizer)
        self.scaler.update()
        self.skipped_in_a_row = 0

    def _skip(self, engine: Any, what: str, counts: bool = True) -> None:
        engine.optimizer.zero_grad(set_to_none=True)
        self.skipped_in_a_row += int(counts)
        logger.warning("step %d skipped: its %s is not finite.", engine.state.iteration, what)
        if self.skipped_in_a_row >= self.max_skipped:
            raise RegNumericsError(
                f"training stopped at step {engine.state.iteration}: {self.skipped_in_a_row} steps in a row had no "
                f"finite {what}, expected finite values; lower learning_rate and go on with --resume true."
            )

    def state_dict(self) -> dict[str, Any]:
        """The loss's scale and the count of skipped steps, for :class:`common.checkpoint.TrainingState`."""
        return {"scaler": self.scaler.state_dict(), "skipped_in_a_row": self.skipped_in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; a scale is ignored where this run needs none."""
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_in_a_row = state["skipped_in_a_row"]


class ForwardStep:
    """``iteration_update`` of a SupervisedTrainer whose network optimises each pair in ``forward``: nothing to train.

    It needs no optimizer and no loss, and goes through the events and postprocessing of a step as an evaluator does.
    """

    def __call__(self, engine: Any, batch: dict) -> dict:
        """Run the network on ``batch`` and return {image, label, pred}."""
        image, label = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        engine.state.output = {Keys.IMAGE: image, Keys.LABEL: label, Keys.PRED: engine.inferer(image, engine.network)}
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output


def everywhere(flag: Tensor) -> bool:
    """Whether a flag is set on every rank."""
    if idist.get_world_size() > 1:
        flag = flag.float()
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
    return bool(flag)


def different_items(engine: Any, batch: int) -> list[int]:
    """How many items of an epoch's batch, counted from 0, each rank has that no other one has.

    A DistributedSampler deals item p of an epoch to rank p modulo the number of ranks, and begins again at item 0 where
    the items do not suffice, so that repeats come last.
    """
    ranks, loader = idist.get_world_size(), engine.data_loader
    sampler, size = getattr(loader, "sampler", None), getattr(loader, "batch_size", None)
    if size is None or not hasattr(sampler, "__len__"):
        return [1] * ranks
    dealt = isinstance(sampler, DistributedSampler)
    count, stride = (len(sampler.dataset), sampler.num_replicas) if dealt else (len(sampler), 1)
    places = range(batch * size, (batch + 1) * size)
    return [sum((rank if dealt else 0) + stride * place < count for place in places) for rank in range(ranks)]
