"""What a stage is trained on: similarity and the operator's energy, whose gradient is taken in the operator's space.

Source: arXiv 2404.04244, section II-B, eq. 3 and 4.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.losses import GradientLoss, LNCCLoss
from common.sobolev import apply_kernel, operator_energy, sobolev_gradient
from common.spatial import warp

__all__ = ["OperatorLoss", "PatchFields", "end_point_force"]

GRADIENTS = ("exact", "printed")
REGULARIZERS = ("operator", "gradient")


class PatchFields(NamedTuple):
    """Patches and what a stage's network says of them."""

    svf: Tensor
    """(P, N, *S) in voxels per unit time."""
    moving: Tensor
    """(P, 1, *S), warped by the earlier stages."""
    fixed: Tensor
    """(P, 1, *S)."""
    alpha: float
    """Of the stage's operator, see :mod:`common.sobolev`."""


class OperatorLoss(nn.Module):
    """``1 - lncc(moving o phi(svf), fixed) + lambda |L svf|^2``, its gradient by svf smoothed by ``K = (L* L)^-1``.

    LNCC is a mean over voxels and ``|L svf|^2`` a sum over a patch's, svf in voxels: the one reading of the paper under
    which its numbers balance the two. Each patch is a periodic unit cube to L. Velocities do not change with time, so
    eq. 3's sum over time steps is one term.

    Args:
        flow: maps a velocity to a ddf, as the network's own does at inference.
        kernel_size: LNCC's odd window in voxels; it shrinks to the shortest side of a smaller patch.
        backend: LNCC's, see :func:`common.lncc.lncc`.
        sigma: lambda is ``smooth_weight * sigma**2``.
        smooth_weight: a multiplier, 1 as the paper's sigma says.
        gradient: "exact", of the similarity through warp and integration; or "printed", eq. 4 as it stands, times
            2 lambda: the force at the end point, as if the flow had no time in between, over 2 sigma^2. It follows from
            eq. 3 only where lambda is sigma^2; elsewhere ``smooth_weight`` scales all of it and balances nothing.
        regularizer: "operator"; or "gradient", ``smooth_weight`` times the mean squared forward differences and no K,
            which other networks' losses have: the paper's comparison.

    Raises:
        ValueError: for another gradient or regularizer, or "printed" without the operator.
    """

    def __init__(
        self,
        flow: nn.Module,
        kernel_size: int = 7,
        backend: str = "auto",
        sigma: float = 0.001,
        smooth_weight: float = 1.0,
        gradient: str = "exact",
        regularizer: str = "operator",
    ) -> None:
        super().__init__()
        if gradient not in GRADIENTS or regularizer not in REGULARIZERS:
            raise ValueError(
                f"gradient must be one of {GRADIENTS} and regularizer one of {REGULARIZERS}, got {gradient!r} and "
                f"{regularizer!r}."
            )
        if gradient == "printed" and regularizer != "operator":
            raise ValueError(f"gradient 'printed' is the operator's, got it with regularizer {regularizer!r}.")
        self.flow = flow
        self.kernel_size = kernel_size
        self.backend = backend
        self.sigma = sigma
        self.smooth_weight = smooth_weight
        self.gradient = gradient
        self.regularizer = regularizer
        self.roughness = GradientLoss("l2")

    @property
    def energy_weight(self) -> float:
        """The paper's lambda."""
        return self.smooth_weight * self.sigma**2

    def forward(self, fields: PatchFields, pair: Mapping[str, Tensor] | None = None) -> Tensor:
        """Scalar loss, the mean over the patches.

        Args:
            fields: what :class:`~.training.PatchView` returns.
            pair: the whole images; not looked at.
        """
        if self.regularizer == "gradient":
            return self.compare(fields, self.flow(fields.svf)) + self.smooth_weight * self.roughness(fields.svf)
        if self.gradient == "printed":
            return self.printed(fields)
        fields = fields._replace(svf=sobolev_gradient(fields.svf, fields.alpha))
        return self.compare(fields, self.flow(fields.svf)) + self.energy_weight * self.energy(fields)

    def printed(self, fields: PatchFields) -> Tensor:
        """The loss, with the gradient that eq. 4 says it has."""
        svf = fields.svf.detach()
        with torch.enable_grad():  # a validation without gradients may ask for the value
            warped = warp(fields.moving, self.flow(svf), padding_mode="border").requires_grad_()
            similarity = self.similarity(warped, fields.fixed)
            (by_warped,) = torch.autograd.grad(similarity, warped)
        force = apply_kernel(end_point_force(warped.detach(), by_warped), fields.alpha) / (2 * self.sigma**2)
        gradient = 2 * self.energy_weight * (force + svf / len(svf))  # by_warped is of the patches' mean already
        value = similarity.detach() + self.energy_weight * self.energy(fields).detach()
        linear = (fields.svf * gradient).sum()  # its gradient is the one asked for
        return value + linear - linear.detach()

    def compare(self, fields: PatchFields, ddf: Tensor) -> Tensor:
        """The similarity term under a ddf."""
        return self.similarity(warp(fields.moving, ddf, padding_mode="border"), fields.fixed)

    def similarity(self, warped: Tensor, fixed: Tensor) -> Tensor:
        """``1 - mean(lncc)``, 0 for a perfect fit."""
        shortest = min(fixed.shape[2:])
        return LNCCLoss(min(self.kernel_size, shortest - 1 + shortest % 2), backend=self.backend)(warped, fixed)

    @staticmethod
    def energy(fields: PatchFields) -> Tensor:
        """``|L svf|^2``, the mean over the patches."""
        return operator_energy(fields.svf, fields.alpha).mean()


def end_point_force(warped: Tensor, by_warped: Tensor) -> Tensor:
    """A similarity's derivative by the warped image times that image's gradient, ``dL/dJ grad J`` of eq. 4.

    Args:
        warped: (P, 1, *S).
        by_warped: the derivative of the loss by each of its voxels, the same shape.

    Returns:
        (P, N, *S): how the loss grows where the displacement does, the image's gradient by central differences. The
        paper's sign is the other one, because its velocity carries the image along, and here points are displaced.
    """
    axes = tuple(range(1, warped.ndim - 1))
    return by_warped * torch.stack(torch.gradient(warped[:, 0], dim=axes), dim=1)
