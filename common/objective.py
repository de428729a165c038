"""What a network that answers with one field is trained on: similarity, overlap, landmarks and smoothness."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from .errors import RegInputError
from .losses import GradientLoss, LandmarkLoss, LNCCLoss
from .soft_dice import SoftDiceLoss
from .spatial import warp

__all__ = ["Fields", "PairLoss", "check_pair"]


class Fields(NamedTuple):
    """A network's answer in training, both (B, N, *S) in voxels on the image's own grid."""

    svf: Tensor
    """What the regularizer acts on: the velocity, or the displacement itself where nothing is integrated."""
    ddf: Tensor
    """What the images are warped with."""


class PairLoss(nn.Module):
    """``w_sim sim(moving o ddf, fixed) + w_smooth |grad svf| + w_dice dice + w_landmark distance``.

    Args:
        similarity: "lncc" or "mse".
        kernel_size: LNCC's odd window in voxels; it shrinks to the shortest side of a smaller image.
        backend: LNCC's, see :func:`common.lncc.lncc`.
        similarity_weight: w_sim.
        smooth_weight: w_smooth, on forward differences in voxels.
        smooth_norm: "l1" or "l2".
        dice_weight: w_dice; above 0 the batch must hold ``moving_label`` and ``fixed_label``.
        num_labels: labels run from 0 (background, counted) to this minus one.
        landmark_weight: w_landmark; above 0 the batch must hold ``moving_keypoints`` and ``fixed_keypoints``.
        spacing_mm: voxel size for that distance in mm; in voxels if None.
        padding_mode: what the moving image is beyond its border: "zeros" or "border".

    Source: arXiv 1809.05231, eq. 4 and 9 (VoxelMorph), whose form the other networks' publications keep.
    """

    def __init__(
        self,
        similarity: str = "lncc",
        kernel_size: int = 9,
        backend: str = "auto",
        similarity_weight: float = 1.0,
        smooth_weight: float = 1.0,
        smooth_norm: str = "l2",
        dice_weight: float = 0.0,
        num_labels: int = 2,
        landmark_weight: float = 0.0,
        spacing_mm: Sequence[float] | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        if similarity not in ("lncc", "mse"):
            raise ValueError(f"similarity must be 'lncc' or 'mse', got {similarity!r}.")
        self.similarity = similarity
        self.kernel_size = kernel_size
        self.backend = backend
        self.similarity_weight = similarity_weight
        self.smoothness = GradientLoss(smooth_norm)
        self.smooth_weight = smooth_weight
        self.dice_weight = dice_weight
        self.overlap = SoftDiceLoss(num_labels, padding_mode=padding_mode)
        self.landmark_weight = landmark_weight
        self.landmarks = LandmarkLoss(spacing_mm)
        self.padding_mode = padding_mode

    def forward(self, fields: Fields, pair: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss.

        Args:
            fields: what the network's ``fields(image)`` returns.
            pair: ``moving`` and ``fixed`` (B, 1, *S), and what the weights need: the integer labels (B, 1, *S), the
                keypoints (B, K, N) in voxels.

        Raises:
            RegInputError: if the pair lacks what a weight needs, or a label is not below ``num_labels``.
        """
        check_pair(pair, label=self.dice_weight > 0, keypoints=self.landmark_weight > 0)
        warped = warp(pair["moving"], fields.ddf, padding_mode=self.padding_mode)
        total = self.similarity_weight * self.compare(warped, pair["fixed"])
        total = total + self.smooth_weight * self.smoothness(fields.svf)
        if self.dice_weight > 0:
            total = total + self.dice_weight * self.overlap(fields.ddf, pair["moving_label"], pair["fixed_label"])
        if self.landmark_weight > 0:
            keypoints = pair["fixed_keypoints"], pair["moving_keypoints"]
            total = total + self.landmark_weight * self.landmarks(fields.ddf, *keypoints)
        return total

    def compare(self, warped: Tensor, fixed: Tensor) -> Tensor:
        """The similarity term of two images (B, 1, *S), 0 for a perfect fit."""
        if self.similarity == "mse":
            return F.mse_loss(warped, fixed)
        shortest = min(fixed.shape[2:])
        return LNCCLoss(min(self.kernel_size, shortest - 1 + shortest % 2), backend=self.backend)(warped, fixed)


def check_pair(pair: Mapping[str, Tensor], label: bool = False, keypoints: bool = False) -> None:
    """Raise ``RegInputError`` unless both images of a training pair have what a weight above 0 needs."""
    for part, needed in (("label", label), ("keypoints", keypoints)):
        lacking = [f"{role}_{part}" for role in ("moving", "fixed") if f"{role}_{part}" not in pair]
        if needed and lacking:
            raise RegInputError(
                f"a training pair has no {' and no '.join(lacking)}, expected {part} of both images, because their "
                "weight in the loss is above 0; add them to the datalist or set the weight to 0."
            )
