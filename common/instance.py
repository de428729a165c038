"""Optimise one pair: the loop over steps that every method without training data goes through.

What is optimised (a velocity, a network's weights) and what is made small belong to the caller.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .errors import RegInputError, RegNumericsError

__all__ = ["Plateau", "Trace", "minimize"]

Report = Callable[[int, Mapping[str, float]], None]
"""Called after every step with its number, from 1 on, and the value of every term before it."""


@dataclass(frozen=True)
class Plateau:
    """Stop once the loss has not fallen by ``tolerance`` (a fraction of its size) for ``patience`` steps.

    Args:
        patience: steps to wait for the next improvement.
        tolerance: smallest fall of the best loss so far that counts, as a fraction of it.
    """

    patience: int
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.patience < 1 or self.tolerance < 0:
            raise RegInputError(
                f"patience is {self.patience} and tolerance {self.tolerance}, expected at least 1 step and 0; set them."
            )

    def reached(self, losses: list[float]) -> bool:
        """Whether the last ``patience`` losses brought nothing over those before."""
        if len(losses) <= self.patience:
            return False
        before, since = min(losses[: -self.patience]), min(losses[-self.patience :])
        return since >= before - self.tolerance * abs(before)


@dataclass
class Trace:
    """What an optimisation went through: the weighted terms and their sum before every step."""

    terms: dict[str, list[float]] = field(default_factory=dict)
    loss: list[float] = field(default_factory=list)

    def add(self, values: Mapping[str, float]) -> float:
        """Append one step's terms; their sum."""
        for name, value in values.items():
            self.terms.setdefault(name, []).append(value)
        self.loss.append(sum(values.values()))
        return self.loss[-1]


def minimize(
    terms: Callable[[], Mapping[str, Tensor]],
    optimizer: Optimizer,
    steps: int,
    *,
    scheduler: LRScheduler | None = None,
    stop: Plateau | None = None,
    report: Report | None = None,
) -> Trace:
    """Take up to ``steps`` optimizer steps down the sum of the terms; gradients are on, whatever the caller has.

    Args:
        terms: evaluates the loss at the optimizer's parameters: weighted scalars by name. It may call ``backward`` on
            parts that it would not hold in memory at once, and return their detached values.
        optimizer: of the parameters; its gradients are cleared before every evaluation.
        steps: at most so many.
        scheduler: stepped after every step.
        stop: ends it before.
        report: told every step, for a progress bar.

    Returns:
        The terms before each step that was taken or, for the last, refused by ``stop``.

    Raises:
        RegNumericsError: if the loss is not finite; the parameters are those before that step.
    """
    trace = Trace()
    with torch.inference_mode(False), torch.enable_grad():
        for step in range(1, steps + 1):
            optimizer.zero_grad(set_to_none=True)
            values = terms()
            total = sum(values.values())
            loss = trace.add({name: float(value.detach()) for name, value in values.items()})
            if not math.isfinite(loss):
                raise RegNumericsError(
                    f"the loss is {loss} at step {step}, expected a finite number; lower the learning rate or look at "
                    "the images for values that are not finite."
                )
            if stop is not None and stop.reached(trace.loss):
                break
            if total.requires_grad:
                total.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            if report is not None:
                report(step, values_of(trace))
    return trace


def values_of(trace: Trace) -> dict[str, float]:
    """The terms of the newest step."""
    return {name: values[-1] for name, values in trace.terms.items()}
