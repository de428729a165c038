"""Gaussian smoothing of images and fields."""

import math

import torch
from torch import Tensor

from .float32_convolution import convolve
from .kernels_cpu import usable

__all__ = ["gaussian_smooth", "gaussian_taps"]

REACH = 3.0  # standard deviations on each side that a window covers


def gaussian_taps(sigma: float) -> Tensor:
    """Weights (K,) of a sampled Gaussian, K odd, float64, sum 1; a single 1 for sigma 0."""
    radius = math.floor(REACH * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    weights = torch.exp(-offsets.square() / (2 * sigma**2)) if radius else torch.ones_like(offsets)
    return weights / weights.sum()


def gaussian_smooth(field: Tensor, sigma: float) -> Tensor:
    """Every channel of a field smoothed by a Gaussian; zeros lie outside, so the filter is its own adjoint.

    Args:
        field: (B, C, *S), N = 2 or 3 spatial axes.
        sigma: standard deviation in voxels, 0 or more; below 1/6 nothing happens.

    Returns:
        (B, C, *S) in the field's dtype; gradients pass.

    Raises:
        ValueError: for a sigma that is negative or not finite.
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma must be finite and 0 or more, got {sigma}.")
    taps = gaussian_taps(sigma)
    return Separable.apply(field, taps) if len(taps) > 1 else field


class Separable(torch.autograd.Function):
    """One symmetric filter along every axis; the gradient passes through the same filter."""

    @staticmethod
    def forward(ctx, field: Tensor, taps: Tensor) -> Tensor:
        ctx.taps = taps
        return filtered(field, taps)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        return Separable.apply(upstream, ctx.taps), None


def filtered(field: Tensor, taps: Tensor) -> Tensor:
    """Compiled loops for volumes on the CPU, grouped convolutions elsewhere."""
    if field.ndim == 5 and usable(field):
        from .smooth_cpu import filter_separable  # imports numba

        return filter_separable(field, taps.to(field))
    channels, ndim = field.shape[1], field.ndim - 2
    for axis in range(ndim):
        weight = taps.to(field).view([-1 if k == axis else 1 for k in range(ndim)])
        padding = [len(taps) // 2 if k == axis else 0 for k in range(ndim)]
        field = convolve(field, weight.expand(channels, 1, *weight.shape), padding, channels)  # keeps its precision
    return field
