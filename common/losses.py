"""Differentiable losses as modules; what MONAI has right (DiceLoss, BendingEnergyLoss, ...) is used from there.

The overlap of many labels is in ``soft_dice.py``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .lncc import lncc_mean
from .spatial import at_least_float32

__all__ = ["GradientLoss", "LNCCLoss", "LandmarkLoss"]


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


class LandmarkLoss(nn.Module):
    """Mean distance of corresponding landmarks, ``|fixed + ddf(fixed) - moving|``, over all that count in the batch.

    The ddf is interpolated linearly. A landmark does not count where one of the two is not finite (NaN pads pairs with
    fewer landmarks, see ``common.collate``) or the fixed one lies outside its grid, a voxel being a cell: there the ddf
    says nothing. A moving landmark outside its image counts: it is a point that the ddf can reach. Without any landmark
    that counts the loss is 0.

    Args:
        spacing_mm: voxel size along each array axis for a distance in mm; in voxels if None.
        eps: distances are ``sqrt(d**2 + eps**2) - eps``, smooth at 0, and short by at most this.
    """

    def __init__(self, spacing_mm: Sequence[float] | None = None, eps: float = 1e-3) -> None:
        super().__init__()
        if eps <= 0 or (spacing_mm is not None and min(spacing_mm) <= 0):
            raise ValueError(f"eps and spacing_mm must be above 0, got {eps} and {spacing_mm}.")
        self.spacing_mm = None if spacing_mm is None else [float(s) for s in spacing_mm]
        self.eps = eps

    def forward(self, ddf: Tensor, fixed_keypoints: Tensor, moving_keypoints: Tensor) -> Tensor:
        """Scalar loss.

        Args:
            ddf: (B, N, *S) in voxels of the fixed grid.
            fixed_keypoints: (B, K, N) voxel coordinates in array order.
            moving_keypoints: (B, K, N), in the same order.
        """
        ndim, shape = ddf.shape[1], fixed_keypoints.shape
        if shape != moving_keypoints.shape or len(shape) != 3 or shape[::2] != (len(ddf), ndim):
            raise ValueError(
                f"expected keypoints ({len(ddf)}, K, {ndim}) of both images, got {list(shape)} and "
                f"{list(moving_keypoints.shape)}."
            )
        limit = torch.tensor(ddf.shape[2:], dtype=torch.float32, device=ddf.device) - 0.5
        counts = torch.isfinite(fixed_keypoints + moving_keypoints).all(dim=-1)
        counts &= ((fixed_keypoints >= -0.5) & (fixed_keypoints <= limit)).all(dim=-1)
        # NaN times 0 is NaN, in gradients too: what does not count becomes a landmark at the origin
        fixed, moving = (torch.where(counts[..., None], x, 0.0) for x in (fixed_keypoints, moving_keypoints))
        error = fixed + sample(ddf, fixed) - moving
        if self.spacing_mm is not None:
            error = error * error.new_tensor(self.spacing_mm)
        distance = torch.sqrt(error.square().sum(dim=-1) + self.eps**2) - self.eps
        return (distance * counts).sum() / counts.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return f"spacing_mm={self.spacing_mm}, eps={self.eps}"


def sample(ddf: Tensor, points: Tensor) -> Tensor:
    """Displacements (B, K, N) at voxel coordinates (B, K, N), linear between voxels and constant past the border."""
    ddf = at_least_float32(ddf)
    span = torch.tensor(ddf.shape[2:], dtype=ddf.dtype, device=ddf.device).sub(1).clamp(min=1)
    grid = (points.to(ddf.dtype) * (2 / span) - 1).flip(-1)  # array axes (z, y, x) -> grid_sample's (x, y, z)
    grid = grid.view(len(ddf), -1, *[1] * (ddf.ndim - 3), ddf.shape[1])
    values = F.grid_sample(ddf, grid, "bilinear", "border", align_corners=True)
    return values.flatten(2).movedim(1, -1)
