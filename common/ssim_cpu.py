"""SSIM of volumes on the CPU by compiled loops, with a gradient of its own; see ``kernels_cpu`` for how they run.

Autograd would filter five fields back; the squares of both images share one derivative, so that a gradient takes three
filters, and one of both images four. Nothing between the window means and the map is kept.
"""

import numpy as np
import torch
from torch import Tensor

from .first_order import first_order
from .kernels_cpu import compiled, slabs
from .smooth_cpu import filter_separable

__all__ = ["MapOnCPU"]


class MapOnCPU(torch.autograd.Function):
    """The map of ``ssim.ssim`` for volumes (N, D, H, W), float32 or float64, where windows lie wholly inside."""

    @staticmethod
    def forward(ctx, f: Tensor, w: Tensor, taps: Tensor, c1: float, c2: float) -> Tensor:
        """(N, D', H', W') of two volumes, symmetric weights of an axis and the two constants."""
        means = filter_separable(torch.stack((f, w, f * f, w * w, f * w), dim=1), taps)
        ctx.save_for_backward(f, w, means)
        ctx.taps, ctx.constants = taps, (c1, c2)
        out = f.new_empty(len(f), *(n - len(taps) + 1 for n in f.shape[1:]))
        arguments = (means.numpy(), out.numpy(), len(taps) // 2, *constants(ctx.constants, out))
        slabs(similarity_planes, out.shape[1], out.numel(), lambda _: arguments)
        return out

    @staticmethod
    @first_order("SSIM by compiled loops has no second derivative; set NUMBA_DISABLE_JIT=1 to take torch's.")
    def backward(ctx, upstream: Tensor):
        f, w, means = ctx.saved_tensors
        radius, (by_f, by_w) = len(ctx.taps) // 2, ctx.needs_input_grad[:2]
        slopes = means.new_zeros(len(f), 4, *f.shape[1:])
        arguments = (means.numpy(), upstream.contiguous().numpy(), slopes.numpy(), radius)
        arguments = (*arguments, *constants(ctx.constants, slopes))
        slabs(slope_planes, upstream.shape[1], upstream.numel(), lambda _: arguments)
        first = 0 if by_f else 1
        sums = filter_separable(slopes[:, first:], ctx.taps)
        square, product = 2 * sums[:, -2], sums[:, -1]
        grad_f = sums[:, 0] + square * f + product * w if by_f else None
        grad_w = sums[:, 1 - first] + square * w + product * f if by_w else None
        return grad_f, grad_w, None, None, None


def constants(values: tuple[float, float], like: Tensor) -> list[np.generic]:
    """In the precision of a tensor: mixed with float64, numba would compute in that."""
    kind = like.numpy().dtype.type
    return [kind(value) for value in values]


@compiled
def similarity_planes(first, last, means, out, radius, c1, c2):
    """Planes of the map from window means (N, 5, D, H, W) of the images, their squares and their product."""
    number, _, height, width = out.shape
    for n in range(number):
        for z in range(first, last):
            for y in range(height):
                row = means[n, :, z + radius, y + radius, radius : radius + width]
                for x in range(width):
                    f, w = row[0, x], row[1, x]
                    both = f * w + f * w
                    squares = f * f + w * w
                    contrast = (row[4, x] + row[4, x] - both + c2) / (row[2, x] + row[3, x] - squares + c2)
                    out[n, z, y, x] = (both + c1) / (squares + c1) * contrast


@compiled
def slope_planes(first, last, means, upstream, out, radius, c1, c2):
    """Derivatives by the means of f, w, either square and the product, times ``upstream``, where the windows are."""
    number, _, height, width = upstream.shape
    for n in range(number):
        for z in range(first, last):
            for y in range(height):
                row = means[n, :, z + radius, y + radius, radius : radius + width]
                target = out[n, :, z + radius, y + radius, radius : radius + width]
                for x in range(width):
                    f, w = row[0, x], row[1, x]
                    both = f * w + f * w
                    squares = f * f + w * w
                    inverse_means = 1 / (squares + c1)
                    inverse_squares = 1 / (row[2, x] + row[3, x] - squares + c2)
                    luminance = (both + c1) * inverse_means
                    contrast = (row[4, x] + row[4, x] - both + c2) * inverse_squares
                    factor = upstream[n, z, y, x] + upstream[n, z, y, x]
                    # of the luminance's and the contrast's numerator by either mean, and of their denominators
                    along = (contrast * inverse_means - luminance * inverse_squares) * factor
                    against = luminance * contrast * (inverse_squares - inverse_means) * factor
                    target[0, x] = along * w + against * f
                    target[1, x] = along * f + against * w
                    target[2, x] = -luminance * contrast * inverse_squares * upstream[n, z, y, x]
                    target[3, x] = luminance * inverse_squares * factor
