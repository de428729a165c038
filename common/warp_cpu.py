"""Linear sampling of volumes through a ddf on the CPU, forward and backward: what ``spatial.warp`` and ``compose`` use.

The same values as ``torch.nn.functional.grid_sample`` (align_corners) up to rounding, 3-D only; see ``kernels_cpu``.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .first_order import first_order
from .kernels_cpu import compiled, slab_count, slabs

__all__ = ["PADDINGS", "sample_linear"]

PADDINGS = ("border", "zeros")


def sample_linear(image: Tensor, ddf: Tensor, padding_mode: str, add_ddf: bool) -> Tensor:
    """``image(x + ddf(x))``, plus ``ddf(x)`` itself where asked (composition).

    Args:
        image: (B, C, D, H, W), not empty, float32 or float64 on the CPU; C = 3 with ``add_ddf``.
        ddf: (B, 3, *S) in voxels, of the same dtype.
        padding_mode: one of ``PADDINGS``.
        add_ddf: add the displacement to the sample.

    Returns:
        (B, C, *S). A sample at a coordinate that is not a finite number is not a number.

    Raises:
        ValueError: if the shapes do not fit: the loops do not look.
    """
    if image.ndim != 5 or image.numel() == 0 or ddf.ndim != 5 or ddf.shape[:2] != (len(image), 3):
        raise ValueError(f"an image {list(image.shape)} cannot be sampled through a ddf {list(ddf.shape)}.")
    if add_ddf and image.shape[1] != 3:
        raise ValueError(f"a displacement has 3 components, got {list(image.shape)}.")
    return SampleLinear.apply(image, ddf, padding_mode == "zeros", add_ddf)


class SampleLinear(torch.autograd.Function):
    """See :func:`sample_linear`; both inputs get their gradients."""

    @staticmethod
    def forward(ctx, image: Tensor, ddf: Tensor, zeros: bool, add_ddf: bool) -> Tensor:
        ctx.save_for_backward(image, ddf)
        ctx.options = (zeros, add_ddf)
        size = tuple(image.shape[2:])
        out = image.new_empty((len(image), image.shape[1], *ddf.shape[2:]))
        for source, field, target in zip(*map(arrays, (image, ddf, out)), strict=True):
            spread(sample_planes, field, flat(source), size, ticks(size, field), field, target, zeros, add_ddf)
        return out

    @staticmethod
    @first_order("This warp has no second derivative; set NUMBA_DISABLE_JIT=1 to have torch sample, which has one.")
    def backward(ctx, upstream: Tensor):
        image, ddf = ctx.saved_tensors
        grad_image = splat(ddf, upstream, tuple(image.shape[2:]), ctx.options[0]) if ctx.needs_input_grad[0] else None
        grad_ddf = slope(image, ddf, upstream, *ctx.options) if ctx.needs_input_grad[1] else None
        return grad_image, grad_ddf, None, None


def slope(image: Tensor, ddf: Tensor, upstream: Tensor, zeros: bool, add_ddf: bool) -> Tensor:
    """Gradient by the ddf, (B, 3, *S)."""
    grad = ddf.new_empty(ddf.shape)
    size = tuple(image.shape[2:])
    for source, field, above, target in zip(*map(arrays, (image, ddf, upstream, grad)), strict=True):
        spread(slope_planes, field, flat(source), size, ticks(size, field), field, above, target, zeros, add_ddf)
    return grad


def splat(ddf: Tensor, values: Tensor, size: tuple[int, ...], zeros: bool) -> Tensor:
    """Adjoint of sampling: add (B, C, *S) where ``ddf`` points, on a grid (B, C, *size).

    Every thread adds into a grid of its own. Their number changes the sum by rounding; nothing else does.
    """
    out = []
    for field, value in zip(arrays(ddf), arrays(values), strict=True):
        grids = np.zeros((slab_count(field.shape[1], field[0].size), len(value), math.prod(size)), value.dtype)
        rest = (size, ticks(size, field), field, value, zeros)
        slabs(splat_planes, field.shape[1], field[0].size, lambda k, grids=grids, rest=rest: (grids[k], *rest))
        total = grids[0]
        for grid in grids[1:]:
            total += grid
        out.append(torch.from_numpy(total.reshape(len(value), *size)))
    return torch.stack(out)


def arrays(batch: Tensor) -> list[np.ndarray]:
    """The items of a batch as C-contiguous arrays, which share memory where they were that before."""
    return [np.ascontiguousarray(item) for item in batch.detach().numpy()]


def flat(image: np.ndarray) -> np.ndarray:
    """(C, *S) as (C, number of voxels)."""
    return image.reshape(len(image), -1)


def ticks(size: tuple[int, ...], field: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... as far as positions on both grids go."""
    return np.arange(max(*size, *field.shape[1:]) + 1, dtype=field.dtype)


