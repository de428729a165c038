"""Convolutions whose float32 is float32: neither autocast nor TF32 or bfloat16 inside of a library's kernel.

torch lets cuDNN take TF32 in convolutions unless told otherwise, which keeps ten bits of a factor's fraction: sums of
images and fields are then wrong in the fourth digit. A gradient is formed long after a ``with`` around the
forward pass has ended, so the convolution is an operator of its own, whose gradient is one too, and so on for higher
derivatives. ``torch.compile`` takes both as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["convolve", "full_float32"]

LIBRARIES = (
    torch.backends.cudnn.conv,
    torch.backends.cuda.matmul,  # what a convolution becomes without cuDNN
    torch.backends.mkldnn.conv,
    torch.backends.mkldnn.matmul,
)
before: list[str] = []  # the process's settings while anybody is inside
inside = 0
lock = Lock()


@contextmanager
def full_float32() -> Iterator[None]:
    """Products of float32 in float32 in convolutions and matrix products, of every thread while any is inside."""
    global inside
    with lock:
        if not inside:
            before[:] = [library.fp32_precision for library in LIBRARIES]
            for library in LIBRARIES:
                library.fp32_precision = "ieee"
        inside += 1
    try:
        yield
    finally:
        with lock:
            inside -= 1
            if not inside:
                for library, precision in zip(LIBRARIES, before, strict=True):
                    library.fp32_precision = precision


@torch.library.custom_op("registration_bundles::convolve", mutates_args=())
def convolve(fields: Tensor, weight: Tensor, padding: Sequence[int], groups: int) -> Tensor:
    """``conv2d`` or ``conv3d`` with stride 1 and zeros outside, in the precision of its arguments.

    Args:
        fields: (N, K, *S), two or three spatial axes.
        weight: (K', K / groups, *W), a constant: it gets no gradient.
        padding: zeros at both ends of each spatial axis.
        groups: of channels that are convolved apart.

    Returns:
        (N, K', *(S + 2 padding - W + 1)), contiguous; differentiable by ``fields`` as often as wanted.
    """
    convolution = F.conv3d if fields.ndim == 5 else F.conv2d
    with torch.autocast(fields.device.type, enabled=False), full_float32():
        return convolution(fields, weight, padding=tuple(padding), groups=groups).contiguous()


@torch.library.custom_op("registration_bundles::convolve_adjoint", mutates_args=())
def convolve_adjoint(
    upstream: Tensor, weight: Tensor, size: Sequence[int], padding: Sequence[int], groups: int
) -> Tensor:
    """The gradient of :func:`convolve` by fields of the shape ``size``, by the kernel that autograd takes."""
    gradient = torch.nn.grad.conv3d_input if upstream.ndim == 5 else torch.nn.grad.conv2d_input
    with torch.autocast(upstream.device.type, enabled=False), full_float32():
        return gradient(size, weight, upstream, padding=tuple(padding), groups=groups).contiguous()


@convolve.register_fake
def _(fields: Tensor, weight: Tensor, padding: Sequence[int], groups: int) -> Tensor:
    sides = zip(fields.shape[2:], weight.shape[2:], padding, strict=True)
    return fields.new_empty(fields.shape[0], weight.shape[0], *(n + 2 * p - w + 1 for n, w, p in sides))


@convolve_adjoint.register_fake
def _(upstream: Tensor, weight: Tensor, size: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    return upstream.new_empty(size)


def keep(ctx, inputs: tuple, output: Tensor) -> None:
    """What the derivative of either operator needs: not the fields."""
    first, weight, *_, padding, groups = inputs
    ctx.save_for_backward(weight)
    ctx.size, ctx.padding, ctx.groups = first.shape, padding, groups


def by_fields(ctx, upstream: Tensor) -> tuple:
    """Of :func:`convolve`, which is linear."""
    (weight,) = ctx.saved_tensors
    return convolve_adjoint(upstream, weight, ctx.size, ctx.padding, ctx.groups), None, None, None


def by_upstream(ctx, second: Tensor) -> tuple:
    """Of :func:`convolve_adjoint`, whose adjoint is the convolution."""
    (weight,) = ctx.saved_tensors
    return convolve(second, weight, ctx.padding, ctx.groups), None, None, None, None


convolve.register_autograd(by_fields, setup_context=keep)
convolve_adjoint.register_autograd(by_upstream, setup_context=keep)
