"""LNCC as autograd sees it: a map or a mean whose backend forms the gradient itself, once differentiable.

A backend is a function ``run(f, w, kernel_size, formula, value=, weight=, grad_f=, grad_w=) -> total`` on a stack of
volumes (N, *S): it returns the sum of the map and fills what it is given room for. :func:`by_volume` makes one of a
function on a single volume (*S).
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

from .first_order import first_order
from .lncc_terms import Formula

__all__ = ["LNCCMap", "LNCCMean", "by_volume"]

REFUSAL = "This LNCC has no second derivative; use backend='group_conv' for one."


class LNCCMap(torch.autograd.Function):
    """(B, C, *S) images to their map; the backward pass forms the sums again."""

    @staticmethod
    def forward(ctx, fixed: Tensor, warped: Tensor, kernel_size: int, formula: Formula, run: Callable) -> Tensor:
        ctx.save_for_backward(fixed, warped)
        ctx.options, ctx.run = (kernel_size, formula), run
        value = torch.empty(fixed.shape, dtype=fixed.dtype, device=fixed.device)
        f, w, out = stacks(fixed, warped, value)
        run(f, w, kernel_size, formula, value=out)
        return value

    @staticmethod
    @first_order(REFUSAL)
    def backward(ctx, upstream: Tensor):
        fixed, warped = ctx.saved_tensors
        grads = empty_gradients(fixed, ctx.needs_input_grad)
        f, w, weight, grad_f, grad_w = stacks(fixed, warped, upstream, *grads)
        ctx.run(f, w, *ctx.options, weight=weight, grad_f=grad_f, grad_w=grad_w)
        return *grads, None, None, None


class LNCCMean(torch.autograd.Function):
    """(B, C, *S) images to the mean of their map; the forward pass forms the gradient while the sums are at hand."""

    @staticmethod
    def forward(ctx, fixed: Tensor, warped: Tensor, kernel_size: int, formula: Formula, run: Callable) -> Tensor:
        grads = empty_gradients(fixed, ctx.needs_input_grad)
        f, w, grad_f, grad_w = stacks(fixed, warped, *grads)
        total = run(f, w, kernel_size, formula, grad_f=grad_f, grad_w=grad_w)
        ctx.save_for_backward(*grads)
        ctx.count = fixed.numel()
        return (total / ctx.count).to(fixed.dtype)

    @staticmethod
    @first_order(REFUSAL)
    def backward(ctx, upstream: Tensor):
        scale = upstream / ctx.count
        return *(None if grad is None else grad * scale for grad in ctx.saved_tensors), None, None, None


def empty_gradients(image: Tensor, needed: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Room for the gradients of the first two inputs where needed."""
    return tuple(torch.empty(image.shape, dtype=image.dtype, device=image.device) if n else None for n in needed[:2])


def stacks(*images: Tensor | None) -> tuple[Tensor | None, ...]:
    """Every (B, C, *S) image as (B * C, *S): in the same memory for what is to be filled."""
    return tuple(None if image is None else image.flatten(0, 1) for image in images)


def by_volume(run: Callable) -> Callable:
    """The backend that calls ``run`` on one volume (*S) after the other."""

    @wraps(run)
    def run_each(f: Tensor, w: Tensor, kernel_size: int, formula: Formula, **outputs: Tensor | None) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=f.device)
        for index in range(f.shape[0]):
            room = {name: None if out is None else out[index] for name, out in outputs.items()}
            total += run(f[index], w[index], kernel_size, formula, **room)
        return total

    return run_each
