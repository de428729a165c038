"""Whole volumes through a network of patches: windows side by side, of each only its middle kept."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["StitchedVelocity"]


class StitchedVelocity(nn.Module):
    """Gives a whole volume the velocity that a network gives its windows.

    A window sees ``patch_size`` voxels along each axis and answers for the ``core_size`` in its middle. The grid is
    tiled by such middles; what windows see beyond it is zeros. Memory beside the volume's own fields is that of
    ``windows_in_flight`` windows.

    Args:
        fcn: maps windows (B, 2, *P) to velocities (B, N, *P).
        spatial_dims: N.
        patch_size: voxels that a window sees along every axis.
        core_size: voxels that it answers for; the distance between windows.
        windows_in_flight: windows that pass the network at once.
        overlap: windows every half of ``core_size``, blended by Hann weights, which sum to 1 at every voxel: 2**N times
            the work, and no seams.

    Raises:
        ValueError: unless the middle is even, no larger than the window, and has as many voxels on either side.

    Source: arXiv 2404.04244, section II-D: 64 and 32 voxels. The overlap is not in it.
    Differs: ``monai.inferers.SlidingWindowInferer`` weights whole windows and divides by the weights' sum.
    """

    def __init__(
        self,
        fcn: nn.Module,
        spatial_dims: int,
        patch_size: int = 64,
        core_size: int = 32,
        windows_in_flight: int = 16,
        overlap: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < core_size <= patch_size or core_size % 2 or patch_size % 2 or windows_in_flight < 1:
            raise ValueError(
                f"patch_size and core_size must be even, the first no smaller, and windows_in_flight 1 or more, got "
                f"{patch_size}, {core_size} and {windows_in_flight}."
            )
        self.fcn = fcn
        self.spatial_dims = spatial_dims
        self.patch_size = patch_size
        self.core_size = core_size
        self.windows_in_flight = windows_in_flight
        self.margin = (patch_size - core_size) // 2
        self.step = core_size // 2 if overlap else core_size
        self.lead = core_size - self.step  # how far the first middle begins before the grid
        weight = hann(core_size, spatial_dims) if overlap else torch.ones([1] * spatial_dims)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), whose sides are multiples of ``core_size``, to a velocity (B, N, *S)."""
        size = image.shape[2:]
        counts = [(n + self.lead) // self.step for n in size]
        windows = 1
        for count in counts:
            windows = windows * count
        padded = F.pad(image, [self.margin + self.lead] * (2 * self.spatial_dims))
        shape = [image.shape[0], self.spatial_dims] + [n + 2 * self.lead for n in size]
        svf = torch.zeros(shape, dtype=torch.float32, device=image.device)
        total = windows * image.shape[0]
        for first in range(0, total, self.windows_in_flight):
            chosen = list(range(first, min(first + self.windows_in_flight, total)))
            corners = [corner_of(i % windows, counts, self.step) for i in chosen]
            patches = [cut(padded[i // windows], corners[k], self.patch_size) for k, i in enumerate(chosen)]
            answers = self.fcn(torch.stack(patches))
            for k, i in enumerate(chosen):
                middle = cut(answers[k], [self.margin] * self.spatial_dims, self.core_size)
                cut(svf[i // windows], corners[k], self.core_size).add_(middle * self.weight)
        for axis, n in enumerate(size):
            svf = svf.narrow(axis + 2, self.lead, n)
        return svf


def corner_of(index: int, counts: list[int], step: int) -> list[int]:
    """Where the window of this number begins along each axis, of ``counts`` windows every ``step`` voxels."""
    corner: list[int] = []
    for k in range(len(counts)):
        count = counts[len(counts) - 1 - k]
        corner.insert(0, index % count * step)
        index = index // count
    return corner


def cut(volume: Tensor, corner: list[int], side: int) -> Tensor:
    """The cube of (C, *S) that begins at ``corner``, as a view."""
    for axis, start in enumerate(corner):
        volume = volume.narrow(axis + 1, start, side)
    return volume


def hann(side: int, spatial_dims: int) -> Tensor:
    """Product of a Hann window along each axis, (side,) * N: it and its copies half a side apart sum to 1."""
    places = (torch.arange(side, dtype=torch.float64, device="cpu") + 0.5) / side
    line = (0.5 - 0.5 * (2 * torch.pi * places).cos()).float()
    result = torch.ones([1] * spatial_dims)
    for axis in range(spatial_dims):
        result = result * line.view([-1 if k == axis else 1 for k in range(spatial_dims)])
    return result