def spread(kernel: Callable, field: np.ndarray, *arguments) -> None:
    """Share out the planes of a field (3, D, H, W)."""
    slabs(kernel, field.shape[1], field[0].size, lambda _: arguments)


# The kernels. Images come flat, (C, D * H * W), and ``ticks`` holds 0, 1, 2, ... in their precision: mixed with
# integers, numba would compute in float64. A cell is found by its first corner; unsigned indices spare a test for
# negative ones.


@compiled
def locate(position, ticks, size, zeros):
    """The two neighbors along an axis, their weights, and the slopes of these weights.

    As in torch, a position outside is clamped to the border and has no slope there, or the neighbors outside weigh
    nothing. Whatever comes, the neighbors returned lie inside.
    """
    none = position - position  # zero; NaN from NaN and from infinity
    one = none + ticks[1]
    if none != none:
        return 0, 0, none, none, none, none
    if zeros:
        if position < -ticks[1] or position >= ticks[size]:
            return 0, 0, none, none, none, none
        if position < ticks[0]:
            return 0, 0, none, one + position, none, one
        lower = int(position)
        weight = position - ticks[lower]
        if lower + 1 == size:
            return lower, lower, one - weight, none, -one, none
        return lower, lower + 1, one - weight, weight, -one, one
    if position <= ticks[0]:
        return 0, 0, one, none, none, none
    if position >= ticks[size - 1]:
        return size - 1, size - 1, one, none, none, none
    lower = int(position)
    weight = position - ticks[lower]
    return lower, lower + 1, one - weight, weight, -one, one


@compiled
def sample_planes(first, last, image, size, ticks, ddf, out, zeros, add_ddf):
    """Sample at planes first to last - 1 of a grid."""
    depth, height, width = size
    far_z, far_y, far_x = ticks[depth - 1], ticks[height - 1], ticks[width - 1]
    right, below, behind = np.uint64(1), np.uint64(width), np.uint64(height * width)
    for z in range(first, last):
        for y in range(ddf.shape[2]):
            for x in range(ddf.shape[3]):
                pz, py, px = ddf[0, z, y, x] + ticks[z], ddf[1, z, y, x] + ticks[y], ddf[2, z, y, x] + ticks[x]
                if ticks[0] <= pz < far_z and ticks[0] <= py < far_y and ticks[0] <= px < far_x:
                    iz, iy, ix = int(pz), int(py), int(px)
                    fz, fy, fx = pz - ticks[iz], py - ticks[iy], px - ticks[ix]
                    near = np.uint64((iz * height + iy) * width + ix)
                    far = near + behind
                    for c in range(image.shape[0]):
                        v = image[c]
                        v00 = v[near] + (v[near + right] - v[near]) * fx
                        v01 = v[near + below] + (v[near + below + right] - v[near + below]) * fx
                        v10 = v[far] + (v[far + right] - v[far]) * fx
                        v11 = v[far + below] + (v[far + below + right] - v[far + below]) * fx
                        v0, v1 = v00 + (v01 - v00) * fy, v10 + (v11 - v10) * fy
                        value = v0 + (v1 - v0) * fz
                        out[c, z, y, x] = value + ddf[c, z, y, x] if add_ddf else value
                    continue
                z0, z1, wz0, wz1, _, _ = locate(pz, ticks, depth, zeros)
                y0, y1, wy0, wy1, _, _ = locate(py, ticks, height, zeros)
                x0, x1, wx0, wx1, _, _ = locate(px, ticks, width, zeros)
                c00, c01 = (z0 * height + y0) * width, (z0 * height + y1) * width
                c10, c11 = (z1 * height + y0) * width, (z1 * height + y1) * width
                for c in range(image.shape[0]):
                    v = image[c]
                    v00, v01 = v[c00 + x0] * wx0 + v[c00 + x1] * wx1, v[c01 + x0] * wx0 + v[c01 + x1] * wx1
                    v10, v11 = v[c10 + x0] * wx0 + v[c10 + x1] * wx1, v[c11 + x0] * wx0 + v[c11 + x1] * wx1
                    value = (v00 * wy0 + v01 * wy1) * wz0 + (v10 * wy0 + v11 * wy1) * wz1
                    out[c, z, y, x] = value + ddf[c, z, y, x] if add_ddf else value


