"""EOIR: one shallow encoder on both images, a feature pyramid by halving, one small flow estimator per level.

Source: Chen et al., "Encoder-Only Image Registration", arXiv 2509.00451, and its repository
github.com/XiangChen1994/EOIR (MIT) where the text is silent.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from common.flow import integrate
from common.padding import crop_to, pad_to_multiple
from common.spatial import compose, upsample, warp

__all__ = ["EOIR", "Levels"]


class Levels(NamedTuple):
    """What EOIR says at each level, finest first."""

    svf: list[Tensor]
    """Residual velocities (or displacements where nothing is integrated) before integration, for the regularizer."""
    ddf: list[Tensor]
    """Displacements composed down to the level, on the grid where the similarity is taken."""


class EOIR(nn.Module):
    """Encoder-only registration network; the defaults are the paper's base model.

    Args:
        spatial_dims: 2 or 3.
        channels: N_s, the encoder's output channels: 8, 16, 32 or 64 in the paper.
        encoder_depth: number of convolution blocks, 0 to 6; 0 feeds the intensities themselves to the estimators.
            The paper's 3 are N_s, 2 N_s, N_s wide; other depths are wide in the middle likewise.
        levels: pyramid levels; level k works on a grid that was halved k times.
        estimator_radius: K_s; the estimators' bottleneck has (2 K_s + 1)**spatial_dims channels.
        integrate_steps: squarings per level; 0 reads the estimators' output as displacements, which are composed but
            not guaranteed diffeomorphic.
        large_kernel: a large-kernel block ends the encoder's widest stage and begins every estimator (OASIS).
        half_resolution: features are halved once before the first level, so the finest field has stride 2 and is
            upsampled (OASIS).
        pyramid_factor: how much each level shrinks each axis; (2, 2, 1) keeps the through-plane axis (ACDC).
        double_all_axes: upsampling doubles the through-plane component too although its axis was not halved, as the
            published ACDC code does. Ignored where every axis is halved.

    ``forward`` is scriptable. Images of any size are zero-padded at the far end to the pyramid's stride inside.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        channels: int = 32,
        encoder_depth: int = 3,
        levels: int = 5,
        estimator_radius: int = 1,
        integrate_steps: int = 7,
        large_kernel: bool = False,
        half_resolution: bool = False,
        pyramid_factor: tuple[int, ...] | None = None,
        double_all_axes: bool = False,
    ) -> None:
        super().__init__()
        factor = tuple(pyramid_factor or (2,) * spatial_dims)
        if spatial_dims not in (2, 3) or len(factor) != spatial_dims:
            raise ValueError(f"spatial_dims must be 2 or 3 with a factor per axis, got {spatial_dims} and {factor}.")
        if not 0 <= encoder_depth <= 6:
            raise ValueError(f"encoder_depth must be 0 to 6, got {encoder_depth}.")
        self.factor: list[int] = list(factor)
        self.ddf_factor: list[float] = [2.0 if double_all_axes else float(f) for f in factor]
        self.stride: list[int] = [f ** (levels - 1 + int(half_resolution)) for f in factor]
        self.integrate_steps = integrate_steps
        self.half_resolution = half_resolution
        self.levels = levels

        self.encoder, features = make_encoder(spatial_dims, channels, encoder_depth, large_kernel)
        bottleneck = (2 * estimator_radius + 1) ** spatial_dims
        self.estimators = nn.ModuleList(
            make_estimator(spatial_dims, 2 * features, bottleneck, large_kernel) for _ in range(levels)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels."""
        return crop_to(self.estimate(image)[1][0], image.shape[2:])

    @torch.jit.ignore
    def pyramid(self, image: Tensor) -> Levels:
        """All levels of a pair (B, 2, *S), finest first, on grids padded to the pyramid's stride, for training."""
        return Levels(*self.estimate(image))

    def estimate(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Residual and composed fields per level, finest first; see :class:`Levels`."""
        moving, fixed = self.encode(self.pad(image))
        svfs: list[Tensor] = []
        ddfs: list[Tensor] = []
        ddf = torch.zeros(0)
        for i, estimator in enumerate(self.estimators):  # stored coarse to fine, as they are applied
            m, f = moving[self.levels - 1 - i], fixed[self.levels - 1 - i]
            if i > 0:
                ddf = upsample(ddf, f.shape[2:], self.ddf_factor)
                m = warp(m, ddf, padding_mode="zeros")
            svf = estimator(torch.cat([f + m, f - m], dim=1))
            residual = integrate(svf, self.integrate_steps, "zeros") if self.integrate_steps > 0 else svf
            ddf = compose(ddf, residual, "zeros") if i > 0 else residual
            svfs.insert(0, svf)
            ddfs.insert(0, ddf)
        if self.half_resolution:
            ddfs = [upsample(field, self.finer(field.shape[2:]), self.ddf_factor) for field in ddfs]
        return svfs, ddfs

    def encode(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Feature pyramids of the moving and the fixed image, finest first; both images pass as one batch."""
        moving, fixed = image.chunk(2, dim=1)
        features = self.encoder(torch.cat([moving, fixed], dim=0))
        if self.half_resolution:
            features = self.halve(features)
        moving_levels, fixed_levels = [features[: len(moving)]], [features[len(moving) :]]
        for _ in range(self.levels - 1):
            features = self.halve(features)
            moving_levels.append(features[: len(moving)])
            fixed_levels.append(features[len(moving) :])
        return moving_levels, fixed_levels

    def pad(self, image: Tensor) -> Tensor:
        """Zero-pad the far end of each axis to a multiple of the pyramid's stride (at least two coarse voxels)."""
        return pad_to_multiple(image, self.stride, 2)

    def halve(self, features: Tensor) -> Tensor:
        """Linear resampling by the pyramid's factor, first and last voxel centers kept."""
        size = [n // f for n, f in zip(features.shape[2:], self.factor)]  # noqa: B905 (TorchScript)
        mode = "trilinear" if features.ndim == 5 else "bilinear"
        return F.interpolate(features, size, mode=mode, align_corners=True)

    def finer(self, size: list[int]) -> list[int]:
        """Size of the grid one level up."""
        return [n * f for n, f in zip(size, self.factor)]  # noqa: B905 (TorchScript)


class LargeKernelBlock(nn.Module):
    """Parallel 3, 5 and 1 wide convolutions, each normalized, summed with the identity, one activation."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                Conv[Conv.CONV, spatial_dims](channels, channels, k, padding=k // 2), norm(spatial_dims, channels)
            )
            for k in (3, 5, 1)
        )
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape (B, C, *S)."""
        total = x
        for branch in self.branches:
            total = total + branch(x)
        return self.activation(total)


def make_encoder(spatial_dims: int, channels: int, depth: int, large_kernel: bool) -> tuple[nn.Sequential, int]:
    """The encoder at full resolution and the number of its output channels."""
    widths = [1] + [channels * (1 if k in (0, depth - 1) else 2) for k in range(depth)]
    blocks: list[nn.Module] = [conv_block(spatial_dims, a, b) for a, b in pairwise(widths)]
    if large_kernel:
        blocks.insert(len(blocks) - 1, LargeKernelBlock(spatial_dims, widths[-2]))
    return nn.Sequential(*blocks), widths[-1]


def make_estimator(spatial_dims: int, channels: int, bottleneck: int, large_kernel: bool) -> nn.Sequential:
    """Sum and difference of the features -> residual field; the last convolution is the flow head."""
    conv = Conv[Conv.CONV, spatial_dims]
    first = (
        [LargeKernelBlock(spatial_dims, channels)]
        if large_kernel
        else [conv(channels, channels, 3, padding=1), nn.ReLU()]
    )
    return nn.Sequential(
        *first, conv(channels, bottleneck, 3, padding=1), nn.ReLU(), conv(bottleneck, spatial_dims, 3, padding=1)
    )


def conv_block(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """Convolution 3 wide, instance normalization without parameters, PReLU with one."""
    return nn.Sequential(
        Conv[Conv.CONV, spatial_dims](in_channels, out_channels, 3, padding=1),
        norm(spatial_dims, out_channels),
        nn.PReLU(),
    )


def norm(spatial_dims: int, channels: int) -> nn.Module:
    """Instance normalization without learned parameters."""
    return nn.InstanceNorm3d(channels) if spatial_dims == 3 else nn.InstanceNorm2d(channels)
