"""LKU-Net: a plain U-Net whose encoder has a 5 wide convolution beside each 3 wide one.

Source: Jia et al., "U-Net vs Transformer: Is U-Net Outdated in Medical Image Registration?", arXiv 2208.04939, and its
repository github.com/xi-jia/LKU-Net (MIT), where the text is silent.
Differs: the repository defines a second flow head that nothing reads; here there is one, so published weights load
without their ``dc10``.
"""

from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from common.flow import integrate
from common.objective import Fields
from common.padding import crop_to, pad_to_multiple
from common.spatial import at_least_float32

__all__ = ["LKUNet", "LargeKernelBlock"]

ENCODER = (2, 4, 8, 8)
"""Channels after each halving, in units of the network's own."""
DECODER = ((8, 8, 4), (4, 4, 2), (2, 4, 2), (2, 2, 2))
"""Per doubling: channels of the doubled features, of the first and of the second convolution, in the same units."""
STRIDE = 16
SLOPE = 0.25  # of torch's PReLU before training
SHARE = 1 / 4  # of a block's variance: it sums three convolutions and the identity
HEAD_STD = 1e-5  # of the head's weights: training starts at the identity


class LKUNet(nn.Module):
    """The network that the paper calls LKU-Net_{c,5}, or LKU-Net-diff where it integrates.

    Args:
        channels: c, at full resolution: 4, 8 or 16 in the paper, 32 in its entry to Learn2Reg's OASIS task.
        spatial_dims: 2 or 3.
        integrate_steps: squarings that make the answer, read as a velocity, a diffeomorphism (7 in the paper); 0 reads
            it as a displacement.

    The last layer's range is (-1, 1), in units of half the grid: what it says is multiplied by (size - 1) / 2 along
    each axis, as the repository's sampler does, and not by size / 2, as its Jacobian does. ``forward`` is scriptable.
    Images of any size are zero-padded at the far end to a multiple of 16 inside, and the grid is the padded one.

    Differs: weights begin normal with the variance that keeps the features' size from layer to layer (He et al., arXiv
    1502.01852), those of the head near 0. The repository's begin as any convolution of torch: features shrink from
    layer to layer, and training does not begin at the identity.

    Raises:
        ValueError: for another number of axes, or a negative number of squarings.
    """

    def __init__(self, channels: int = 8, spatial_dims: int = 3, integrate_steps: int = 0) -> None:
        super().__init__()
        if spatial_dims not in (2, 3) or integrate_steps < 0:
            raise ValueError(
                f"spatial_dims must be 2 or 3 and integrate_steps 0 or more, got {spatial_dims} and {integrate_steps}."
            )
        self.stride = [STRIDE] * spatial_dims
        self.integrate_steps = integrate_steps
        widths = [channels, *(channels * width for width in ENCODER)]
        self.first = nn.Sequential(conv(spatial_dims, 2, channels), conv(spatial_dims, channels, channels))
        self.encoder = nn.ModuleList(
            nn.Sequential(conv(spatial_dims, before, after, stride=2), LargeKernelBlock(after, spatial_dims))
            for before, after in pairwise(widths)
        )
        self.doublings = nn.ModuleList(doubling(spatial_dims, channels * doubled) for doubled, _, _ in DECODER)
        self.decoder = nn.ModuleList(
            nn.Sequential(
                conv(spatial_dims, channels * doubled + skipped, channels * middle),
                conv(spatial_dims, channels * middle, channels * last),
            )
            for (doubled, middle, last), skipped in zip(DECODER, widths[-2::-1], strict=True)
        )
        head = Conv[Conv.CONV, spatial_dims](channels * DECODER[-1][-1], spatial_dims, 3, padding=1, bias=False)
        nn.init.normal_(head.weight, std=HEAD_STD)
        self.head = nn.Sequential(head, nn.Softsign())

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels."""
        return self.displace(self.estimate(image))

    @torch.jit.ignore
    def fields(self, image: Tensor) -> Fields:
        """The field that training keeps smooth, before integration, and the ddf, of a pair (B, 2, *S)."""
        svf = self.estimate(image)
        return Fields(svf, self.displace(svf))

    @torch.jit.ignore
    def with_inverse(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The ddf of :meth:`forward` and its inverse, the flow run backward; None where nothing is integrated."""
        svf = self.estimate(image)
        return self.displace(svf), self.displace(-svf) if self.integrate_steps > 0 else None

    def estimate(self, image: Tensor) -> Tensor:
        """The U-Net's answer (B, N, *S) in voxels, on the image's own grid."""
        answer = self.head(self.decode(self.encode(pad_to_multiple(image, self.stride))))
        return crop_to(to_voxels(answer), image.shape[2:])

    def displace(self, svf: Tensor) -> Tensor:
        """What the answer says as a ddf (B, N, *S): its flow at time 1, or itself where nothing is integrated."""
        return integrate(svf, self.integrate_steps) if self.integrate_steps > 0 else svf

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features of every resolution, finest first."""
        features = [self.first(image)]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        return features

    def decode(self, features: list[Tensor]) -> Tensor:
        """Features at full resolution, out of the coarsest and, at each doubling, those of the encoder."""
        x = features[-1]
        for i, (double, convolve) in enumerate(zip(self.doublings, self.decoder)):  # noqa: B905 (TorchScript)
            x = convolve(torch.cat([double(x), features[-2 - i]], dim=1))
        return x


class LargeKernelBlock(nn.Module):
    """Parallel 3, 5 and 1 wide convolutions, summed with the identity, one activation.

    Args:
        channels: in and out.
        spatial_dims: 2 or 3.
    """

    def __init__(self, channels: int, spatial_dims: int = 3) -> None:
        super().__init__()
        convolution = Conv[Conv.CONV, spatial_dims]
        self.branches = nn.ModuleList(
            drawn(convolution(channels, channels, width, padding=width // 2), channels * width**spatial_dims, SHARE)
            for width in (3, 5, 1)
        )
        self.activation = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Same shape (B, C, *S)."""
        total = x
        for branch in self.branches:
            total = total + branch(x)
        return self.activation(total)


def conv(spatial_dims: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Convolution 3 wide and PReLU with one slope."""
    layer = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, 3, stride=stride, padding=1)
    return nn.Sequential(drawn(layer, in_channels * 3**spatial_dims), nn.PReLU(init=SLOPE))


def doubling(spatial_dims: int, channels: int) -> nn.Sequential:
    """Transposed convolution that doubles every axis, and PReLU with one slope."""
    layer = Conv[Conv.CONVTRANS, spatial_dims](channels, channels, 2, stride=2)
    return nn.Sequential(drawn(layer, channels), nn.PReLU(init=SLOPE))  # each voxel sees one of the coarser grid


def drawn(layer: nn.Module, inputs: int, share: float = 1.0) -> nn.Module:
    """A convolution before a PReLU, its weights drawn so that features keep their size.

    Args:
        layer: the convolution.
        inputs: numbers that one output is a sum of.
        share: of the variance, for one of several parallel convolutions.
    """
    nn.init.normal_(layer.weight, std=(share * 2 / (1 + SLOPE**2) / inputs) ** 0.5)
    nn.init.zeros_(layer.bias)
    return layer


def to_voxels(field: Tensor) -> Tensor:
    """A field (B, N, *S) in units of half its grid, first to last voxel center, in voxels."""
    field = at_least_float32(field)
    half = torch.tensor(field.shape[2:], dtype=field.dtype, device=field.device).sub(1).div(2)
    return field * half.view([1, -1] + [1] * (field.ndim - 2))
