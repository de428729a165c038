"""The correspondence field: a network of the coordinates alone, evaluated whole or in parts of bounded memory.

Parts give the same numbers: the layers on single voxels (the coarse field) do not see their neighbors, and the two
convolutions (smoothing) see two planes to each side, which a slab takes along. Each part keeps its input only and is
evaluated again for the gradient.

Source: L. Zhou et al., "NCF: Neural Correspondence Field for Medical Image Registration", arXiv:2503.00760.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.errors import RegInputError

__all__ = ["ACTIVATIONS", "CorrespondenceField", "Sine"]

ACTIVATIONS = ("relu", "leaky_relu", "siren")
HALO = 2  # planes that two convolutions, each three wide, see to a side
CHUNK = {"cpu": 2**12, "cuda": 2**16}  # maps of 128 channels that fit the cache; enough to fill a GPU
SLAB = 2**19  # a map of 64 channels then has 128 MiB


class CorrespondenceField(nn.Module):
    """Coordinates -> coarse field by linear layers -> field by two convolutions; 60,870 parameters by default.

    Args:
        spatial_dims: 2 or 3.
        widths: of the hidden layers on coordinates.
        smooth_channels: between the two convolutions, each three voxels wide, zeros outside.
        activation: "relu", "leaky_relu" (slope 0.01) or "siren", sines on the coordinates and ReLU between the
            convolutions, which see displacements, nothing periodic.
        omega: frequency of the sines.
        residual: add the convolutions' result to the coarse field instead of replacing it.
        chunk: voxels that the linear layers take at a time; ``None`` is 4096 on a CPU, where the hidden maps then
            stay in the cache, and 65,536 elsewhere; 0 takes all.
        slab: voxels that the convolutions take at a time, in whole planes; 0 takes all.
        seed: of the weights.

    Raises:
        RegInputError: for an unknown activation, or numbers below 1.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        widths: Sequence[int] = (128, 128, 128, 128),
        smooth_channels: int = 64,
        activation: str = "relu",
        omega: float = 30.0,
        residual: bool = False,
        chunk: int | None = None,
        slab: int = SLAB,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check(activation, widths, smooth_channels, chunk, slab)
        self.activation = activation
        self.omega = omega
        self.residual = residual
        self.chunk = chunk
        self.slab = slab
        layers = [layer for sides in pairwise((spatial_dims, *widths)) for layer in (nn.Linear(*sides), self._hidden())]
        self.coarse = nn.Sequential(*layers, nn.Linear(widths[-1], spatial_dims))
        conv = Conv[Conv.CONV, spatial_dims]
        self.smooth = nn.Sequential(
            conv(spatial_dims, smooth_channels, 3, padding=1),
            nn.LeakyReLU(0.01) if activation == "leaky_relu" else nn.ReLU(),
            conv(smooth_channels, spatial_dims, 3, padding=1),
        )
        self.reset(seed)

    def _hidden(self) -> nn.Module:
        return {"relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.01), "siren": Sine(self.omega)}[self.activation]

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Fresh weights that give the identity: torch's uniform distributions (those of SIREN there), the end zero."""
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same weights on every device
        for layer in [*self.coarse, *self.smooth]:
            for parameter in layer.parameters():
                values = 2 * torch.rand(parameter.shape, generator=generator) - 1
                parameter.copy_(values * self._bound(layer))
        for parameter in [*self.smooth[-1].parameters(), *(self.coarse[-1].parameters() if self.residual else ())]:
            parameter.zero_()

    def _bound(self, layer: nn.Module) -> float:
        """Largest weight of a layer at the start: 1 / sqrt(inputs), or what V. Sitzmann et al., 2020, derive."""
        inputs = layer.weight[0].numel()
        if self.activation != "siren" or not isinstance(layer, nn.Linear):
            return 1 / math.sqrt(inputs)
        return 1 / inputs if layer is self.coarse[0] else math.sqrt(6 / inputs) / self.omega

    def forward(self, size: Sequence[int]) -> Tensor:
        """The ddf (1, N, *size) in voxels of a grid of this size, whose corners are at -1 and 1."""
        points = coordinates(size, self.coarse[0].weight)
        chunk = CHUNK.get(points.device.type, CHUNK["cuda"]) if self.chunk is None else self.chunk
        coarse = in_chunks(self.coarse, points, chunk).T.reshape(1, len(size), *size)
        offset = in_slabs(self.smooth, coarse, self.slab and max(self.slab // math.prod(size[1:]), 1))
        if self.residual:
            offset = offset + coarse
        return offset * offset.new_tensor([(side - 1) / 2 for side in size]).view(-1, *[1] * len(size))  # -> voxels


class Sine(nn.Module):
    """``sin(omega x)``, the activation of SIREN (V. Sitzmann et al., arXiv:2006.09661)."""

    def __init__(self, omega: float) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return torch.sin(self.omega * x)


def check(activation: str, widths: Sequence[int], smooth_channels: int, chunk: int | None, slab: int) -> None:
    """Refuse what makes no network."""
    if activation not in ACTIVATIONS or not widths or min(*widths, smooth_channels) < 1 or min(chunk or 0, slab) < 0:
        raise RegInputError(
            f"activation is {activation!r}, widths {list(widths)}, smooth_channels {smooth_channels}, chunk {chunk} "
            f"and slab {slab}, expected one of {', '.join(ACTIVATIONS)}, widths of 1 or more and parts of 0 or more; "
            "correct them."
        )


def coordinates(size: Sequence[int], like: Tensor) -> Tensor:
    """(voxels, N) coordinates in [-1, 1] of a grid, first and last voxel centers at the ends, axes in array order."""
    axes = [torch.linspace(-1, 1, side, dtype=like.dtype, device=like.device) for side in size]
    return torch.stack(torch.meshgrid(axes, indexing="ij"), dim=-1).flatten(0, -2)


def in_chunks(function: Callable[[Tensor], Tensor], rows: Tensor, chunk: int) -> Tensor:
    """``function(rows)`` of a function that sees each row (voxels, N) alone, ``chunk`` rows at a time; 0 for all."""
    if chunk == 0 or len(rows) <= chunk:
        return function(rows)
    return torch.cat([recomputed(function, part) for part in rows.split(chunk)])


def in_slabs(function: Callable[[Tensor], Tensor], field: Tensor, planes: int) -> Tensor:
    """``function(field)`` of a function that sees ``HALO`` planes around and zeros outside, so many planes at a time.

    0 takes all. A slab goes to the border of the volume or ``HALO`` planes too far; what its own end spoils is cut off.
    """
    total = field.shape[2]
    if planes == 0 or total <= planes:
        return function(field)
    parts = []
    for first in range(0, total, planes):
        begin, last = max(first - HALO, 0), min(first + planes, total)
        slab = field[:, :, begin : min(last + HALO, total)]
        parts.append(recomputed(function, slab)[:, :, first - begin : last - begin])
    return torch.cat(parts, dim=2)


def recomputed(function: Callable[[Tensor], Tensor], part: Tensor) -> Tensor:
    """``function(part)``, evaluated again when its gradient is asked for."""
    return checkpoint(function, part, use_reentrant=False, preserve_rng_state=False)
