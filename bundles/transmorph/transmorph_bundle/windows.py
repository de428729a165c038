"""Attention in windows, shifted in every other block: the transformer half of TransMorph.

Source: Liu et al., "Swin Transformer", arXiv 2103.14030, in the form that github.com/junyuchen245/TransMorph (MIT)
gives it for volumes.

Of MONAI's Swin parts (``monai.networks.nets.swin_unetr``) two serve here, because they give the same result: the
attention itself with its relative position bias, and the multi-layer perceptron. Two give another one:
``SwinTransformerBlock`` shrinks its window, and stops shifting it, where the feature map is not larger than the window,
while TransMorph pads the map; ``PatchMergingV2`` joins a volume's eight neighbors in raster order and not in
TransMorph's, so that trained weights would mean something else. ``compute_mask``, ``window_partition`` and ``DropPath``
give the same, but TorchScript cannot compile them.
"""

import torch
from monai.networks.blocks.mlp import MLPBlock
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn
from torch.nn import functional as F

from common.padding import crop_to, pad_to_multiple

__all__ = ["PatchMerging", "Stage", "WindowBlock", "from_windows", "shift_mask", "to_windows"]

HIDDEN = 4  # width of the perceptrons, times the features
# 2x2(x2) neighbors in raster order (last axis fastest), in the order in which published weights expect them
MERGING_ORDER = {2: [0, 2, 1, 3], 3: [0, 4, 2, 1, 6, 3, 5, 7]}