@compiled
def slope_planes(first, last, image, size, ticks, ddf, above, grad, zeros, add_ddf):
    """Gradient by the ddf at planes first to last - 1: the slope of the samples times the gradient ``above`` them."""
    depth, height, width = size
    far_z, far_y, far_x = ticks[depth - 1], ticks[height - 1], ticks[width - 1]
    right, below, behind = np.uint64(1), np.uint64(width), np.uint64(height * width)
    for z in range(first, last):
        for y in range(ddf.shape[2]):
            for x in range(ddf.shape[3]):
                pz, py, px = ddf[0, z, y, x] + ticks[z], ddf[1, z, y, x] + ticks[y], ddf[2, z, y, x] + ticks[x]
                by_z = by_y = by_x = ticks[0]
                if ticks[0] < pz < far_z and ticks[0] < py < far_y and ticks[0] < px < far_x:
                    iz, iy, ix = int(pz), int(py), int(px)
                    fz, fy, fx = pz - ticks[iz], py - ticks[iy], px - ticks[ix]
                    near = np.uint64((iz * height + iy) * width + ix)
                    far = near + behind
                    for c in range(image.shape[0]):
                        v, g = image[c], above[c, z, y, x]
                        d00, d01 = v[near + right] - v[near], v[near + below + right] - v[near + below]
                        d10, d11 = v[far + right] - v[far], v[far + below + right] - v[far + below]
                        v00, v01 = v[near] + d00 * fx, v[near + below] + d01 * fx
                        v10, v11 = v[far] + d10 * fx, v[far + below] + d11 * fx
                        e0, e1 = v01 - v00, v11 - v10
                        by_z += g * (v10 + e1 * fy - v00 - e0 * fy)
                        by_y += g * (e0 + (e1 - e0) * fz)
                        d0, d1 = d00 + (d01 - d00) * fy, d10 + (d11 - d10) * fy
                        by_x += g * (d0 + (d1 - d0) * fz)
                else:
                    z0, z1, wz0, wz1, dz0, dz1 = locate(pz, ticks, depth, zeros)
                    y0, y1, wy0, wy1, dy0, dy1 = locate(py, ticks, height, zeros)
                    x0, x1, wx0, wx1, dx0, dx1 = locate(px, ticks, width, zeros)
                    c00, c01 = (z0 * height + y0) * width, (z0 * height + y1) * width
                    c10, c11 = (z1 * height + y0) * width, (z1 * height + y1) * width
                    for c in range(image.shape[0]):
                        v, g = image[c], above[c, z, y, x]
                        v00, v01 = v[c00 + x0] * wx0 + v[c00 + x1] * wx1, v[c01 + x0] * wx0 + v[c01 + x1] * wx1
                        v10, v11 = v[c10 + x0] * wx0 + v[c10 + x1] * wx1, v[c11 + x0] * wx0 + v[c11 + x1] * wx1
                        d00, d01 = v[c00 + x0] * dx0 + v[c00 + x1] * dx1, v[c01 + x0] * dx0 + v[c01 + x1] * dx1
                        d10, d11 = v[c10 + x0] * dx0 + v[c10 + x1] * dx1, v[c11 + x0] * dx0 + v[c11 + x1] * dx1
                        by_z += g * ((v00 * wy0 + v01 * wy1) * dz0 + (v10 * wy0 + v11 * wy1) * dz1)
                        by_y += g * ((v00 * dy0 + v01 * dy1) * wz0 + (v10 * dy0 + v11 * dy1) * wz1)
                        by_x += g * ((d00 * wy0 + d01 * wy1) * wz0 + (d10 * wy0 + d11 * wy1) * wz1)
                grad[0, z, y, x] = by_z + above[0, z, y, x] if add_ddf else by_z
                grad[1, z, y, x] = by_y + above[1, z, y, x] if add_ddf else by_y
                grad[2, z, y, x] = by_x + above[2, z, y, x] if add_ddf else by_x


