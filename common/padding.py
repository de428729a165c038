"""Zero-padding of images to a network's stride, and cropping of its answer back."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop_to", "pad_to_multiple"]


def pad_to_multiple(image: Tensor, stride: list[int], least: int = 1) -> Tensor:
    """Zero-pad the far end of each spatial axis to a multiple of ``stride``; scriptable.

    Args:
        image: (B, C, *S).
        stride: one number of voxels per spatial axis.
        least: multiples that an axis with a stride above 1 has at least.

    Returns:
        (B, C, *T) with T >= S; ``image`` itself where nothing is missing, but for ``torch.export``, whose one graph for
        every size pads by 0 too.
    """
    padding: list[int] = []
    for axis in range(image.ndim - 1, 1, -1):  # F.pad counts axes from the last
        step = stride[axis - 2]
        cells = larger((image.shape[axis] + step - 1) // step, least if step > 1 else 1)
        padding += [0, cells * step - image.shape[axis]]
    if not torch.jit.is_scripting():
        if torch.compiler.is_exporting():
            return F.pad(image, padding)
    return F.pad(image, padding) if sum(padding) > 0 else image


def crop_to(field: Tensor, size: list[int]) -> Tensor:
    """The near ``size`` voxels of each spatial axis of (B, C, *S), as a view: undoes :func:`pad_to_multiple`."""
    for axis in range(2, field.ndim):
        field = field.narrow(axis, 0, size[axis - 2])
    return field


def larger(a: int, b: int) -> int:
    """The larger of two sizes, which ``torch.export`` may know by symbols only."""
    if not torch.jit.is_scripting():
        return torch.sym_max(a, b)
    return max(a, b)