class Stage(nn.Module):
    """Blocks at one resolution, every other one with shifted windows.

    Args:
        features: C.
        heads: of the attention.
        window: its size in tokens, one entry per axis.
        drop_paths: for each block, the probability that training leaves it out.
    """

    def __init__(self, features: int, heads: int, window: list[int], drop_paths: list[float]) -> None:
        super().__init__()
        self.window = list(window)
        self.shift = [n // 2 for n in window]
        self.blocks = nn.ModuleList(
            WindowBlock(features, heads, window, self.shift if i % 2 else [0] * len(window), rate)
            for i, rate in enumerate(drop_paths)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Same shape (B, *S, C), any S."""
        size = [(n + w - 1) // w * w for n, w in zip(tokens.shape[1:-1], self.window)]  # noqa: B905 (TorchScript)
        shifted = shift_mask(size, self.window, self.shift, tokens)
        whole = torch.zeros_like(shifted[:1])  # windows that are not shifted hold neighbors only
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, shifted if i % 2 == 1 else whole)
        return tokens


class WindowBlock(nn.Module):
    """Attention and perceptron, each behind a layer normalization and beside the identity.

    Args:
        features: C.
        heads: of the attention.
        window: its size in tokens, one entry per axis.
        shift: how far the windows are moved, one entry per axis.
        drop_path: probability that training leaves each of the two out, for a sample.
    """

    def __init__(self, features: int, heads: int, window: list[int], shift: list[int], drop_path: float) -> None:
        super().__init__()
        self.window = list(window)
        self.shift = list(shift)
        self.back = [-n for n in shift]
        self.axes = list(range(1, len(window) + 1))
        self.norm1 = nn.LayerNorm(features)
        self.attention = WindowAttention(features, heads, window)
        self.drop_path = drop_path
        self.norm2 = nn.LayerNorm(features)
        self.mlp = MLPBlock(features, HIDDEN * features, dropout_mode="swin")

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Same shape (B, *S, C); ``mask`` (windows or 1, tokens, tokens) is added before the softmax."""
        tokens = tokens + self.drop(self.attend(self.norm1(tokens), mask))
        return tokens + self.drop(self.mlp(self.norm2(tokens)))

    def drop(self, branch: Tensor) -> Tensor:
        """In training, the whole branch (B, *S, C) of some samples set to 0, the others scaled up to make up for it."""
        if not self.training:
            return branch
        kept = torch.ones([len(branch)] + [1] * (branch.ndim - 1), dtype=branch.dtype, device=branch.device)
        return branch * F.dropout(kept, self.drop_path)

    def attend(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Attention of (B, *S, C) within the windows of the zero-padded, moved map."""
        padded = pad_to_multiple(tokens.movedim(-1, 1), self.window).movedim(1, -1)
        moved = torch.roll(padded, self.back, self.axes)
        windows = self.attention(to_windows(moved, self.window), mask)
        moved = from_windows(windows, self.window, padded.shape[1:-1])
        moved = torch.roll(moved, self.shift, self.axes)
        return crop_to(moved.movedim(-1, 1), tokens.shape[1:-1]).movedim(1, -1)


class PatchMerging(nn.Module):
    """Join each 2x2(x2) tokens into one with twice the features.

    Args:
        features: C of the tokens that come in.
        spatial_dims: 2 or 3.
    """

    def __init__(self, features: int, spatial_dims: int) -> None:
        super().__init__()
        self.order = MERGING_ORDER[spatial_dims]
        self.pair = [2] * spatial_dims
        self.norm = nn.LayerNorm(2**spatial_dims * features)
        self.reduction = nn.Linear(2**spatial_dims * features, 2 * features, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, *S, C), every axis even, to (B, *S / 2, 2 C)."""
        size = [n // 2 for n in tokens.shape[1:-1]]
        neighbors = to_windows(tokens, self.pair)[:, self.order].flatten(1)
        return self.reduction(self.norm(neighbors)).view([tokens.shape[0]] + size + [-1])  # noqa: RUF005 (TorchScript)


def to_windows(tokens: Tensor, window: list[int]) -> Tensor:
    """Cut (B, *S, C), S multiples of ``window``, into (B * windows, tokens, C), both in raster order."""
    ndim = len(window)
    shape = [tokens.shape[0]]
    count = 1
    for axis in range(ndim):
        shape += [tokens.shape[axis + 1] // window[axis], window[axis]]
        count *= window[axis]
    order = [0] + [1 + 2 * k for k in range(ndim)] + [2 + 2 * k for k in range(ndim)] + [2 * ndim + 1]
    cut = tokens.reshape(shape + [tokens.shape[-1]]).permute(order)  # noqa: RUF005 (TorchScript)
    return cut.reshape(-1, count, tokens.shape[-1])


def from_windows(windows: Tensor, window: list[int], size: list[int]) -> Tensor:
    """Put the windows of :func:`to_windows` back into (B, *size, C)."""
    ndim = len(window)
    counts = [n // w for n, w in zip(size, window)]  # noqa: B905 (TorchScript)
    order = [0]
    for k in range(ndim):
        order += [1 + k, 1 + ndim + k]
    cut = windows.reshape([-1] + counts + window + [windows.shape[-1]])  # noqa: RUF005 (TorchScript)
    return cut.permute(order + [2 * ndim + 1]).reshape([-1] + list(size) + [windows.shape[-1]])  # noqa: RUF005


def shift_mask(size: list[int], window: list[int], shift: list[int], like: Tensor) -> Tensor:
    """What keeps tokens apart that only the cyclic shift brought into one window: (windows, tokens, tokens).

    Along each axis the moved map has three regions: windows of old neighbors, and in the last window what was in it and
    what came round from the other end.
    """
    region = torch.zeros([1] * (len(size) + 2), device=like.device)
    for axis in range(len(size)):
        place = torch.arange(size[axis], device=like.device)
        part = (place >= size[axis] - window[axis]).float() + (place >= size[axis] - shift[axis]).float()
        region = 3 * region + part.view([-1 if k == axis + 1 else 1 for k in range(len(size) + 2)])
    regions = to_windows(region, window)[..., 0]
    return (regions[:, None] != regions[:, :, None]).to(like.dtype) * -100.0  # for the softmax, as published
