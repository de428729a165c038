"""VoxelMorph: one U-Net reads both images and gives a displacement, or a velocity that is integrated.

Source: Balakrishnan et al., "VoxelMorph: A Learning Framework for Deformable Medical Image Registration", IEEE TMI
2019, arXiv 1809.05231; the velocity: Dalca et al., Med. Image Anal. 2019, arXiv 1903.03545. Where their text is silent,
the networks are those that github.com/junyuchen245/TransMorph_Transformer_for_Medical_Image_Registration compares with.
"""

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from common.flow import integrate
from common.objective import Fields
from common.padding import crop_to, pad_to_multiple
from common.spatial import at_least_float32, upsample

__all__ = ["VoxelMorph"]

SLOPE = 0.2  # of the leaky ReLUs below 0
HEAD_STD = 1e-5  # of the last convolution's weights: training starts at the identity


class VoxelMorph(nn.Module):
    """U-Net registration network; the defaults are VoxelMorph-1.

    Args:
        spatial_dims: 2 or 3.
        encoder: output channels of the convolutions that halve the grid, (8, 32, 32, 32) in VoxelMorph-1 and
            (16, 32, 32, 32) in VoxelMorph-2.
        decoder: output channels of the convolutions after which the grid is doubled, as many as ``encoder`` has, then
            of those at full resolution: (32, 32, 32, 32, 32, 8, 8) and (32, 32, 32, 32, 32, 16, 16).
        integrate_steps: squarings; 0 reads the answer as a displacement, above 0 it is a stationary velocity.
        half_resolution: the velocity is integrated on a grid of half the resolution.

    ``forward`` is scriptable. Images of any size are zero-padded at the far end to the U-Net's stride inside.

    Differs: the velocity is that of the network, not drawn from a normal distribution whose variance is learned too.
    Between the two resolutions it is scaled by the exact ratio of the grids, (S - 1) / (S / 2 - 1), instead of 2.

    Raises:
        ValueError: for channels that make no U-Net, or a resolution of a velocity that is not integrated.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        encoder: Sequence[int] = (8, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32, 32, 8, 8),
        integrate_steps: int = 0,
        half_resolution: bool = False,
    ) -> None:
        super().__init__()
        check_settings(spatial_dims, encoder, decoder, integrate_steps, half_resolution)
        self.stride: list[int] = [2 ** len(encoder)] * spatial_dims
        self.integrate_steps = integrate_steps
        self.half_resolution = half_resolution

        skips = [2, *encoder[:-1]]  # channels of what is kept at each resolution, finest first: the images, ...
        self.down = nn.ModuleList(
            conv_block(spatial_dims, before, after, stride=2) for before, after in zip(skips, encoder, strict=True)
        )
        inputs = [encoder[-1], *(d + s for d, s in zip(decoder, reversed(skips), strict=False))]
        inputs += decoder[len(encoder) : -1]
        convolutions = [conv_block(spatial_dims, before, after) for before, after in zip(inputs, decoder, strict=True)]
        self.up = nn.ModuleList(convolutions[: len(encoder)])
        self.finish = nn.Sequential(*convolutions[len(encoder) :])
        self.head = make_head(spatial_dims, decoder[-1])

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
        features = pad_to_multiple(image, self.stride)
        skips: list[Tensor] = []
        for block in self.down:
            skips.append(features)
            features = block(features)
        for block in self.up:
            skip = skips.pop()
            finer = F.interpolate(block(features), skip.shape[2:], mode="nearest")
            features = torch.cat([finer, skip], dim=1)
        return at_least_float32(crop_to(self.head(self.finish(features)), image.shape[2:]))

    def displace(self, svf: Tensor) -> Tensor:
        """What the answer says as a ddf (B, N, *S): its flow at time 1, or itself where nothing is integrated."""
        if self.integrate_steps == 0:
            return svf
        if not self.half_resolution:
            return integrate(svf, self.integrate_steps, "zeros")
        coarse = upsample(svf, [(n + 1) // 2 for n in svf.shape[2:]])
        return upsample(integrate(coarse, self.integrate_steps, "zeros"), svf.shape[2:])


def check_settings(
    spatial_dims: int, encoder: Sequence[int], decoder: Sequence[int], integrate_steps: int, half_resolution: bool
) -> None:
    """Raise ValueError unless these make a :class:`VoxelMorph`."""
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
    if not 0 < len(encoder) < len(decoder):
        raise ValueError(
            f"decoder must have more entries than encoder, got {len(decoder)} and {len(encoder)}: one for each halving "
            "and at least one for full resolution."
        )
    if integrate_steps < 0 or (half_resolution and integrate_steps == 0):
        raise ValueError(
            f"integrate_steps must be 0 or more, and above 0 for half_resolution, got {integrate_steps} and "
            f"{half_resolution}."
        )


def conv_block(spatial_dims: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Convolution 3 wide and a leaky ReLU, no normalization.

    The weights begin normal, with the variance that keeps the features' size from layer to layer (He et al., arXiv
    1502.01852). Under torch's default it shrinks, and the head has little to learn from.
    """
    conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.LeakyReLU(SLOPE))


def make_head(spatial_dims: int, in_channels: int) -> nn.Module:
    """The convolution that gives the field, close to 0 before training."""
    head = Conv[Conv.CONV, spatial_dims](in_channels, spatial_dims, 3, padding=1)
    nn.init.normal_(head.weight, std=HEAD_STD)
    nn.init.zeros_(head.bias)
    return head
