"""A network to begin with: a small U-Net reads both images and gives a velocity, which is integrated.

It registers, and every command of a bundle runs with it. Put your method in its place, and say here what that is:
authors, title, year, DOI or arXiv number, and where this differs from them.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from common.flow import integrate
from common.objective import Fields
from common.padding import crop_to, pad_to_multiple
from common.spatial import at_least_float32

__all__ = ["TemplateNet"]

SLOPE = 0.2  # of the leaky ReLUs below 0


class TemplateNet(nn.Module):
    """U-Net registration network.

    Args:
        spatial_dims: 2 or 3.
        channels: at every resolution, finest first; each but the first is of half the grid before it.
        integrate_steps: squarings; 0 reads the answer as a displacement, above 0 it is a stationary velocity.

    ``forward`` is scriptable. Images of any size are zero-padded at the far end to the U-Net's stride inside.
    """

    def __init__(self, spatial_dims: int = 3, channels: Sequence[int] = (8, 16, 16), integrate_steps: int = 7) -> None:
        super().__init__()
        self.stride: list[int] = [2 ** (len(channels) - 1)] * spatial_dims
        self.integrate_steps = integrate_steps
        self.first = conv_block(spatial_dims, 2, channels[0])
        self.down = nn.ModuleList(conv_block(spatial_dims, a, b, stride=2) for a, b in pairwise(channels))
        self.up = nn.ModuleList(conv_block(spatial_dims, a + b, b) for a, b in pairwise(channels[::-1]))
        self.head = Conv[Conv.CONV, spatial_dims](channels[0], spatial_dims, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # training starts at the identity
        nn.init.zeros_(self.head.bias)

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
        features = self.first(pad_to_multiple(image, self.stride))
        skips: list[Tensor] = []
        for block in self.down:
            skips.append(features)
            features = block(features)
        for block in self.up:
            skip = skips.pop()
            finer = F.interpolate(features, skip.shape[2:], mode="nearest")
            features = block(torch.cat([finer, skip], dim=1))
        return at_least_float32(crop_to(self.head(features), image.shape[2:]))

    def displace(self, svf: Tensor) -> Tensor:
        """What the answer says as a ddf (B, N, *S): its flow at time 1, or itself where nothing is integrated."""
        return integrate(svf, self.integrate_steps, "zeros") if self.integrate_steps > 0 else svf


def conv_block(spatial_dims: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Convolution 3 wide and a leaky ReLU, with weights that keep the features' size (arXiv 1502.01852)."""
    conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, nn.LeakyReLU(SLOPE))
