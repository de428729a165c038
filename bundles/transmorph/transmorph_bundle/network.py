"""TransMorph: a Swin transformer on the pair of images, and a convolutional decoder with skips from both of them.

Source: Chen et al., "TransMorph: Transformer for Unsupervised Medical Image Registration", Med. Image Anal. 2022,
doi:10.1016/j.media.2022.102615, arXiv 2111.10480, and its repository github.com/junyuchen245/
TransMorph_Transformer_for_Medical_Image_Registration (MIT) where the text is silent.
Which of MONAI's Swin parts serve here, and why the others do not, stands in ``windows.py``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn
from torch.nn import functional as F

from common.objective import Fields
from common.padding import crop_to, pad_to_multiple
from common.spatial import at_least_float32

from .windows import PatchMerging, Stage

__all__ = ["VARIANTS", "TransMorph"]

VARIANTS = {
    "tiny": (6, (2, 2, 4, 2), (2, 2, 4, 4)),
    "small": (48, (2, 2, 4, 2), (4, 4, 4, 4)),
    "base": (96, (2, 2, 4, 2), (4, 4, 8, 8)),
    "large": (128, (2, 2, 12, 2), (4, 4, 8, 16)),
}
"""The published sizes: features of a patch, and for each of the four resolutions the blocks and the attention heads."""
WINDOW = (5, 6, 7)
PATCH = 4
HEAD_CHANNELS = 16
HEAD_STD = 1e-5  # of the flow head's first weights: training starts at the identity


class TransMorph(nn.Module):
    """The network that the paper calls TransMorph.

    Args:
        variant: one of ``VARIANTS``.
        spatial_dims: 2 or 3.
        window: tokens of a window along each axis; (5, 6, 7) by default, in 2-D (6, 7).
        drop_path: probability that training leaves out the last block, for a sample; it grows to that from 0.

    The transformer sees patches of 4 voxels a side, whose features double at each of three mergings. ``forward`` is
    scriptable. Images of any size are zero-padded at the far end to a multiple of 32 inside.

    Raises:
        ValueError: for an unknown variant, or a window that has no entry for some axis.
    """

    def __init__(
        self,
        variant: str = "base",
        spatial_dims: int = 3,
        window: Sequence[int] | None = None,
        drop_path: float = 0.3,
    ) -> None:
        super().__init__()
        window = list(WINDOW[-spatial_dims:] if window is None else window)
        check_settings(variant, spatial_dims, window)
        embed_dim, depths, num_heads = VARIANTS[variant]
        self.stride = [PATCH * 8] * spatial_dims
        features = [embed_dim * 2**k for k in range(4)]
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(list(depths))
        self.embed = Conv[Conv.CONV, spatial_dims](2, embed_dim, PATCH, stride=PATCH)
        self.embed_norm = nn.LayerNorm(embed_dim)
        self.stages = nn.ModuleList(
            Stage(c, heads, window, rate.tolist()) for c, heads, rate in zip(features, num_heads, rates, strict=True)
        )
        self.mergings = nn.ModuleList([nn.Identity(), *(PatchMerging(c, spatial_dims) for c in features[:-1])])
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in features)

        half = embed_dim // 2
        self.pool = Pool[Pool.AVG, spatial_dims](3, stride=2, padding=1)
        self.half_skip = nn.Sequential(*conv_block(spatial_dims, 2, half))
        self.full_skip = nn.Sequential(*conv_block(spatial_dims, 2, HEAD_CHANNELS))
        widths = [*features[::-1], half, HEAD_CHANNELS]
        self.decoder = nn.ModuleList(
            nn.Sequential(*conv_block(spatial_dims, before + after, after), *conv_block(spatial_dims, after, after))
            for before, after in pairwise(widths)
        )
        self.head = Conv[Conv.CONV, spatial_dims](HEAD_CHANNELS, spatial_dims, 3, padding=1)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 2, *S), channel 0 moving and 1 fixed, to a ddf (B, N, *S) in voxels."""
        padded = pad_to_multiple(image, self.stride)
        ddf = at_least_float32(self.head(self.decode(padded, self.encode(padded))))
        return crop_to(ddf, image.shape[2:])

    @torch.jit.ignore
    def fields(self, image: Tensor) -> Fields:
        """The displacement of a pair (B, 2, *S), for training: the regularizer acts on it, nothing is integrated."""
        ddf = self(image)
        return Fields(ddf, ddf)

    def encode(self, image: Tensor) -> list[Tensor]:
        """Features (B, C, *S) of the transformer at a fourth, eighth, sixteenth and thirty-second of the size."""
        tokens = self.embed_norm(self.embed(image).movedim(1, -1))
        features: list[Tensor] = []
        for merging, stage, norm in zip(self.mergings, self.stages, self.norms):  # noqa: B905 (TorchScript)
            tokens = stage(merging(tokens))
            features.append(norm(tokens).movedim(-1, 1))
        return features

    def decode(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """Features at full resolution, out of the coarsest, those of the transformer, and two convolutions' own."""
        skips = [self.full_skip(image), self.half_skip(self.pool(image))] + features[:-1]  # noqa: RUF005 (TorchScript)
        mode = "trilinear" if image.ndim == 5 else "bilinear"
        x = features[-1]
        for i, convolve in enumerate(self.decoder):
            skip = skips[len(skips) - 1 - i]
            x = F.interpolate(x, skip.shape[2:], mode=mode, align_corners=False)
            x = convolve(torch.cat([x, skip], dim=1))
        return x


def check_settings(variant: str, spatial_dims: int, window: list[int]) -> None:
    """Raise ValueError unless these make a :class:`TransMorph`."""
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}.")
    if spatial_dims not in (2, 3) or len(window) != spatial_dims:
        raise ValueError(f"spatial_dims must be 2 or 3 with a window of as many, got {spatial_dims} and {window}.")


def conv_block(spatial_dims: int, in_channels: int, out_channels: int) -> list[nn.Module]:
    """Convolution 3 wide, instance normalization without parameters, leaky rectifier."""
    return [
        Conv[Conv.CONV, spatial_dims](in_channels, out_channels, 3, padding=1, bias=False),
        Norm[Norm.INSTANCE, spatial_dims](out_channels),
        nn.LeakyReLU(0.01),
    ]
