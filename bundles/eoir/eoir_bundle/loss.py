"""EOIR's training objective: similarity, overlap and smoothness at every pyramid level, weighted 2**-level."""

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.losses import GradientLoss, LandmarkLoss, LNCCLoss
from common.metrics import present_labels
from common.objective import check_pair
from common.soft_dice import SoftDiceLoss
from common.spatial import warp

from .network import Levels

__all__ = ["EOIRLoss"]

LABELS_AT_ONCE = 4  # one-hot maps in memory: at 160x192x224 each takes 26 MiB, and its blur as much again twice


class EOIRLoss(nn.Module):
    """``sum_k 2**-k (w_sim sim_k + w_dice dice_k + w_smooth |grad svf_k|)`` over the levels, finest k = 0.

    Images and one-hot labels of coarser levels are blurred by a Gaussian of one voxel and halved, as the features are.
    Memory does not grow with the number of labels: the finest level needs no one-hot maps, and those of the coarser
    levels are made for a few labels at a time, in the backward pass once more.

    Args:
        kernel_sizes: LNCC window in voxels per level, finest first; the last one serves any further level. A window
            shrinks to the grid where a small image's coarse level is shorter, and a level of two voxels has none.
            ``None`` takes the mean squared error instead (ACDC).
        similarity_weight: w_sim.
        smooth_weight: w_smooth, on the residual fields before integration, in voxels of their own level.
        smooth_norm: "l1" (abdomen, OASIS, ACDC) or "l2" (LUMIR).
        dice_weight: w_dice; above 0 the batch must hold ``moving_label`` and ``fixed_label``.
        num_labels: labels run from 0 (background, counted) to this minus one.
        landmark_weight: weight of the landmarks' distance under the finest field, added to the sum; above 0 the batch
            must hold ``moving_keypoints`` and ``fixed_keypoints``. Not in the paper.
        spacing_mm: voxel size for that distance in mm; in voxels if None.

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
        landmark_weight: float = 0.0,
        spacing_mm: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.kernel_sizes = list(kernel_sizes) if kernel_sizes else None
        self.similarity_weight = similarity_weight
        self.smoothness = GradientLoss(smooth_norm)
        self.smooth_weight = smooth_weight
        self.dice_weight = dice_weight
        self.num_labels = num_labels
        self.finest_overlap = SoftDiceLoss(num_labels, padding_mode="zeros")
        self.overlap = DiceLoss(include_background=True, reduction="none")
        self.landmark_weight = landmark_weight
        self.landmarks = LandmarkLoss(spacing_mm)

    def forward(self, levels: Levels, pair: dict[str, Tensor]) -> Tensor:
        """Scalar loss.

        Args:
            levels: what ``EOIR.pyramid`` returns.
            pair: ``moving`` and ``fixed`` (B, 1, *S), the integer labels (B, 1, *S) if w_dice is above 0, and the
                keypoints (B, K, N) in voxels if the landmarks' weight is.

        Raises:
            RegInputError: if the pair lacks what a weight needs, or a label is not below ``num_labels``.
        """
        check_pair(pair, label=self.dice_weight > 0, keypoints=self.landmark_weight > 0)
        moving, fixed = pair["moving"], pair["fixed"]
        total = moving.new_zeros(())
        for k, (svf, ddf) in enumerate(zip(levels.svf, levels.ddf, strict=True)):
            size = ddf.shape[2:]
            moving, fixed = (pad_end(x, size) if k == 0 else halve(x, size) for x in (moving, fixed))
            similarity = self._similarity(k, warp(moving, ddf, padding_mode="zeros"), fixed)
            total = total + 0.5**k * (self.similarity_weight * similarity + self.smooth_weight * self.smoothness(svf))
        if self.dice_weight > 0:
            total = total + self.dice_weight * self._overlap(levels.ddf, pair["moving_label"], pair["fixed_label"])
        if self.landmark_weight > 0:
            keypoints = pair["fixed_keypoints"], pair["moving_keypoints"]
            total = total + self.landmark_weight * self.landmarks(levels.ddf[0], *keypoints)
        return total

    def _similarity(self, k: int, warped: Tensor, fixed: Tensor) -> Tensor:
        if self.kernel_sizes is None:
            return F.mse_loss(warped, fixed)
        shortest = min(fixed.shape[2:])
        window = min(self.kernel_sizes[min(k, len(self.kernel_sizes) - 1)], shortest - 1 + shortest % 2)
        return LNCCLoss(window)(warped, fixed) if window > 1 else warped.new_zeros(())

    def _overlap(self, ddfs: Sequence[Tensor], moving: Tensor, fixed: Tensor) -> Tensor:
        """``sum_k 2**-k dice_k``."""
        total = self.finest_overlap(ddfs[0], moving, pad_end(fixed, ddfs[0].shape[2:], value=-1))
        if len(ddfs) == 1:
            return total
        # labels that neither map has add 0, so they need no one-hot maps
        present = present_labels(moving, range(self.num_labels)) | present_labels(fixed, range(self.num_labels))
        for labels in present.any(dim=0).nonzero()[:, 0].split(LABELS_AT_ONCE):
            # checkpoint: the maps are made again in the backward pass instead of being kept for every label
            losses = checkpoint(self._coarse_overlap, labels, moving, fixed, *ddfs, use_reentrant=False)
            total = total + losses / self.num_labels
        return total

    def _coarse_overlap(self, labels: Tensor, moving: Tensor, fixed: Tensor, *ddfs: Tensor) -> Tensor:
        """``sum_k 2**-k sum_labels dice_k`` of the levels k > 0, the mean over the batch."""
        moving, fixed = (pad_end(one_hot(x, labels, ddfs[0]), ddfs[0].shape[2:]) for x in (moving, fixed))
        total = ddfs[0].new_zeros(())
        for k, ddf in enumerate(ddfs[1:], start=1):
            moving, fixed = (halve(x, ddf.shape[2:]) for x in (moving, fixed))
            losses = self.overlap(warp(moving, ddf, padding_mode="zeros"), fixed)
            total = total + 0.5**k * losses.sum() / len(ddf)
        return total


def one_hot(label: Tensor, labels: Tensor, like: Tensor) -> Tensor:
    """Maps (B, L, *S) of some labels (L,) from integers (B, 1, *S), in the dtype of ``like`` but float32 at least."""
    return (label == labels.view(1, -1, *[1] * (label.ndim - 2))).to(torch.promote_types(like.dtype, torch.float32))


def pad_end(image: Tensor, size: Sequence[int], value: float = 0) -> Tensor:
    """Pad the far end of each axis up to ``size``, as the network does."""
    missing = [new - old for new, old in zip(size, image.shape[2:], strict=True)]
    return F.pad(image, [n for axis in reversed(missing) for n in (0, axis)], value=value)  # from the last axis on


def halve(image: Tensor, size: Sequence[int]) -> Tensor:
    """Blur by a Gaussian of one voxel (five wide) and resample to ``size``, first and last voxel centers kept."""
    kernel = gaussian_1d(torch.ones(()), truncated=2.0, approx="sampled", normalize=True).to(image)
    blurred = separable_filtering(image, [kernel] * (image.ndim - 2), mode="zeros")
    mode = "trilinear" if image.ndim == 5 else "bilinear"
    return F.interpolate(blurred, list(size), mode=mode, align_corners=True)
