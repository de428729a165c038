"""SYMNet: a U-Net with two heads, velocities that carry the moving and the fixed image to a middle between them.

Source: Mok and Chung, "Fast Symmetric Diffeomorphic Image Registration with Convolutional Neural Networks", CVPR 2020,
arXiv 2003.09514. Widths, heads and integration are those of the authors' program,
github.com/cwmok/Fast-Symmetric-Diffeomorphic-Image-Registration-with-Convolutional-Neural-Networks (MIT).
"""

from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from common.flow import integrate
from common.padding import crop_to, pad_to_multiple
from common.spatial import at_least_float32, compose

__all__ = ["SYMNet", "SymmetricFields"]

HALVINGS = 4
HEAD_STD = 1e-5  # of the heads' weights: training starts at the identity


class SymmetricFields(NamedTuple):
    """What SYMNet says in training, all (B, N, *S) in voxels on the image's own grid."""

    moving_svf: Tensor
    """The velocity whose flow at time 1 carries the moving image to the middle."""
    fixed_svf: Tensor
    """The one that carries the fixed image there."""
    moving_half: Tensor
    """The first one's flow: ``warp(moving, moving_half)`` is the moving image in the middle."""
    fixed_half: Tensor
    ddf: Tensor
    """What the moving image is warped with to fit the fixed one, through the middle."""
    inverse: Tensor
    """What the fixed image is warped with to fit the moving one."""


class SYMNet(nn.Module):
    """Symmetric diffeomorphic registration network; the defaults are those of the authors' OASIS experiment.

    Args:
        spatial_dims: 2 or 3.
        channels: of the first convolutions; every halving of the grid doubles them.
        integrate_steps: squarings per velocity, 1 or more.
        max_velocity: voxels per unit time that no component of a velocity exceeds; 100 in the publication.

    ``forward`` is scriptable. Images of any size are zero-padded at the far end to the U-Net's stride inside.

    Differs: a head answers in voxels, ``max_velocity * softsign(answer / max_velocity)``, where the program multiplies
    a softsign by 100: the same velocities by other weights, whose learning rate then means what it does in networks
    without a bound. Training begins at the identity with features that keep their size, the program's with torch's
    default weights. The text takes a velocity's flow at time 0.5 for half of the way, the program at time 1, as here.

    Raises:
        ValueError: for another number of dimensions, channels, steps or voxels than these.
    """

    def __init__(
        self, spatial_dims: int = 3, channels: int = 7, integrate_steps: int = 7, max_velocity: float = 100.0
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if min(channels, integrate_steps) < 1 or max_velocity <= 0:
            raise ValueError(
                "channels and integrate_steps must be 1 or more and max_velocity above 0, got "
                f"{channels}, {integrate_steps} and {max_velocity}."
            )
        self.stride: list[int] = [2**HALVINGS] * spatial_dims
        self.integrate_steps = integrate_steps
        self.max_velocity = max_velocity

        c = channels
        self.start = conv_pair(spatial_dims, 2, c, c)
        self.down = nn.ModuleList(
            conv_pair(spatial_dims, *widths, stride=2)
            for widths in ((c, 2 * c, 2 * c), (2 * c, 4 * c, 4 * c), (4 * c, 8 * c, 8 * c), (8 * c, 16 * c, 8 * c))
        )
        self.up = nn.ModuleList(doubling(spatial_dims, width) for width in (8 * c, 4 * c, 2 * c, 2 * c))
        self.join = nn.ModuleList(  # after each doubling, with what the way down had at that resolution
            conv_pair(spatial_dims, *widths)
            for widths in ((16 * c, 8 * c, 4 * c), (8 * c, 4 * c, 2 * c), (4 * c, 4 * c, 2 * c), (3 * c, 2 * c, 2 * c))
        )
        self.moving_head = velocity_head(spatial_dims, 2 * c)
        self.fixed_head = velocity_head(spatial_dims, 2 * c)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels."""
        moving_svf, fixed_svf = self.velocities(image)
        return self.connect(moving_svf, fixed_svf)

    @torch.jit.ignore
    def fields(self, image: Tensor) -> SymmetricFields:
        """Both velocities of a pair (B, 2, *S), the ways to the middle and between the images, for training."""
        svfs = self.velocities(image)
        halves = [self.flow(svf) for svf in svfs]
        back = [self.flow(-svf) for svf in svfs]
        ddf, inverse = compose(halves[0], back[1], "zeros"), compose(halves[1], back[0], "zeros")
        return SymmetricFields(*svfs, *halves, ddf, inverse)

    @torch.jit.ignore
    def with_inverse(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The ddf of :meth:`forward` and its inverse, the way from the fixed image to the moving one."""
        moving_svf, fixed_svf = self.velocities(image)
        return self.connect(moving_svf, fixed_svf), self.connect(fixed_svf, moving_svf)

    def velocities(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The velocities (B, N, *S) that carry the moving and the fixed image of a pair to the middle."""
        features = self.start(pad_to_multiple(image, self.stride))
        skips: list[Tensor] = []
        for block in self.down:
            skips.append(features)
            features = block(features)
        for up, join in zip(self.up, self.join):  # noqa: B905 (TorchScript)
            features = join(torch.cat([up(features), skips.pop()], dim=1))
        size = image.shape[2:]
        return self.bounded(self.moving_head(features), size), self.bounded(self.fixed_head(features), size)

    def bounded(self, answer: Tensor, size: list[int]) -> Tensor:
        """A head's answer as a velocity on the image's own grid, no component above ``max_velocity``."""
        return self.max_velocity * F.softsign(at_least_float32(crop_to(answer, size)) / self.max_velocity)

    def flow(self, svf: Tensor) -> Tensor:
        """The flow (B, N, *S) of a velocity at time 1."""
        return integrate(svf, self.integrate_steps, "zeros")

    def connect(self, first: Tensor, second: Tensor) -> Tensor:
        """The ddf of an image to the middle by the first velocity, and from there against the second one."""
        return compose(self.flow(first), self.flow(-second), "zeros")


def conv_pair(spatial_dims: int, in_channels: int, hidden: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Two convolutions 3 wide, each with a ReLU, the first one with the stride; no normalization."""
    conv = Conv[Conv.CONV, spatial_dims]
    layers = [conv(in_channels, hidden, 3, stride=stride, padding=1), conv(hidden, out_channels, 3, padding=1)]
    for layer in layers:
        begin(layer, layer.in_channels * 3**spatial_dims)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU())


def doubling(spatial_dims: int, channels: int) -> nn.Sequential:
    """A transposed convolution that doubles the grid, and a ReLU."""
    layer = Conv[Conv.CONVTRANS, spatial_dims](channels, channels, 2, stride=2)
    begin(layer, channels)  # as wide as its stride: each voxel comes from one
    return nn.Sequential(layer, nn.ReLU())


def begin(layer: nn.Module, inputs: int) -> None:
    """Draw weights that keep the features' size where a ReLU follows and each value is the sum of so many inputs.

    Source: He et al., arXiv 1502.01852. Under torch's default it shrinks, and the heads have little to learn from.
    """
    nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
    nn.init.zeros_(layer.bias)


def velocity_head(spatial_dims: int, channels: int) -> nn.Module:
    """The convolution, 5 wide and without bias, that gives a velocity, close to 0 before training."""
    head = Conv[Conv.CONV, spatial_dims](channels, spatial_dims, 5, padding=2, bias=False)
    nn.init.normal_(head.weight, std=HEAD_STD)
    return head
