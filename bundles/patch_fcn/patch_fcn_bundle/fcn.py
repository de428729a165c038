"""The network of one stage: a U-Net from a pair of patches to a stationary velocity.

Source: Wu et al., "Fast Diffeomorphic Image Registration using Patch based Fully Convolutional Networks", arXiv
2404.04244, section II-C. Its text leaves the widths open, and how kernels 3 and 2 wide alternate.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn
from torch.nn import functional as F

from common.padding import crop_to, pad_to_multiple
from common.spatial import at_least_float32

__all__ = ["VelocityFCN"]

SLOPE = 0.2  # of the leaky ReLUs below 0


class VelocityFCN(nn.Module):
    """U-Net whose encoder reads the images at every resolution and whose decoder answers at every resolution.

    On the way down convolutions 2 wide halve the grid, and the images, halved by averages, join what they give through
    a convolution of their own. On the way up transposed convolutions 2 wide double it. Each of the resolutions gives a
    velocity, and their sum at full scale is the answer. Nothing is normalized: statistics of patches would leave seams.

    Args:
        spatial_dims: 2 or 3.
        channels: features at each resolution, finest first, two or more; (8, 16, 32, 64, 128) is the light variant.

    ``forward`` is scriptable. Images of any size are zero-padded at the far end to the U-Net's stride inside. The
    heads' weights begin as zeros, so that training begins at the identity.

    Raises:
        ValueError: for another number of axes, or fewer than two resolutions.
    """

    def __init__(self, spatial_dims: int = 3, channels: Sequence[int] = (16, 32, 64, 128, 256)) -> None:
        super().__init__()
        if spatial_dims not in (2, 3) or len(channels) < 2 or min(channels) < 1:
            raise ValueError(
                f"spatial_dims must be 2 or 3 and channels two or more numbers above 0, got {spatial_dims} and "
                f"{list(channels)}."
            )
        self.stride: list[int] = [2 ** (len(channels) - 1)] * spatial_dims
        steps, upward = list(pairwise(channels)), list(pairwise(reversed(channels)))
        self.stem = layer(spatial_dims, 2, channels[0], 3)
        self.pool = Pool[Pool.AVG, spatial_dims](2)
        # their sum has the size of features: each has half of the variance
        self.down = nn.ModuleList(layer(spatial_dims, before, after, 2, share=0.5) for before, after in steps)
        self.side = nn.ModuleList(layer(spatial_dims, 2, after, 3, share=0.5) for _, after in steps)
        self.encode = nn.ModuleList(layer(spatial_dims, after, after, 3) for _, after in steps)
        self.up = nn.ModuleList(doubling(spatial_dims, before, after) for before, after in upward)
        self.decode = nn.ModuleList(layer(spatial_dims, 2 * after, after, 3) for _, after in upward)
        self.heads = nn.ModuleList(velocity_head(spatial_dims, width) for width in reversed(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a velocity (B, N, *S) in voxels per unit time."""
        padded = pad_to_multiple(image, self.stride)
        skips = self.contract(padded)
        features = skips.pop()
        answers: list[Tensor] = []
        for i, head in enumerate(self.heads):  # coarsest first
            answers.append(head(features))
            for k, (up, decode) in enumerate(zip(self.up, self.decode)):  # noqa: B905 (TorchScript)
                if k == i:
                    features = decode(torch.cat([up(features), skips.pop()], dim=1))
        return crop_to(total(answers), image.shape[2:])

    def contract(self, image: Tensor) -> list[Tensor]:
        """Features at every resolution, finest first."""
        features = self.stem(image)
        found = [features]
        for down, side, encode in zip(self.down, self.side, self.encode):  # noqa: B905 (TorchScript)
            image = self.pool(image)
            features = encode(down(features) + side(image))
            found.append(features)
        return found


def total(answers: list[Tensor]) -> Tensor:
    """The sum of velocities (B, N, *S) at the size of the last one, which is the finest, float32 at least."""
    result = at_least_float32(answers[-1])
    size = result.shape[2:]
    mode = "trilinear" if result.ndim == 5 else "bilinear"
    for answer in answers[:-1]:
        # a voxel of a halved grid covers a block of the finer one, as averages and 2 wide convolutions left it: its
        # center is between theirs, which align_corners=False says. The heads answer in voxels of the finest grid.
        result = result + F.interpolate(at_least_float32(answer), size, mode=mode, align_corners=False)
    return result


def layer(spatial_dims: int, in_channels: int, out_channels: int, width: int, share: float = 1.0) -> nn.Sequential:
    """Convolution and leaky ReLU; one 2 wide halves the grid.

    Weights begin normal, with the variance that keeps the features' size from layer to layer (He et al., arXiv
    1502.01852), or a share of it.
    """
    stride = 2 if width == 2 else 1
    conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, width, stride=stride, padding=(width - 1) // 2)
    return nn.Sequential(drawn(conv, in_channels * width**spatial_dims, share), nn.LeakyReLU(SLOPE))


def doubling(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """Transposed convolution 2 wide that doubles the grid, and leaky ReLU."""
    conv = Conv[Conv.CONVTRANS, spatial_dims](in_channels, out_channels, 2, stride=2)
    return nn.Sequential(drawn(conv, in_channels), nn.LeakyReLU(SLOPE))  # each voxel comes from one


def drawn(conv: nn.Module, inputs: int, share: float = 1.0) -> nn.Module:
    """A convolution before a leaky ReLU whose values are sums of so many inputs, its weights drawn anew."""
    nn.init.normal_(conv.weight, std=(share * 2 / (1 + SLOPE**2) / inputs) ** 0.5)
    nn.init.zeros_(conv.bias)
    return conv


def velocity_head(spatial_dims: int, in_channels: int) -> nn.Module:
    """The convolution that gives a velocity, 0 before training."""
    head = Conv[Conv.CONV, spatial_dims](in_channels, spatial_dims, 3, padding=1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
