"""What SYMNet is trained on: both directions of a pair, their meeting in the middle, and maps that do not fold.

Source: Mok and Chung, CVPR 2020, arXiv 2003.09514, as its authors' program computes it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.objective import Fields, PairLoss
from common.spatial import at_least_float32, warp

from .network import SymmetricFields

__all__ = ["SymmetricLoss", "forward_jacobian", "magnitude_difference", "orientation_penalty"]


class SymmetricLoss(nn.Module):
    """``L(moving -> fixed) + L(fixed -> moving) + w_sim sim(in the middle) + w_mag magnitude + w_ori orientation``.

    L is :class:`common.objective.PairLoss`: similarity, smoothness of that direction's velocity and, where their
    weights are above 0, overlap and landmarks, which the publication does not have.

    Args:
        magnitude_weight: w_mag, of how much longer one way to the middle is than the other.
        orientation_weight: w_ori, of both maps' folds.
        settings: of ``PairLoss``: ``similarity``, ``kernel_size``, ``smooth_weight`` and so on; w_sim is its
            ``similarity_weight``, ``padding_mode`` that of every warp.
    """

    def __init__(self, magnitude_weight: float = 0.001, orientation_weight: float = 100.0, **settings: Any) -> None:
        super().__init__()
        self.direction = PairLoss(**settings)
        self.magnitude_weight = magnitude_weight
        self.orientation_weight = orientation_weight

    def forward(self, fields: SymmetricFields, pair: Mapping[str, Tensor]) -> Tensor:
        """Scalar loss.

        Args:
            fields: what ``SYMNet.fields(image)`` returns.
            pair: ``moving`` and ``fixed`` (B, 1, *S), and what the weights need, as in ``PairLoss``.

        Raises:
            RegInputError: if the pair lacks what a weight needs, or a label is not below ``num_labels``.
        """
        total = self.direction(Fields(fields.moving_svf, fields.ddf), pair)
        total = total + self.direction(Fields(fields.fixed_svf, fields.inverse), exchanged(pair))
        total = total + self.direction.similarity_weight * self.in_the_middle(fields, pair)
        total = total + self.magnitude_weight * magnitude_difference(fields.moving_half, fields.fixed_half)
        folds = orientation_penalty(fields.ddf) + orientation_penalty(fields.inverse)
        return total + self.orientation_weight * folds

    def in_the_middle(self, fields: SymmetricFields, pair: Mapping[str, Tensor]) -> Tensor:
        """The similarity term of both images where they meet."""
        mode = self.direction.padding_mode
        moving = warp(pair["moving"], fields.moving_half, padding_mode=mode)
        return self.direction.compare(moving, warp(pair["fixed"], fields.fixed_half, padding_mode=mode))


def exchanged(pair: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same pair, the moving image fixed and the fixed one moving, with their labels and landmarks."""
    other = {"moving": "fixed", "fixed": "moving"}
    roles = {key: key.split("_")[0] for key in pair}
    return {key.replace(role, other.get(role, role), 1): pair[key] for key, role in roles.items()}


def magnitude_difference(first: Tensor, second: Tensor) -> Tensor:
    """``|mean |first| - mean |second||``, scalar, in voxels, of two fields (B, N, *S): 0 for ways of equal length."""
    return (at_least_float32(first).abs().mean() - at_least_float32(second).abs().mean()).abs()


def orientation_penalty(ddf: Tensor) -> Tensor:
    """Mean of ``max(0, -det J)``, scalar: 0 unless x + ddf(x), (B, N, *S) in voxels, turns space inside out.

    Source: the local orientation consistency of arXiv 2003.09514, with forward differences as in the authors' program.
    An axis of one voxel has none, and the penalty is 0.
    """
    determinant = forward_jacobian(at_least_float32(ddf))
    return F.relu(-determinant).mean() if determinant.numel() > 0 else determinant.sum()


def forward_jacobian(ddf: Tensor) -> Tensor:
    """Determinant of the Jacobian of x + ddf(x) by forward differences, (B, *S - 1), N = 2 or 3.

    Differs: :func:`common.spatial.jacobian_determinant` takes central differences, which a field that alternates from
    voxel to voxel escapes.
    """
    ndim = ddf.shape[1]
    columns = []
    for axis in range(ndim):
        difference = ddf.diff(dim=2 + axis)
        for other in range(ndim):  # every column on the voxels that have a next one along every axis
            difference = difference.narrow(2 + other, 0, ddf.shape[2 + other] - 1)
        unit = torch.eye(ndim, dtype=ddf.dtype, device=ddf.device)[axis]
        columns.append(difference + unit.view(1, -1, *[1] * ndim))
    if ndim == 2:
        return columns[0][:, 0] * columns[1][:, 1] - columns[0][:, 1] * columns[1][:, 0]
    return (torch.linalg.cross(columns[0], columns[1], dim=1) * columns[2]).sum(dim=1)