@compiled
def splat_planes(first, last, grid, size, ticks, ddf, values, zeros):
    """Add what belongs to planes first to last - 1 into a flat grid."""
    depth, height, width = size
    far_z, far_y, far_x = ticks[depth - 1], ticks[height - 1], ticks[width - 1]
    right, below, behind = np.uint64(1), np.uint64(width), np.uint64(height * width)
    for z in range(first, last):
        for y in range(ddf.shape[2]):
            for x in range(ddf.shape[3]):
                pz, py, px = ddf[0, z, y, x] + ticks[z], ddf[1, z, y, x] + ticks[y], ddf[2, z, y, x] + ticks[x]
                if ticks[0] <= pz < far_z and ticks[0] <= py < far_y and ticks[0] <= px < far_x:
                    iz, iy, ix = int(pz), int(py), int(px)
                    fz, fy, fx = pz - ticks[iz], py - ticks[iy], px - ticks[ix]
                    near = np.uint64((iz * height + iy) * width + ix)
                    far = near + behind
                    for c in range(grid.shape[0]):
                        v = grid[c]
                        v1 = values[c, z, y, x] * fz
                        v0 = values[c, z, y, x] - v1
                        v01, v11 = v0 * fy, v1 * fy
                        v00, v10 = v0 - v01, v1 - v11
                        v[near] += v00 - v00 * fx
                        v[near + right] += v00 * fx
                        v[near + below] += v01 - v01 * fx
                        v[near + below + right] += v01 * fx
                        v[far] += v10 - v10 * fx
                        v[far + right] += v10 * fx
                        v[far + below] += v11 - v11 * fx
                        v[far + below + right] += v11 * fx
                    continue
                z0, z1, wz0, wz1, _, _ = locate(pz, ticks, depth, zeros)
                y0, y1, wy0, wy1, _, _ = locate(py, ticks, height, zeros)
                x0, x1, wx0, wx1, _, _ = locate(px, ticks, width, zeros)
                c00, c01 = (z0 * height + y0) * width, (z0 * height + y1) * width
                c10, c11 = (z1 * height + y0) * width, (z1 * height + y1) * width
                for c in range(grid.shape[0]):
                    v = grid[c]
                    v0, v1 = values[c, z, y, x] * wz0, values[c, z, y, x] * wz1
                    v[c00 + x0] += v0 * wy0 * wx0
                    v[c00 + x1] += v0 * wy0 * wx1
                    v[c01 + x0] += v0 * wy1 * wx0
                    v[c01 + x1] += v0 * wy1 * wx1
                    v[c10 + x0] += v1 * wy0 * wx0
                    v[c10 + x1] += v1 * wy0 * wx1
                    v[c11 + x0] += v1 * wy1 * wx0
                    v[c11 + x1] += v1 * wy1 * wx1
