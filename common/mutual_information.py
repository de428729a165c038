"""Mutual information of two images and its gradient, from a joint histogram smoothed by cubic B-splines.

Every voxel touches four bins of each image, so it adds to sixteen entries of the histogram, and its gradient is a
lookup of the same sixteen in a table. Voxels are taken in chunks: no weights are kept, whatever the image's size.

Source: P. Thevenaz, M. Unser, IEEE Trans. Image Process. 2000, doi:10.1109/83.887976; D. Mattes et al., IEEE Trans.
Med. Imaging 2003, doi:10.1109/TMI.2003.809072.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from .errors import RegInputError

__all__ = ["MutualInformationLoss", "mutual_information"]

CHUNK = 1 << 14  # voxels: what a chunk needs, 4 MiB, stays in the cache
MIN_BINS = 5
Range = Sequence[float]


class Axis(NamedTuple):
    """Where intensities lie among the bins: low on the second, high on the last but one: windows stay inside."""

    low: float
    high: float
    bins: int

    @property
    def scale(self) -> float:
        """Bins per unit of intensity; 0 for a flat image, whose voxels all lie at one place and cannot move."""
        width = self.high - self.low
        return (self.bins - 3) / width if width > 0 else 0.0


def mutual_information(
    fixed: Tensor,
    warped: Tensor,
    bins: int = 32,
    fixed_mask: Tensor | None = None,
    *,
    fixed_range: Range | None = None,
    warped_range: Range | None = None,
) -> Tensor:
    r"""Mutual information :math:`\sum_{ij} p_{ij} \log \frac{p_{ij}}{p_i p_j}` of two images, in nats.

    p is the joint histogram in which every voxel counts with the product of two cubic B-splines about its intensities'
    positions among the bins, four bins wide each. The windows of an image sum to one, so the histograms of the single
    images are the joint one's margins. Images that are independent have about 0; the upper limit, the entropy of the
    binned image, is reached where its intensities are farther than four bins apart.

    Args:
        fixed: (B, 1, *S), finite; gradients reach both images.
        warped: the same shape.
        bins: of each image, 5 or more; the first and the last only take the windows' tails.
        fixed_mask: (B, 1, *S) or (1, 1, *S); voxels above 0 count. All do without one.
        fixed_range: intensities of the first and last position; those beyond are held there and have no gradient. By
            default the smallest and largest that count, taken as constants by the gradient.
        warped_range: the same of the other image. Give a fixed one in an optimization: nothing then depends on which
            voxel happens to be the brightest.

    Returns:
        0-D tensor, the mean over the batch; float32, or float64 if an image is. 0 without a gradient if an image is
        flat. Second derivatives do not exist.

    Raises:
        RegInputError: if the shapes do not fit, there are too few bins, a range is empty or no voxel counts.
    """
    check_request(fixed, warped, bins, fixed_mask)
    dtype = torch.promote_types(torch.promote_types(fixed.dtype, warped.dtype), torch.float32)
    values = []
    for index in range(len(fixed)):
        images = [image[index].as_subclass(Tensor).to(dtype).flatten() for image in (fixed, warped)]
        if fixed_mask is not None:
            counts = fixed_mask[index % len(fixed_mask)].as_subclass(Tensor).flatten() > 0
            images = [image[counts] for image in images]
        if images[0].numel() == 0:
            raise RegInputError("mutual_information got a mask without a voxel above 0, expected one; check the mask.")
        axes = [axis(*both, bins) for both in zip(images, (fixed_range, warped_range), strict=True)]
        values.append(ParzenInformation.apply(*images, *axes))
    return torch.stack(values).mean()


class MutualInformationLoss(nn.Module):
    """Negative :func:`mutual_information` of two images as a loss; see there for the arguments.

    Differs: MONAI's ``GlobalMutualInformationLoss`` puts Gaussian windows on both images, or, as Mattes et al., a
    cubic B-spline on the first and no window on the second, so that only the first has a gradient.
    """

    def __init__(self, bins: int = 32, fixed_range: Range | None = None, warped_range: Range | None = None) -> None:
        super().__init__()
        self.bins = bins
        self.fixed_range = fixed_range
        self.warped_range = warped_range

    def forward(self, warped: Tensor, fixed: Tensor, fixed_mask: Tensor | None = None) -> Tensor:
        """Scalar loss of two images (B, 1, *S) over the voxels of a mask."""
        ranges = {"fixed_range": self.fixed_range, "warped_range": self.warped_range}
        return -mutual_information(fixed, warped, self.bins, fixed_mask, **ranges)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"bins={self.bins}, fixed_range={self.fixed_range}, warped_range={self.warped_range}"


class ParzenInformation(torch.autograd.Function):
    """Mutual information of two lists of intensities (N,), each on its axis."""

    @staticmethod
    def forward(ctx: FunctionCtx, fixed: Tensor, warped: Tensor, fixed_axis: Axis, warped_axis: Axis) -> Tensor:
        """The joint histogram, its information, and the table of what another voxel in an entry would add to it."""
        joint = joint_histogram(fixed, warped, fixed_axis, warped_axis) / fixed.numel()
        ratio = joint / (joint.sum(dim=1, keepdim=True) * joint.sum(dim=0))
        table = torch.where(joint > 0, ratio, 1.0).log()
        ctx.save_for_backward(fixed, warped, table.to(fixed.dtype))
        ctx.axes = fixed_axis, warped_axis
        return (joint * table).sum().to(fixed.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The table, weighted by one image's window and the slope of the other's."""
        fixed, warped, table = ctx.saved_tensors
        fixed_axis, warped_axis = ctx.axes
        factor = grad / fixed.numel()
        grads = [torch.empty_like(fixed) if needed else None for needed in ctx.needs_input_grad[:2]]
        for part in chunks(fixed.numel()):
            rows, t_fixed = place(fixed[part], fixed_axis)
            columns, t_warped = place(warped[part], warped_axis)
            index = entries_of(rows, columns, warped_axis.bins)
            entries = table.view(-1).index_select(0, index.view(-1)).view_as(index)
            if grads[0] is not None:
                along = (entries * window(t_warped)).sum(dim=1)
                torch.mul((along * slope(t_fixed)).sum(dim=0), factor * fixed_axis.scale, out=grads[0][part])
                grads[0][part] *= inside(fixed[part], fixed_axis)
            if grads[1] is not None:
                along = (entries * window(t_fixed)[:, None]).sum(dim=0)
                torch.mul((along * slope(t_warped)).sum(dim=0), factor * warped_axis.scale, out=grads[1][part])
                grads[1][part] *= inside(warped[part], warped_axis)
        return *grads, None, None


