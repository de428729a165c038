"""Occupancy: how often a displacement field visits each voxel of the moving image, and how uneven that is.

Every fixed voxel drops a unit of mass at its sampling position, shared linearly among the voxels around it. That is the
adjoint of sampling with zeros outside: the sum of ``warp(m, ddf)`` equals the sum of ``m * occupancy(ddf)``. So its
gradient is a sampling: what a voxel's displacement changes is the slope of the upstream gradient where it lands.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from operator import mul

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .errors import RegInputError
from .spatial import at_least_float32, identity_grid

__all__ = ["OccupancyLoss", "occupancy"]

MARGIN = 2  # voxels around the moving grid that catch what falls outside: the two corners of a cell along an axis
EPS = 1e-12  # under the root, whose slope at 0 is infinite


def occupancy(ddf: Tensor, moving_size: Sequence[int] | None = None, *, deterministic: bool = False) -> Tensor:
    """Mass that each voxel of the moving grid gets from the sampling positions of a field.

    Args:
        ddf: (B, N, *S_fixed) in voxels, two or three axes; gradients reach it (first order).
        moving_size: spatial size of the moving grid; by default that of the fixed one.
        deterministic: add in a fixed order on CUDA too. Adding with atomics, the default there, rounds in whatever
            order the threads arrive; a fixed order sorts the positions first, which is slower. It holds whether or not
            ``torch.use_deterministic_algorithms`` is on, and raises nothing where that is. On a CPU the order is always
            the same, and the gradient only ever reads, so that it is deterministic everywhere.

    Returns:
        (B, 1, *moving_size), float32 at least: 1 everywhere for the identity on equal grids. What lands outside is
        dropped, half of a voxel's mass for a position half a voxel outside.

    Raises:
        RegInputError: if the field does not have a component per axis, or ``moving_size`` an entry.

    Source: L. Zhou et al., arXiv:2503.00760, who name the tensor without a formula; this one is ours.
    """
    size = tuple(ddf.shape[2:] if moving_size is None else moving_size)
    if ddf.ndim not in (4, 5) or ddf.shape[1] != ddf.ndim - 2 or len(size) != ddf.shape[1] or min(size) < 1:
        raise RegInputError(
            f"occupancy got a ddf of shape {tuple(ddf.shape)} for a moving image of size {size}, expected (B, 2, H, W) "
            "or (B, 3, D, H, W) and as many sides; give a field with one component an axis."
        )
    return Splat.apply(at_least_float32(ddf.as_subclass(Tensor)), size, deterministic)


class OccupancyLoss(nn.Module):
    """Root mean square of the forward differences of the occupancy, 0 where every moving voxel is visited alike.

    ``sqrt(mean over axes of mean((B(y + e) - B(y))**2) + 1e-12)``, the mean over the batch.

    Args:
        deterministic: as in :func:`occupancy`.

    Source: L. Zhou et al., arXiv:2503.00760, "root mean square deviation of the differences along x, y and z".
    """

    def __init__(self, deterministic: bool = False) -> None:
        super().__init__()
        self.deterministic = deterministic

    def forward(self, ddf: Tensor, moving_size: Sequence[int] | None = None) -> Tensor:
        """Scalar loss of (B, N, *S) in voxels."""
        mass = occupancy(ddf, moving_size, deterministic=self.deterministic)[:, 0]
        differences = [mass.diff(dim=axis).flatten(1) for axis in range(1, mass.ndim)]
        squares = [d.square().sum(1) / max(d.shape[1], 1) for d in differences]  # an axis of one voxel has none
        return torch.sqrt(torch.stack(squares).mean(0) + EPS).mean()

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"deterministic={self.deterministic}"


class Splat(torch.autograd.Function):
    """(B, N, *S) displacements to (B, 1, *size) mass, on a grid with a margin that catches what falls outside."""

    @staticmethod
    def forward(ctx, ddf: Tensor, size: tuple[int, ...], deterministic: bool) -> Tensor:
        padded = [side + 2 * MARGIN for side in size]
        index, fractions = cells(ddf, size, padded)
        ctx.save_for_backward(index, *fractions)
        ctx.padded, ctx.shape = padded, ddf.shape
        mass = ddf.new_zeros(len(ddf) * prod(padded))
        scatter(mass, index, torch.ones_like(fractions[0]), fractions, strides_of(padded), deterministic)
        inner = [slice(MARGIN, -MARGIN)] * len(size)
        return mass.view(len(ddf), 1, *padded)[(..., *inner)].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        index, *fractions = ctx.saved_tensors
        flat = F.pad(upstream, [MARGIN] * 2 * len(ctx.padded)).flatten()
        _, slopes = interpolate(lambda offset: flat[index + offset], fractions, strides_of(ctx.padded))
        return torch.stack(slopes).view(ctx.shape[1], ctx.shape[0], *ctx.shape[2:]).transpose(0, 1), None, None


def cells(ddf: Tensor, size: Sequence[int], padded: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Where every position lies: the flat index of its cell's first corner in the padded grids, and the rest.

    The cell is that of the displacement alone, whose rounding does not grow with the coordinate.

    Returns:
        int64 (B * prod(S),), and for each axis how far into the cell, in [0, 1), of that shape.
    """
    below = ddf.floor()
    fractions = [part.reshape(-1) for part in (ddf - below).unbind(1)]
    corner = identity_grid(list(ddf.shape[2:]), ddf) + below
    first = torch.arange(len(ddf), device=ddf.device) * prod(padded)
    index = first.view(-1, *[1] * (ddf.ndim - 2)).expand(len(ddf), *ddf.shape[2:])
    for axis, (side, stride) in enumerate(zip(size, strides_of(padded), strict=True)):
        inside = corner[:, axis].clamp(-MARGIN, side).nan_to_num(0)  # where nan keeps its weight, and shows
        index = index + (inside.long() + MARGIN) * stride
    return index.reshape(-1), fractions


def strides_of(size: Sequence[int]) -> list[int]:
    """Distance of neighbors along each axis of a contiguous grid."""
    return list(accumulate(reversed(size[1:]), mul, initial=1))[::-1]


def scatter(
    mass: Tensor, index: Tensor, weight: Tensor, fractions: Sequence[Tensor], strides: Sequence[int], sort: bool
) -> None:
    """Add ``weight`` to the corners of each cell, shared along one axis after the other."""
    if not fractions:
        if sort and mass.is_cuda:
            mass.index_put_((index,), weight, accumulate=True)  # sorts on CUDA; elsewhere index_add_ is sequential
        else:
            mass.index_add_(0, index, weight)
        return
    far = weight * fractions[0]
    scatter(mass, index, weight - far, fractions[1:], strides[1:], sort)
    scatter(mass, index + strides[0], far, fractions[1:], strides[1:], sort)


def interpolate(
    corner: Callable[[int], Tensor], fractions: Sequence[Tensor], strides: Sequence[int], offset: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """Linear interpolation within each cell, and its slope along each axis.

    Args:
        corner: the values at the cells' corner that lies ``offset`` behind the first.
        fractions: how far into the cell along each axis.
        strides: of the axes.
        offset: of the corner to begin with.
    """
    if not fractions:
        return corner(offset), []
    near, near_slopes = interpolate(corner, fractions[1:], strides[1:], offset)
    far, far_slopes = interpolate(corner, fractions[1:], strides[1:], offset + strides[0])
    slopes = [torch.lerp(a, b, fractions[0]) for a, b in zip(near_slopes, far_slopes, strict=True)]
    return torch.lerp(near, far, fractions[0]), [far - near, *slopes]
