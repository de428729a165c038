"""MIND-SSC, the modality independent neighborhood descriptor in its self-similarity context.

Each voxel is described by how much the patches around it differ from each other, which changes of contrast, even its
inversion, leave alone. Two scans of different modality become comparable by the mean squared difference of their
descriptors.

Source: M. P. Heinrich et al., MICCAI 2013, doi:10.1007/978-3-642-40811-3_24; the normalization as in the authors'
published programs.
"""

from collections.abc import Iterator
from itertools import combinations, product

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from .errors import RegInputError

__all__ = ["CHANNELS", "mind"]

CHANNELS = {2: 4, 3: 12}
"""Channels by the number of spatial axes."""
NOISE_RANGE = (1e-3, 1e3)  # of the local noise, as a multiple of its mean over the image


def mind(image: Tensor, radius: int = 2, dilation: int = 2) -> Tensor:
    r"""Descriptor of every voxel: one channel a pair of neighbors that are not opposite each other.

    The neighbors are the 2 N voxels at ``dilation`` along the axes, so there are 12 pairs in 3-D and 4 in 2-D. With
    :math:`D_k(x)` the mean squared difference of the two patches, of side ``2 radius + 1``, around the neighbors of
    pair k, channel k is :math:`\exp(-(D_k - \min_j D_j) / V)`, where V, the local noise, is the mean over k of
    :math:`D_k - \min_j D_j`, held between a thousandth and a thousand times its mean over the image. Where the image is
    flat everywhere all channels are 1. Outside its field of view the image continues with its border's values.

    The result does not change if the image is mapped to ``a * image + b``, a of either sign.

    Args:
        image: (B, 1, *S) with two or three spatial axes; finite.
        radius: of the patches, in voxels; 0 compares single voxels.
        dilation: distance of the neighbors, in voxels.

    Returns:
        (B, 12, *S), or (B, 4, *S) in 2-D, in [0, 1]; the largest channel of a voxel is 1. float32, or float64 if the
        image is. Its gradient is exact, but at ties of the smallest distance; second derivatives do not exist.

    Raises:
        RegInputError: if the image has several channels or another number of axes, or a length is out of range.
    """
    if image.ndim - 2 not in CHANNELS or image.shape[1] != 1 or image.numel() == 0:
        raise RegInputError(
            f"mind got an image of shape {list(image.shape)}, expected (B, 1, H, W) or (B, 1, D, H, W); describe one "
            "channel at a time."
        )
    if radius < 0 or dilation < 1:
        raise RegInputError(f"mind got radius {radius} and dilation {dilation}, expected at least 0 and 1; raise them.")
    image = image.as_subclass(Tensor).to(torch.promote_types(image.dtype, torch.float32))
    margin = radius + dilation
    padded = F.pad(image, (margin, margin) * (image.ndim - 2), mode="replicate")
    return Descriptor.apply(padded, radius, dilation)


class Descriptor(torch.autograd.Function):
    """MIND-SSC (B, K, *S) from an image padded by radius + dilation; what it keeps is the image and the result."""

    @staticmethod
    def forward(ctx: FunctionCtx, padded: Tensor, radius: int, dilation: int) -> Tensor:
        """Distances; the smallest subtracted, divided by the local noise; the exponential."""
        out = patch_distances(padded, radius, dilation)
        smallest, nearest = out.min(dim=1, keepdim=True)
        mean = out.mean(dim=1, keepdim=True).sub_(smallest)
        low, high = (factor * spatial_mean(mean) for factor in NOISE_RANGE)
        noise = mean.clamp(low, high)
        inverse = torch.where(noise > 0, 1 / noise, 0.0)
        out.sub_(smallest).mul_(-inverse).exp_()
        ctx.save_for_backward(padded, out, inverse, nearest, mean < low, mean > high)
        ctx.lengths = radius, dilation
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        """To the distances, then to the image."""
        padded, *kept = ctx.saved_tensors
        return spread_to_image(padded, gradient_of_distances(grad, *kept), *ctx.lengths), None, None


def patch_distances(padded: Tensor, radius: int, dilation: int) -> Tensor:
    """Mean squared differences of the patches of every pair, (B, K, *S).

    The pairs come in twos whose neighbors lie apart in the same direction: both are read from one map of squared
    differences, smoothed once, at two places. So 12 channels cost six box filters.
    """
    ndim = padded.ndim - 2
    size = [n - 2 * (radius + dilation) for n in padded.shape[2:]]
    out = padded.new_empty(len(padded), CHANNELS[ndim], *size)
    for k, (first, second, places) in enumerate(maps(size, radius, dilation)):
        distance = box_sum((padded[first] - padded[second]).square_(), radius)
        for channel, place in zip((2 * k, 2 * k + 1), places, strict=True):
            torch.mul(distance[place], (2 * radius + 1) ** -ndim, out=out[:, channel : channel + 1])
    return out


