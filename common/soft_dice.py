"""Soft Dice of many labels through a displacement field, without the labels' one-hot maps.

Linear interpolation of a one-hot map gives each label the sum of the weights of those corners that hold it. So all
sums of the Dice follow from one pass over the 2^N corners of every voxel, with one number a voxel and corner whatever
the number of labels; the gradient reaches the ddf through the weights.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .errors import RegInputError
from .metrics import present_labels
from .spatial import at_least_float32, identity_grid

__all__ = ["Overlap", "SoftDiceLoss", "overlap_sums", "soft_dice_loss"]

BLOCK = 2**17  # points handled at a time: what a step needs stays in the processor's cache
GPU_BLOCK = 2**22


class Overlap(NamedTuple):
    """The sums that the Dice of each label is made of, each (B, L), float64."""

    intersection: Tensor
    """Sum of warped one-hot times fixed one-hot."""
    warped: Tensor
    """Sum of the warped one-hot."""
    fixed: Tensor
    """Voxels of the fixed label."""


class SoftDiceLoss(nn.Module):
    """Mean over labels of one minus the soft Dice of linearly warped moving and fixed labels.

    Equals ``monai.losses.DiceLoss`` on ``common.spatial.warp`` of the one-hot maps, in value and gradient; its memory
    does not depend on the number of labels. Sums are float64.

    Args:
        num_labels: labels run from 0 to this minus one; negative values belong to no label in either map.
        include_background: count label 0.
        padding_mode: what lies outside the moving map, as in ``common.spatial.warp``: "border" continues its labels,
            "zeros" holds no label, not even background.
        skip_missing: leave a label that neither image has out of the mean; otherwise it counts as a perfect 0, as in
            MONAI, which makes the others count less.
        smooth: added to numerator and denominator.
    """

    def __init__(
        self,
        num_labels: int,
        include_background: bool = True,
        padding_mode: str = "border",
        skip_missing: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        if num_labels < 1 or padding_mode not in ("border", "zeros"):
            raise ValueError(
                f"expected a label and padding 'border' or 'zeros', got {num_labels} and {padding_mode!r}."
            )
        self.num_labels = num_labels
        self.include_background = include_background
        self.padding_mode = padding_mode
        self.skip_missing = skip_missing
        self.smooth = smooth

    def forward(self, ddf: Tensor, moving_label: Tensor, fixed_label: Tensor) -> Tensor:
        """Scalar loss in [0, 1], in the dtype of the ddf but float32 at least.

        Args:
            ddf: (B, N, *S) in voxels of the fixed grid.
            moving_label: (B, 1, *S_moving) of an integer dtype.
            fixed_label: (B, 1, *S) of an integer dtype.

        Raises:
            ValueError: if shapes disagree; as RegInputError if a label is not below ``num_labels``.
        """
        sums = overlap_sums(ddf, moving_label, fixed_label, self.num_labels, self.padding_mode)
        losses = soft_dice_loss(sums, self.smooth)
        kept = torch.ones_like(losses, dtype=torch.bool)
        if self.skip_missing:
            labels = range(self.num_labels)
            kept = present_labels(moving_label, labels) | present_labels(fixed_label, labels)
        first = 0 if self.include_background else 1
        losses, kept = losses[:, first:], kept[:, first:]
        mean = torch.where(kept, losses, 0).sum() / kept.sum().clamp(min=1)
        return mean.to(torch.promote_types(ddf.dtype, torch.float32))

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"num_labels={self.num_labels}, padding_mode={self.padding_mode!r}, skip_missing={self.skip_missing}"


def soft_dice_loss(sums: Overlap, smooth: float = 1e-5) -> Tensor:
    """1 - (2 intersection + smooth) / (warped + fixed + smooth) of each label, (B, L)."""
    return 1 - (2 * sums.intersection + smooth) / (sums.warped + sums.fixed + smooth)


def overlap_sums(
    ddf: Tensor, moving_label: Tensor, fixed_label: Tensor, num_labels: int, padding_mode: str = "border"
) -> Overlap:
    """Intersection and volumes of every label under a linear warp, differentiable once by ``ddf``.

    Arguments as for :class:`SoftDiceLoss`.
    """
    check_labels(ddf, moving_label, fixed_label, num_labels)
    rows = []
    for field, moving, fixed in zip(ddf, moving_label[:, 0], fixed_label[:, 0], strict=True):
        counted = torch.bincount(bins(fixed.flatten(), num_labels), minlength=num_labels + 1)
        sums = WarpedSums.apply(at_least_float32(field), moving, fixed, num_labels, padding_mode)
        rows.append((*sums, counted.double()))
    return Overlap(*(torch.stack(column)[:, :num_labels] for column in zip(*rows, strict=True)))


def check_labels(ddf: Tensor, moving_label: Tensor, fixed_label: Tensor, num_labels: int) -> None:
    """Refuse shapes that do not belong together, and labels that have no place."""
    batch, ndim = ddf.shape[0], ddf.ndim - 2
    shapes = (moving_label.shape, fixed_label.shape)
    if ndim != ddf.shape[1] or any(s[:2] != (batch, 1) or len(s) != ddf.ndim for s in shapes):
        raise ValueError(f"expected a ddf (B, N, *S) and labels (B, 1, *S), got {list(ddf.shape)} and {shapes}.")
    if fixed_label.shape[2:] != ddf.shape[2:]:
        raise ValueError(f"the ddf has size {list(ddf.shape[2:])} and fixed_label {list(fixed_label.shape[2:])}.")
    for name, label in (("moving_label", moving_label), ("fixed_label", fixed_label)):
        if int(label.max()) >= num_labels:
            raise RegInputError(f"{name} holds {int(label.max())}, num_labels is {num_labels}; remap or raise it.")


def bins(label: Tensor, num_labels: int) -> Tensor:
    """Labels as int64; what belongs to no label gets a bin of its own, after the others."""
    label = label.long()
    return torch.where(label < 0, num_labels, label)


class WarpedSums(torch.autograd.Function):
    """(ddf (N, *S), moving (*S_moving), fixed (*S)) -> intersection and warped volume (L + 1,), block by block."""

    @staticmethod
    def forward(ctx, ddf: Tensor, moving: Tensor, fixed: Tensor, num_labels: int, padding_mode: str):
        ctx.save_for_backward(ddf, moving, fixed)
        ctx.num_labels, ctx.padding_mode = num_labels, padding_mode
        sums = torch.zeros(2, num_labels + 1, dtype=torch.float64, device=ddf.device)
        for block in blocks(ddf, moving, fixed, num_labels, padding_mode):
            agreeing = torch.zeros_like(block.weights[0][0])
            for corner in corners(len(block.weights)):
                weight, label = block.weight(corner), block.label(corner)
                agreeing += weight * (label == block.fixed)
                sums[1] += torch.bincount(label, weight.double(), minlength=num_labels + 1)
            sums[0] += torch.bincount(block.fixed, agreeing.double(), minlength=num_labels + 1)
        return sums[0], sums[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, by_intersection: Tensor, by_warped: Tensor):
        ddf, moving, fixed = ctx.saved_tensors
        gradient = torch.empty_like(ddf)
        by_intersection, by_warped = by_intersection.to(ddf.dtype), by_warped.to(ddf.dtype)
        for block in blocks(ddf, moving, fixed, ctx.num_labels, ctx.padding_mode):
            total = torch.zeros(len(ddf), block.fixed.numel(), dtype=ddf.dtype, device=ddf.device)
            where_equal = by_intersection[block.fixed]
            for corner in corners(len(ddf)):
                label = block.label(corner)
                by_weight = by_warped[label] + where_equal * (label == block.fixed)
                for axis in range(len(ddf)):
                    total[axis].addcmul_(by_weight, block.slope(corner, axis))
            gradient[:, block.planes] = total.view(len(ddf), -1, *ddf.shape[2:])
        return gradient, None, None, None, None


class Block(NamedTuple):
    """Some planes of the fixed grid, n points: per axis and side of the cell what a corner's weight is made of."""

    planes: slice
    fixed: Tensor
    """Labels (n,)."""
    moving: Tensor
    """All labels of the moving map, flat."""
    weights: list[tuple[Tensor, Tensor]]
    slopes: list[tuple[Tensor, Tensor]]
    """Derivatives of the weights by the displacement along the axis."""
    indices: list[tuple[Tensor, Tensor]]
    """Summands of the corner's index into the flat moving map."""
    num_labels: int

    def weight(self, corner: tuple[int, ...]) -> Tensor:
        """Interpolation weight (n,) of a corner."""
        first, *rest = (side[c] for side, c in zip(self.weights, corner, strict=True))
        for factor in rest:
            first = first * factor
        return first

    def slope(self, corner: tuple[int, ...], axis: int) -> Tensor:
        """Derivative (n,) of the corner's weight by the displacement along ``axis``."""
        out = self.slopes[axis][corner[axis]]
        for k, c in enumerate(corner):
            out = out if k == axis else out * self.weights[k][c]
        return out

    def label(self, corner: tuple[int, ...]) -> Tensor:
        """Moving label (n,) at a corner."""
        return bins(self.moving[sum(side[c] for side, c in zip(self.indices, corner, strict=True))], self.num_labels)


