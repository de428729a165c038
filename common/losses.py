"""Differentiable losses as modules; what MONAI has right (DiceLoss, BendingEnergyLoss, ...) is used from there."""

import torch
from torch import Tensor, nn

from .lncc import lncc_mean
from .spatial import at_least_float32

__all__ = ["GradientLoss", "LNCCLoss"]


class LNCCLoss(nn.Module):
    """Local normalized cross-correlation of two images as a loss, ``1 - mean(lncc)``, 0 for a perfect fit.

    Args:
        kernel_size: odd width of the box window in voxels.
        squared: squared correlation (every released code) or not (the text of the fast LNCC paper).
        backend: see :func:`common.lncc.lncc`.

    Differs: VoxelMorph and MONAI return ``-mean``; the constant makes curves of different windows comparable.
    """

    def __init__(self, kernel_size: int = 9, squared: bool = True, backend: str = "auto") -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.squared = squared
        self.backend = backend

    def forward(self, warped: Tensor, fixed: Tensor) -> Tensor:
        """Scalar loss of two images (B, C, *S)."""
        return 1 - lncc_mean(fixed, warped, self.kernel_size, squared=self.squared, backend=self.backend)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"kernel_size={self.kernel_size}, squared={self.squared}, backend={self.backend!r}"


class GradientLoss(nn.Module):
    """Mean of the absolute or squared forward differences of a field, averaged over the axes.

    Args:
        norm: "l1" (absolute) or "l2" (squared).

    Source: the smoothness term of VoxelMorph, arXiv 1809.05231, eq. 8.
    Differs: ``monai.losses.DiffusionLoss`` takes central differences, crops one voxel per side and, normalized, sums.
    """

    def __init__(self, norm: str = "l2") -> None:
        super().__init__()
        if norm not in ("l1", "l2"):
            raise ValueError(f"norm must be 'l1' or 'l2', got {norm!r}.")
        self.norm = norm

    def forward(self, field: Tensor) -> Tensor:
        """Scalar loss of a ddf or svf (B, N, *S) in voxels; an axis of one voxel has no gradient and counts as 0."""
        field = at_least_float32(field)
        axes = range(2, field.ndim)
        total = sum(self._size(field.diff(dim=axis)) for axis in axes if field.shape[axis] > 1)
        return total / len(axes)

    def _size(self, difference: Tensor) -> Tensor:
        return difference.abs().mean() if self.norm == "l1" else torch.square(difference).mean()
