"""Refine a network's answer to one pair by a few steps of optimisation of that pair."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .errors import RegInputError
from .progress import step_bar
from .similarity import make_similarity
from .spatial import at_least_float32
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

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S) to a ddf (B, N, *S) in voxels, gradients switched on inside, whatever the caller has.

        A third channel is a mask, for networks that take one: the similarity counts where it is above 0.
        """
        ddf = self.network(image)
        if self.steps == 0:
            return ddf
        with torch.inference_mode(False), torch.autocast(image.device.type, enabled=False):
            pairs, starts = (at_least_float32(x.as_subclass(Tensor)).detach().clone() for x in (image, ddf))
            fields = [self._refined(*pair) for pair in zip(pairs.split(1), starts.split(1), strict=True)]
        return torch.cat(fields).to(ddf.dtype)

    def _refined(self, pair: Tensor, start: Tensor) -> Tensor:
        moving, fixed, mask = channels(pair)
        with step_bar("refinement", self.steps, self.progress) as report:
            svf = self.registration.velocity(moving, fixed, start=start, mask=mask, report=report)
        with torch.no_grad():
            return displacement(svf, list(pair.shape[2:]), start)


def channels(pair: Tensor) -> Sequence[Tensor | None]:
    """Moving image, fixed image and, where there is a third channel, mask of (1, C, *S)."""
    return pair[:, :1], pair[:, 1:2], pair[:, 2:3] if pair.shape[1] > 2 else None