def corners(ndim: int) -> Iterator[tuple[int, ...]]:
    """The corners of a cell: below (0) or above (1) along each axis."""
    return product((0, 1), repeat=ndim)


def blocks(ddf: Tensor, moving: Tensor, fixed: Tensor, num_labels: int, padding_mode: str) -> Iterator[Block]:
    """Walk over the fixed grid along its first axis."""
    limit = BLOCK if ddf.device.type == "cpu" else GPU_BLOCK
    step = max(1, limit // max(1, fixed[0].numel()))
    flat = moving.flatten()
    for start in range(0, fixed.shape[0], step):
        planes = slice(start, min(start + step, fixed.shape[0]))
        part = ddf[:, planes]
        grid = identity_grid(part.shape[1:], part)[0].to(ddf.dtype)
        sides, stride = [], flat.numel()
        for axis, size in enumerate(moving.shape):
            stride //= size
            points = (grid[axis] + (start if axis == 0 else 0) + part[axis]).flatten()
            sides.append(along(points, size, stride, padding_mode))
        weights, slopes, indices = (list(column) for column in zip(*sides, strict=True))
        yield Block(planes, bins(fixed[planes].flatten(), num_labels), flat, weights, slopes, indices, num_labels)


def along(points: Tensor, size: int, stride: int, padding_mode: str) -> tuple[tuple[Tensor, Tensor], ...]:
    """Weights, their slopes and index summands of the voxels below and above ``points`` (n,) along one axis."""
    moves = torch.ones_like(points)
    if padding_mode == "border" or size == 1:  # warp sees nothing outside of a single voxel either
        moves = ((points > 0) & (points < size - 1)).to(points.dtype)
        points = points.clamp(0, size - 1)
    below = points.floor()
    sides = []
    for voxel, weight, slope in ((below, below + 1 - points, -moves), (below + 1, points - below, moves)):
        inside = (voxel >= 0) & (voxel <= size - 1)
        sides.append((weight * inside, slope * inside, voxel.clamp(0, size - 1).nan_to_num().long() * stride))
    return tuple(zip(*sides, strict=True))
