"""Patch FCN: stages of one U-Net each, whose velocities of patches are stitched, integrated and composed.

Source: Wu et al., "Fast Diffeomorphic Image Registration using Patch based Fully Convolutional Networks", arXiv
2404.04244.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.flow import integrate, integrate_semi_lagrangian
from common.padding import crop_to, pad_to_multiple
from common.spatial import compose, warp

from .fcn import VelocityFCN
from .windows import StitchedVelocity

__all__ = ["Flow", "PatchFCN"]


class Flow(nn.Module):
    """The displacement that a stationary velocity leads to at time 1; what lies outside goes on as at the border.

    Args:
        steps: equal time steps of the semi-Lagrangian scheme, or squarings.
        iterations: of the fixed point that gives the scheme its trajectories.
        squaring: scaling and squaring instead, with as many squarings as ``steps``.

    Raises:
        ValueError: for fewer than one step or iteration.
    """

    def __init__(self, steps: int = 10, iterations: int = 3, squaring: bool = False) -> None:
        super().__init__()
        if steps < 1 or iterations < 1:
            raise ValueError(f"steps and iterations must be 1 or more, got {steps} and {iterations}.")
        self.steps = steps
        self.iterations = iterations
        self.squaring = squaring

    def forward(self, svf: Tensor) -> Tensor:
        """Map a velocity (B, N, *S) to a ddf (B, N, *S), in voxels."""
        if self.squaring:
            return integrate(svf, self.steps)
        return integrate_semi_lagrangian(svf, self.steps, self.iterations)


class PatchFCN(nn.Module):
    """Registration in stages, coarse to fine; the defaults are the paper's, its widths where it names them.

    Every stage reads the moving image as the earlier ones warped it and the fixed one. Its network sees windows only;
    their velocities make one velocity of the whole volume, which is integrated there. Images are warped once, through
    the composition of all stages.

    Args:
        spatial_dims: 2 or 3.
        channels: of every stage's :class:`~.fcn.VelocityFCN`.
        stages: how many there are.
        patch_size: voxels along each axis that the networks see.
        core_size: voxels in the middle of a window whose velocity counts; see :class:`~.windows.StitchedVelocity`.
        windows_in_flight: windows that pass a network at once, which bounds the memory.
        overlap: half-overlapping windows, blended.
        integrate_steps: see :class:`Flow`.
        iterations: see :class:`Flow`.
        squaring: see :class:`Flow`.
        stages_in_use: the first so many stages answer, all if None; training raises it stage by stage.

    ``forward`` is scriptable. Images of any size are zero-padded at the far end to a multiple of ``core_size`` inside,
    and integrated there, so that the answer is that of the padded image. Before training it is the identity.

    Raises:
        ValueError: for settings that make none of these.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        stages: int = 3,
        patch_size: int = 64,
        core_size: int = 32,
        windows_in_flight: int = 16,
        overlap: bool = False,
        integrate_steps: int = 10,
        iterations: int = 3,
        squaring: bool = False,
        stages_in_use: int | None = None,
    ) -> None:
        super().__init__()
        in_use = stages if stages_in_use is None else stages_in_use
        if not 1 <= in_use <= stages:
            raise ValueError(f"stages_in_use must be 1 to {stages}, the number of stages, got {in_use}.")
        self.stride: list[int] = [core_size] * spatial_dims
        self.stages_in_use = in_use
        self.flow = Flow(integrate_steps, iterations, squaring)
        self.stages = nn.ModuleList(
            StitchedVelocity(
                VelocityFCN(spatial_dims, channels), spatial_dims, patch_size, core_size, windows_in_flight, overlap
            )
            for _ in range(stages)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels."""
        return self.register_pair(image, self.stages_in_use, False)[0]

    @torch.jit.ignore
    def with_inverse(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The ddf of :meth:`forward` and its inverse, the stages' flows run backward in the reverse order."""
        return self.register_pair(image, self.stages_in_use, True)

    def register_pair(self, image: Tensor, stages: int, inverse: bool) -> tuple[Tensor, Tensor]:
        """What the first ``stages`` of them say of a pair (B, 2, *S): the ddf and, where asked for, its inverse."""
        moving, fixed = pad_to_multiple(image, self.stride).chunk(2, dim=1)
        size, warped = image.shape[2:], moving
        ddf, back = torch.zeros(0), torch.zeros(0)
        for k, stage in enumerate(self.stages):
            if k < stages:
                svf = stage(torch.cat([warped, fixed], dim=1))
                ddf = self.flow(svf) if k == 0 else compose(ddf, self.flow(svf))
                if inverse:
                    back = self.flow(-svf) if k == 0 else compose(self.flow(-svf), back)
                if k + 1 < stages:
                    warped = warp(moving, ddf)
        return crop_to(ddf, size), crop_to(back, size) if inverse else back
