"""LNCC as autograd sees it: a map or a mean whose backend forms the gradient itself, once differentiable.

A backend is a function ``run(f, w, kernel_size, formula, value=, weight=, grad_f=, grad_w=) -> total`` on one volume
(*S): it returns the sum of the map and fills what it is given room for.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .first_order import first_order
from .lncc_terms import Formula

__all__ = ["LNCCMap", "LNCCMean"]

REFUSAL = "This LNCC has no second derivative; use backend='group_conv' for one."


class LNCCMap(torch.autograd.Function):
    """(B, C, *S) images to their map; the backward pass forms the sums again."""

    @staticmethod
    def forward(ctx, fixed: Tensor, warped: Tensor, kernel_size: int, formula: Formula, run: Callable) -> Tensor:
        ctx.save_for_backward(fixed, warped)
        ctx.options, ctx.run = (kernel_size, formula), run
        value = torch.empty(fixed.shape, dtype=fixed.dtype, device=fixed.device)
        for f, w, out in volumes(fixed, warped, value):
            run(f, w, kernel_size, formula, value=out)
        return value

    @staticmethod
    @first_order(REFUSAL)
    def backward(ctx, upstream: Tensor):
        fixed, warped = ctx.saved_tensors
        grads = empty_gradients(fixed, ctx.needs_input_grad)
        for f, w, weight, grad_f, grad_w in volumes(fixed, warped, upstream, *grads):
            ctx.run(f, w, *ctx.options, weight=weight, grad_f=grad_f, grad_w=grad_w)
        return *grads, None, None, None


class LNCCMean(torch.autograd.Function):
    """(B, C, *S) images to the mean of their map; the forward pass forms the gradient while the sums are at hand."""

    @staticmethod
    def forward(ctx, fixed: Tensor, warped: Tensor, kernel_size: int, formula: Formula, run: Callable) -> Tensor:
        grads = empty_gradients(fixed, ctx.needs_input_grad)
        total = torch.zeros((), dtype=torch.float64, device=fixed.device)
        for f, w, grad_f, grad_w in volumes(fixed, warped, *grads):
            total += run(f, w, kernel_size, formula, grad_f=grad_f, grad_w=grad_w)
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


def volumes(*images: Tensor | None) -> Iterator[tuple[Tensor | None, ...]]:
    """Walk over batch and channels: every (B, C, *S) image by its volumes (*S)."""
    for batch in range(images[0].shape[0]):
        for channel in range(images[0].shape[1]):
            yield tuple(None if image is None else image[batch, channel] for image in images)
