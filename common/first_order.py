"""Gradients that autograd cannot differentiate again say so, instead of counting as constants."""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

__all__ = ["first_order"]


def first_order(hint: str) -> Callable:
    """Decorate a backward pass that works outside of autograd: a second derivative raises.

    torch's ``once_differentiable`` refuses only where the upstream gradient is itself differentiated; by the inputs the
    second derivative would silently be missing.

    Args:
        hint: message of the RuntimeError, a sentence: who has no second derivative, and what to do.
    """

    def decorate(backward: Callable) -> Callable:
        @wraps(backward)
        def guarded(ctx, *upstream: Tensor):
            with torch.no_grad():
                grads = backward(ctx, *upstream)
            if not torch.is_grad_enabled():
                return grads
            return tuple(
                NoSecondDerivative.apply(grad.requires_grad_(), hint) if isinstance(grad, Tensor) else grad
                for grad in grads
            )

        return guarded

    return decorate


class NoSecondDerivative(torch.autograd.Function):
    """Pass a gradient on; refuse to be differentiated."""

    @staticmethod
    def forward(ctx, grad: Tensor, hint: str) -> Tensor:
        ctx.hint = hint
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        raise RuntimeError(ctx.hint)
