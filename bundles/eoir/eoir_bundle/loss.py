"""EOIR's training objective: similarity, overlap and smoothness at every pyramid level, weighted 2**-level."""

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn
from torch.nn import functional as F

from common.losses import GradientLoss, LNCCLoss
from common.spatial import warp

from .network import Levels

__all__ = ["EOIRLoss"]


class EOIRLoss(nn.Module):
    """``sum_k 2**-k (w_sim sim_k + w_dice dice_k + w_smooth |grad svf_k|)`` over the levels, finest k = 0.

    Images and one-hot labels of coarser levels are blurred by a Gaussian of one voxel and halved, as the features are.

    Args:
        kernel_sizes: LNCC window in voxels per level, finest first; the last one serves any further level. A window
            shrinks to the grid where a small image's coarse level is shorter, and a level of two voxels has none.
            ``None`` takes the mean squared error instead (ACDC).
        similarity_weight: w_sim.
        smooth_weight: w_smooth, on the residual fields before integration, in voxels of their own level.
        smooth_norm: "l1" (abdomen, OASIS, ACDC) or "l2" (LUMIR).
        dice_weight: w_dice; above 0 the batch must hold ``moving_label`` and ``fixed_label``.
        num_labels: labels run from 0 (background, counted) to this minus one.

    Source: arXiv 2509.00451 and its repository's training scripts; those of abdomen, OASIS and ACDC apply each weight
    twice (w**2), which the configurations spell out.
    """

    def __init__(
        self,
        kernel_sizes: Sequence[int] | None = (9, 5, 3, 3, 3),
        similarity_weight: float = 1.0,
        smooth_weight: float = 1.0,
        smooth_norm: str = "l1",
        dice_weight: float = 0.0,
        num_labels: int = 2,
    ) -> None:
        super().__init__()
        self.kernel_sizes = list(kernel_sizes) if kernel_sizes else None
        self.similarity_weight = similarity_weight
        self.smoothness = GradientLoss(smooth_norm)
        self.smooth_weight = smooth_weight
        self.overlap = DiceLoss(include_background=True)
        self.dice_weight = dice_weight
        self.num_labels = num_labels

    def forward(self, levels: Levels, pair: dict[str, Tensor]) -> Tensor:
        """Scalar loss.

        Args:
            levels: what ``EOIR.pyramid`` returns.
            pair: ``moving`` and ``fixed`` (B, 1, *S), and the integer labels (B, 1, *S) if w_dice is above 0.
        """
        moving, fixed = pair["moving"], pair["fixed"]
        if self.dice_weight > 0:  # labels travel as further channels, warped and halved together with the image
            moving = torch.cat([moving, self._one_hot(pair, "moving_label")], dim=1)
            fixed = torch.cat([fixed, self._one_hot(pair, "fixed_label")], dim=1)
        total = moving.new_zeros(())
        for k, (svf, ddf) in enumerate(zip(levels.svf, levels.ddf, strict=True)):
            size = ddf.shape[2:]
            moving, fixed = (pad_end(x, size) if k == 0 else halve(x, size) for x in (moving, fixed))
            total = total + 0.5**k * self._level(k, moving, fixed, svf, ddf)
        return total

    def _level(self, k: int, moving: Tensor, fixed: Tensor, svf: Tensor, ddf: Tensor) -> Tensor:
        warped = warp(moving, ddf, padding_mode="zeros")
        loss = self.similarity_weight * self._similarity(k, warped[:, :1], fixed[:, :1])
        if self.dice_weight > 0:
            loss = loss + self.dice_weight * self.overlap(warped[:, 1:], fixed[:, 1:])
        return loss + self.smooth_weight * self.smoothness(svf)

    def _similarity(self, k: int, warped: Tensor, fixed: Tensor) -> Tensor:
        if self.kernel_sizes is None:
            return F.mse_loss(warped, fixed)
        shortest = min(fixed.shape[2:])
        window = min(self.kernel_sizes[min(k, len(self.kernel_sizes) - 1)], shortest - 1 + shortest % 2)
        return LNCCLoss(window)(warped, fixed) if window > 1 else warped.new_zeros(())

    def _one_hot(self, pair: dict[str, Tensor], key: str) -> Tensor:
        label = pair[key][:, 0].long()
        if int(label.max()) >= self.num_labels:
            raise ValueError(f"{key} holds {int(label.max())}, num_labels is {self.num_labels}; remap or raise it.")
        return F.one_hot(label, self.num_labels).movedim(-1, 1).to(pair["moving"].dtype)


def pad_end(image: Tensor, size: Sequence[int]) -> Tensor:
    """Zero-pad the far end of each axis up to ``size``, as the network does."""
    missing = [new - old for new, old in zip(size, image.shape[2:], strict=True)]
    return F.pad(image, [n for axis in reversed(missing) for n in (0, axis)])  # F.pad counts axes from the last


def halve(image: Tensor, size: Sequence[int]) -> Tensor:
    """Blur by a Gaussian of one voxel (five wide) and resample to ``size``, first and last voxel centers kept."""
    kernel = gaussian_1d(torch.ones(()), truncated=2.0, approx="sampled", normalize=True).to(image)
    blurred = separable_filtering(image, [kernel] * (image.ndim - 2), mode="zeros")
    mode = "trilinear" if image.ndim == 5 else "bilinear"
    return F.interpolate(blurred, list(size), mode=mode, align_corners=True)
