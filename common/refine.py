"""Refine a network's answer to one pair by a few steps of optimisation of that pair."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .errors import RegInputError
from .progress import step_bar
from .similarity import make_similarity
from .spatial import at_least_float32, compose
from .velocity import VelocityRegistration, displacement

__all__ = ["RefinedNetwork"]


class RefinedNetwork(nn.Module):
    """A registration network followed by the optimisation of a velocity, pair by pair.

    The network's ddf stays as it is; the velocity's flow, a diffeomorphism, is applied after it. What was
    diffeomorphic remains so. Steps see the images at full resolution, the velocity has half of it.

    Args:
        network: maps (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels.
        steps: 0 leaves the network's answer alone.
        similarity: what the steps improve, one of ``common.similarity.SIMILARITIES``.
        kernel_size: odd window of "lncc", voxels.
        settings: of :class:`common.velocity.VelocityRegistration`, such as ``velocity_sigma``.
        progress: draw a bar.
        mask_to_network: whether the network takes a third channel, a mask; otherwise only the steps heed it.

    Raises:
        RegInputError: for a negative number of steps, or settings that make no optimisation.
    """

    def __init__(
        self,
        network: nn.Module,
        steps: int = 0,
        similarity: str = "lncc",
        kernel_size: int = 5,
        settings: dict | None = None,
        progress: bool = True,
        mask_to_network: bool = False,
    ) -> None:
        super().__init__()
        if steps < 0 or int(steps) != steps:
            raise RegInputError(f"refine_steps is {steps}, expected a whole number of steps, 0 for none; correct it.")
        self.network = network
        self.steps = int(steps)
        self.registration = VelocityRegistration(
            make_similarity(similarity, kernel_size), [(2, 1, self.steps)], **(settings or {})
        )
        self.progress = progress
        self.channels = 3 if mask_to_network else 2

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S) to a ddf (B, N, *S) in voxels, gradients switched on inside, whatever the caller has.

        A third channel is a mask: the similarity of the steps, and of a network that takes it, counts where it is above
        0.
        """
        ddf = self.network(image[:, : self.channels])
        return self._after(ddf, self._velocities(image, ddf)) if self.steps else ddf

    def with_inverse(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The ddf of :meth:`forward` and its inverse, (B, N, *S) each; None where the network knows no inverse.

        Refined, the inverse is the network's after the flow of the velocity run backward.
        """
        if not hasattr(self.network, "with_inverse"):
            return self(image), None
        ddf, inverse = self.network.with_inverse(image[:, : self.channels])
        if self.steps == 0:
            return ddf, inverse
        velocities, size = self._velocities(image, ddf), list(image.shape[2:])
        with torch.no_grad():
            back = torch.cat([displacement(-velocity, size) for velocity in velocities])
            return self._after(ddf, velocities), compose(back, inverse).to(ddf.dtype)

    @torch.no_grad()
    def _after(self, ddf: Tensor, velocities: list[Tensor]) -> Tensor:
        """Each velocity's flow after each pair's ddf."""
        pairs = zip(velocities, at_least_float32(ddf).split(1), strict=True)
        return torch.cat([displacement(svf, list(ddf.shape[2:]), start) for svf, start in pairs]).to(ddf.dtype)

    def _velocities(self, image: Tensor, ddf: Tensor) -> list[Tensor]:
        """The velocity that follows each pair's ddf."""
        with torch.inference_mode(False), torch.autocast(image.device.type, enabled=False):
            pairs, starts = (at_least_float32(x.as_subclass(Tensor)).detach().clone() for x in (image, ddf))
            return [self._velocity(*pair) for pair in zip(pairs.split(1), starts.split(1), strict=True)]

    def _velocity(self, pair: Tensor, start: Tensor) -> Tensor:
        moving, fixed, mask = channels(pair)
        with step_bar("refinement", self.steps, self.progress) as report:
            return self.registration.velocity(moving, fixed, start=start, mask=mask, report=report)


def channels(pair: Tensor) -> Sequence[Tensor | None]:
    """Moving image, fixed image and, where there is a third channel, mask of (1, C, *S)."""
    return pair[:, :1], pair[:, 1:2], pair[:, 2:3] if pair.shape[1] > 2 else None
