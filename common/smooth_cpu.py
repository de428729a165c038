"""Separable filters of volumes on the CPU, axis by axis; see ``kernels_cpu`` for how the loops run."""

import numpy as np
import torch
from torch import Tensor

from .kernels_cpu import compiled, slabs

__all__ = ["filter_separable"]


def filter_separable(field: Tensor, taps: Tensor) -> Tensor:
    """Correlate every channel of (B, C, D, H, W) with ``taps`` (K), K odd, along each axis; zeros lie outside.

    Both float32 or both float64 on the CPU; the caller sees to gradients.
    """
    source = np.ascontiguousarray(field.detach().numpy()).reshape(field.shape[:2].numel(), *field.shape[2:])
    weights = taps.numpy()
    inner, out = np.empty_like(source), np.empty_like(source)
    depth, voxels = field.shape[2], source.size
    slabs(filter_planes, depth, voxels, lambda _: (source, inner, weights))
    slabs(filter_across, depth, voxels, lambda _: (inner, out, weights))
    return torch.from_numpy(out).view(field.shape)


@compiled
def add_scaled(out, row, weight, shift):
    """Add weight * row[x + shift] to out[x] wherever both exist."""
    for x in range(max(0, -shift), out.shape[0] - max(0, shift)):
        out[x] += weight * row[x + shift]


@compiled
def filter_planes(first, last, source, out, weights):
    """Filter planes first to last - 1 of every channel along their rows, then their columns."""
    channels, _, height, width = source.shape
    radius = weights.shape[0] // 2
    plane = np.empty((height, width), source.dtype)
    for c in range(channels):
        for z in range(first, last):
            for y in range(height):
                plane[y] = 0
                for k in range(-radius, radius + 1):
                    add_scaled(plane[y], source[c, z, y], weights[k + radius], k)
            for y in range(height):
                out[c, z, y] = 0
                for k in range(max(-radius, -y), min(radius, height - 1 - y) + 1):
                    add_scaled(out[c, z, y], plane[y + k], weights[k + radius], 0)


@compiled
def filter_across(first, last, source, out, weights):
    """Filter planes first to last - 1 of every channel across the planes."""
    channels, depth, height, _ = source.shape
    radius = weights.shape[0] // 2
    for c in range(channels):
        for z in range(first, last):
            for y in range(height):
                out[c, z, y] = 0
                for k in range(max(-radius, -z), min(radius, depth - 1 - z) + 1):
                    add_scaled(out[c, z, y], source[c, z + k, y], weights[k + radius], 0)