def joint_histogram(fixed: Tensor, warped: Tensor, fixed_axis: Axis, warped_axis: Axis) -> Tensor:
    """(bins, bins), rows of the fixed image, float64: sums over millions of voxels are rounded in float32."""
    joint = torch.zeros(fixed_axis.bins * warped_axis.bins, dtype=torch.float64, device=fixed.device)
    for part in chunks(fixed.numel()):
        rows, t_fixed = place(fixed[part].double(), fixed_axis)
        columns, t_warped = place(warped[part].double(), warped_axis)
        weights = window(t_fixed)[:, None] * window(t_warped)
        joint.scatter_add_(0, entries_of(rows, columns, warped_axis.bins).flatten(), weights.flatten())
    return joint.view(fixed_axis.bins, warped_axis.bins)


def place(values: Tensor, axis: Axis) -> tuple[Tensor, Tensor]:
    """The first of the four bins of every value, int64 (n,), and how far it lies between the second and third."""
    position = ((values - axis.low) * axis.scale).clamp_(0, axis.bins - 3)
    first = position.floor().clamp_(max=axis.bins - 4)
    return first.long(), position.sub_(first)


def entries_of(rows: Tensor, columns: Tensor, bins: int) -> Tensor:
    """Flat indices (4, 4, n) of the sixteen entries of the joint histogram."""
    steps = torch.arange(4, device=rows.device)
    return (bins * steps[:, None] + steps)[..., None] + (bins * rows + columns)


def window(t: Tensor) -> Tensor:
    """Cubic B-spline at the four bins about positions (n,), as (4, n); sums to one."""
    u = 1 - t
    return torch.stack([u**3, 4 + 3 * t * t * (t - 2), 4 + 3 * u * u * (u - 2), t**3]).div_(6)


def slope(t: Tensor) -> Tensor:
    """Derivative of :func:`window` by the position, in bins."""
    u = 1 - t
    return torch.stack([-u * u, t * (3 * t - 4), u * (4 - 3 * u), t * t]).div_(2)


def inside(values: Tensor, axis: Axis) -> Tensor:
    """Whether values lie on the axis; those beyond were moved to its ends."""
    return (values >= axis.low) & (values <= axis.high)


def chunks(count: int) -> Iterator[slice]:
    """Slices of at most ``CHUNK``."""
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def axis(values: Tensor, given: Range | None, bins: int) -> Axis:
    """The axis of a range, or of the values' own."""
    if given is None:
        return Axis(*(float(end) for end in values.detach().aminmax()), bins)
    low, high = map(float, given)
    if not low < high:
        raise RegInputError(f"the intensity range is {low:g} to {high:g}, expected the lower end first; swap them.")
    return Axis(low, high, bins)


def check_request(fixed: Tensor, warped: Tensor, bins: int, fixed_mask: Tensor | None) -> None:
    """Raise RegInputError unless shapes and bins fit."""
    shape = tuple(fixed.shape)
    if fixed.shape != warped.shape or fixed.ndim < 3 or shape[1] != 1 or fixed.numel() == 0:
        raise RegInputError(
            f"mutual_information got images of shapes {shape} and {tuple(warped.shape)}, expected two of the same "
            "shape (B, 1, *S); resample one onto the other's grid."
        )
    if fixed_mask is not None and (fixed_mask.shape[1:] != shape[1:] or len(fixed_mask) not in (1, shape[0])):
        raise RegInputError(
            f"mutual_information got a mask of shape {tuple(fixed_mask.shape)} for images {shape}, expected the "
            "images' size; resample it onto their grid."
        )
    if bins < MIN_BINS:
        raise RegInputError(f"mutual_information got {bins} bins, expected at least {MIN_BINS}; take more.")