def gradient_of_distances(
    grad: Tensor, out: Tensor, inverse: Tensor, nearest: Tensor, below: Tensor, above: Tensor
) -> Tensor:
    """Gradient (B, K, *S) of the distances from that of the descriptors ``out``, whose logarithms are the exponents.

    Args:
        grad: of the descriptors.
        out: the descriptors.
        inverse: 1 over the local noise, (B, 1, *S); 0 in a flat image.
        nearest: channel of the smallest distance.
        below: where the noise is held at its lower bound, which then has the gradient.
        above: the same of the upper bound.
    """
    grad_noise = torch.zeros_like(inverse)
    for g, m in zip(grad.split(1, 1), out.split(1, 1), strict=True):  # one channel at a time stays in the cache
        grad_noise.addcmul_(g, m.clamp(min=torch.finfo(m.dtype).tiny).log_().mul_(m))
    grad_noise.mul_(-inverse)
    held = sum(
        factor * (grad_noise * where).sum(dim=spatial_axes(out), keepdim=True)
        for factor, where in zip(NOISE_RANGE, (below, above), strict=True)
    )
    grad_mean = grad_noise.masked_fill_(below | above, 0).add_(held / inverse[0].numel())
    grad_distances = (grad * out).mul_(-inverse).add_(grad_mean / out.shape[1])
    return grad_distances.scatter_add_(1, nearest, -grad_distances.sum(dim=1, keepdim=True))


def spread_to_image(padded: Tensor, grad: Tensor, radius: int, dilation: int) -> Tensor:
    """Gradient of the padded image from that of its distances: back through the filters, whose adjoint is the filter,
    to both voxels of every difference."""
    ndim = padded.ndim - 2
    grad_padded = torch.zeros_like(padded)
    for k, (first, second, places) in enumerate(maps(grad.shape[2:], radius, dilation)):
        difference = padded[first] - padded[second]
        sums = torch.zeros_like(difference[(..., *[slice(radius, n - radius) for n in difference.shape[2:]])])
        for channel, place in zip((2 * k, 2 * k + 1), places, strict=True):
            sums[place] += grad[:, channel : channel + 1]
        squares = box_sum(F.pad(sums, (2 * radius,) * (2 * ndim)), radius)
        difference.mul_(squares).mul_(2 * (2 * radius + 1) ** -ndim)
        grad_padded[first] += difference
        grad_padded[second] -= difference
    return grad_padded


def maps(size: list[int], radius: int, dilation: int) -> Iterator[tuple[tuple, tuple, list[tuple]]]:
    """For each direction in which two neighbors lie apart: the two regions of the padded image whose difference is
    taken, and the places of its two channels in the smoothed map.

    With axes i < j and a sign s the neighbors are d e_i and s d e_j, or -d e_i and -s d e_j. The map holds at y the
    patches at y and y - d e_i + s d e_j, so the channels read it at x + d e_i and x - s d e_j.
    """
    for (i, j), sign in product(combinations(range(len(size)), 2), (1, -1)):
        lengths = [n + 2 * radius for n in size]
        lengths[i] += dilation
        lengths[j] += dilation
        start = [dilation] * len(size)
        first, second = list(start), list(start)
        second[i] = 0
        (first if sign > 0 else second)[j] = 0
        near, far = [0] * len(size), [0] * len(size)
        far[i] = dilation
        (far if sign > 0 else near)[j] = dilation
        yield region(first, lengths), region(second, lengths), [region(far, size), region(near, size)]


def region(starts: list[int], lengths: list[int]) -> tuple:
    """Index of a box of voxels, all of batch and channels."""
    return (..., *[slice(start, start + length) for start, length in zip(starts, lengths, strict=True)])


def box_sum(field: Tensor, radius: int) -> Tensor:
    """Sums of (B, 1, *S) over the windows of side ``2 radius + 1`` that lie inside, axis by axis."""
    for axis in range(2, field.ndim):
        length = field.shape[axis] - 2 * radius
        total = field.narrow(axis, 0, length).clone()
        for offset in range(1, 2 * radius + 1):
            total += field.narrow(axis, offset, length)
        field = total
    return field


def spatial_axes(field: Tensor) -> tuple[int, ...]:
    """All axes but batch and channel."""
    return tuple(range(2, field.ndim))


def spatial_mean(field: Tensor) -> Tensor:
    """Mean of every image and channel, kept as axes of length one; accumulated in float64."""
    return field.mean(dim=spatial_axes(field), keepdim=True, dtype=torch.float64).to(field.dtype)
