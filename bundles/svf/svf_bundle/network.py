"""SVF: no network and no weights; the stationary velocity that aligns a pair is found when the pair is given.

The method is ``common.velocity``; this is its form behind the contract of the bundles' networks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import RegInputError
from common.instance import Plateau
from common.losses import GradientLoss
from common.progress import step_bar
from common.similarity import make_similarity
from common.spatial import at_least_float32
from common.velocity import VelocityRegistration, displacement

__all__ = ["LEVELS", "SVF"]

LEVELS = ((8, 8, 20), (4, 4, 20), (2, 2, 10), (2, 1, 4))


class SVF(nn.Module):
    """Registers each pair that it is given; gradients are switched on inside, whatever the caller has.

    The same input gives the same field on one machine, device and number of threads: nothing is drawn at random.

    Args:
        similarity: "lncc" for images of one modality (the default), "mse" where their intensities are the same too,
            "mind" (MIND-SSC) or "mi" (mutual information) across modalities.
        kernel_size: odd window of "lncc", voxels of each level's grid.
        mind_radius: of the patches of "mind", voxels; 0 for clean scans, 1 or 2 for noisy ones.
        mind_dilation: how far apart these are, voxels.
        levels: coarse to fine, (velocity shrink, image shrink, steps) each, see
            :class:`common.velocity.VelocityRegistration`; so are the next five.
        learning_rate: mean length of a step, voxels.
        momentum: of the steps.
        force_sigma: of the Gaussian over the force, voxels.
        velocity_sigma: of the Gaussian over the velocity, voxels: more is smoother.
        divergence_weight: how much changes of volume are held down; 0 for lungs.
        smooth_weight: of a further penalty, the squared gradient of the velocity.
        patience: end a level once the loss has not fallen for so many steps; None takes them all.
        tolerance: smallest relative fall that counts for that.
        progress: draw a bar.

    Raises:
        RegInputError: for settings that make no optimisation.
    """

    def __init__(
        self,
        similarity: str = "lncc",
        kernel_size: int = 5,
        mind_radius: int = 0,
        mind_dilation: int = 1,
        levels: Sequence[Sequence[float]] = LEVELS,
        learning_rate: float = 0.15,
        momentum: float = 0.5,
        force_sigma: float = 1.0,
        velocity_sigma: float = 0.5,
        divergence_weight: float = 0.4,
        smooth_weight: float = 0.0,
        patience: int | None = None,
        tolerance: float = 1e-4,
        progress: bool = True,
    ) -> None:
        super().__init__()
        if smooth_weight < 0:
            raise RegInputError(f"smooth_weight is {smooth_weight}, expected 0 or more; raise it.")
        self.registration = VelocityRegistration(
            make_similarity(similarity, kernel_size, mind_radius, mind_dilation),
            levels,
            learning_rate=learning_rate,
            momentum=momentum,
            force_sigma=force_sigma,
            velocity_sigma=velocity_sigma,
            divergence_weight=divergence_weight,
            regularizer=Weighted(GradientLoss("l2"), smooth_weight) if smooth_weight else None,
            stop=None if patience is None else Plateau(patience, tolerance),
        )
        self.progress = progress

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels, one pair after the other.

        A third channel, where there is one, is a mask: the similarity counts where it is above 0.

        Raises:
            RegInputError: if the image is no pair in 2-D or 3-D, or its mask is empty.
            RegNumericsError: if the loss is not finite.
        """
        with torch.no_grad():
            return torch.cat([displacement(svf, list(image.shape[2:])) for svf in self.velocities(image)])

    def with_inverse(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The ddf of :meth:`forward` and its inverse, (B, N, *S) each: the flow of the velocity run backward."""
        size, svfs = list(image.shape[2:]), self.velocities(image)
        with torch.no_grad():
            return tuple(torch.cat([displacement(sign * svf, size) for svf in svfs]) for sign in (1, -1))

    def velocities(self, image: Tensor) -> list[Tensor]:
        """The stationary velocity of each pair, (1, N, *T) in voxels of its own grid over the same field of view."""
        if image.ndim not in (4, 5) or image.shape[1] not in (2, 3):
            raise RegInputError(
                f"SVF got an image of shape {tuple(image.shape)}, expected (B, 2, H, W) or (B, 2, D, H, W), channel 0 "
                "moving and 1 fixed (and 2 a mask); stack one moving and one fixed image."
            )
        with torch.inference_mode(False), torch.autocast(image.device.type, enabled=False):
            pairs = at_least_float32(image.as_subclass(Tensor)).detach().clone()  # inference mode's own have no graph
            return [self._register(*pair.split(1, dim=1)) for pair in pairs.split(1)]

    def _register(self, moving: Tensor, fixed: Tensor, mask: Tensor | None = None) -> Tensor:
        with step_bar("SVF", self.registration.steps, self.progress) as report:
            return self.registration.velocity(moving, fixed, mask=mask, report=report)


class Weighted(nn.Module):
    """A loss times a weight."""

    def __init__(self, loss: nn.Module, weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight

    def forward(self, *arguments: Tensor) -> Tensor:
        """Scalar."""
        return self.weight * self.loss(*arguments)
