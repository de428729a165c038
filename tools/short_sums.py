"""Instance normalization whose sums are short, for programs that add up a whole volume in one float32 sum.

onnxruntime 1.31 does on a CPU: of a volume of 64 voxels a side its mean and variance leave four significant digits,
which moves a registration by more than the exports' tolerance. Axis by axis the sums have as many terms as an axis has
voxels.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

__all__ = ["ShortSumInstanceNorm", "with_short_sums"]


class ShortSumInstanceNorm(nn.Module):
    """The same result as ``nn.InstanceNorm3d`` and its like, by means of means.

    Args:
        origin: a layer without running statistics; its weights, if it has some, are shared.

    Raises:
        ValueError: for a layer that keeps running statistics.
    """

    def __init__(self, origin: _InstanceNorm) -> None:
        super().__init__()
        if origin.track_running_stats:
            raise ValueError("instance normalization with running statistics is no normalization of the instance.")
        self.eps = origin.eps
        self.weight, self.bias = origin.weight, origin.bias

    def forward(self, x: Tensor) -> Tensor:
        """Same shape (B, C, *S)."""
        centered = x - mean_by_axes(x)
        normal = centered * torch.rsqrt(mean_by_axes(centered * centered) + self.eps)
        if self.weight is None:
            return normal
        shape = [1, -1] + [1] * (x.ndim - 2)
        return normal * self.weight.view(shape) + self.bias.view(shape)


def mean_by_axes(x: Tensor) -> Tensor:
    """The mean over the spatial axes of (B, C, *S), one after the other from the last, kept as axes of 1."""
    for axis in range(x.ndim - 1, 1, -1):
        x = x.mean(dim=axis, keepdim=True)
    return x


def with_short_sums(network: nn.Module) -> nn.Module:
    """A copy of a network with every instance normalization replaced; weights and results are the same."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _InstanceNorm):
                setattr(parent, name, ShortSumInstanceNorm(child))
    return network
