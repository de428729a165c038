"""A registration on a coarse version of the fixed grid, which is all that its self-check looks at.

What tells whether anatomy lies on anatomy is visible at a few millimeters, and a grid of 2^18 voxels makes the check
cost a fraction of a second whatever the scans' size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import ddf_to_mm, resample_mm, voxel_offset
from .registration import Fields, Images, plain
from .spatial import identity_grid

__all__ = ["View", "coarse_view", "foreground"]

VOXELS = 2**18  # about 64 x 64 x 64: a head at 3 mm
CLIP = (0.5, 99.5)  # percentiles of an image that become 0 and 1
GRAY_VALUES = 256  # of the histogram that tells foreground from background


@dataclass(frozen=True)
class View:
    """What the check sees, on one grid T.

    Attributes:
        fixed: (1, 1, *T) in [0, 1].
        moving: through the initial alignment alone, in [0, 1], on the warped image's scale.
        warped: in [0, 1].
        foreground: bool (*T), of the fixed image.
        warped_foreground: bool (*T).
        own: what was found after the initial alignment, (1, N, *T), RAS mm.
        inside: bool (*T), where the map leads into the moving image.
        disagreement: how far answers from perturbed starts are from the answer, (K, *T) in mm; None without them.
        affine: (N + 1, N + 1) of the grid, RAS mm.
        initial: (N + 1, N + 1), RAS mm, or None.
    """

    fixed: Tensor
    moving: Tensor
    warped: Tensor
    foreground: Tensor
    warped_foreground: Tensor
    own: Tensor
    inside: Tensor
    disagreement: Tensor | None
    affine: np.ndarray
    initial: np.ndarray | None


@torch.no_grad()
def coarse_view(
    fields: Fields, images: Images, answer: Tensor | Mapping[str, Tensor], network_affine: np.ndarray
) -> View:
    """Look at a registration.

    Args:
        fields: the map on the user's grids.
        images: the pair on the fixed grid.
        answer: what the network said, see :func:`common.registration.fields_of`; its "starts", (K, N, *S), count.
        network_affine: (N + 1, N + 1) of the network's grid.
    """
    size, affine = coarse_grid(fields.fixed.size, fields.fixed.affine)
    fixed, moving, warped = (pooled(image, size) for image in (images.fixed, images.moving, images.warped))
    both = torch.cat([moving, warped])  # one window and threshold: a warp changes no gray values
    return View(
        fixed=scaled(fixed, window_of(fixed)),
        moving=scaled(moving, window_of(both)),
        warped=scaled(warped, window_of(both)),
        foreground=foreground(fixed),
        warped_foreground=foreground(warped, both),
        own=sampled(fields.own, size),
        inside=reached(fields, size, affine),
        disagreement=disagreement(answer, np.asarray(network_affine), size, affine),
        affine=affine,
        initial=fields.initial,
    )


def coarse_grid(size: Sequence[int], affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Cubes over the same field of view, about ``VOXELS`` of them, or the grid itself where it is as coarse."""
    spacing = np.linalg.norm(affine[:-1, :-1], axis=0)
    extent = spacing * size
    edge = (np.prod(extent) / VOXELS) ** (1 / len(size))
    coarse = tuple(int(min(n, max(1, round(mm / edge)))) for n, mm in zip(size, extent, strict=True))
    step = np.divide(size, coarse)
    onto = np.diag([*step, 1.0])
    onto[:-1, -1] = (step - 1) / 2
    return coarse, affine @ onto


def pooled(image: Tensor, size: tuple[int, ...]) -> Tensor:
    """Means of (1, 1, *S) over the voxels of the coarse grid."""
    return (F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool3d)(image.float(), size)


def sampled(field: Tensor, size: tuple[int, ...]) -> Tensor:
    """A smooth field (1, N, *S) at the centers of the coarse voxels."""
    return F.interpolate(field, size, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)


def window_of(image: Tensor) -> tuple[float, float]:
    """The gray values that become 0 and 1."""
    low, high = np.percentile(image.numpy(), CLIP)
    return float(low), float(high)


def scaled(image: Tensor, window: tuple[float, float]) -> Tensor:
    """In [0, 1]; 0 where the window is empty."""
    low, high = window
    return ((image - low) / (high - low if high > low else 1)).clamp(0, 1)


def foreground(image: Tensor, histogram_of: Tensor | None = None) -> Tensor:
    """Where an image (1, 1, *T) is brighter than Otsu's threshold, bool (*T); nowhere in a flat image.

    Args:
        image: the image.
        histogram_of: of which the threshold is; by default the image.

    Source: N. Otsu, IEEE Trans. Syst. Man Cybern. 1979, doi:10.1109/TSMC.1979.4310076.
    """
    values = image if histogram_of is None else histogram_of
    low, high = window_of(values)
    if not high > low:
        return torch.zeros_like(image[0, 0], dtype=torch.bool)
    counts = torch.histc(values.clamp(low, high), GRAY_VALUES, low, high).double()
    centers = torch.linspace(low, high, GRAY_VALUES, dtype=torch.float64)
    below, sums = counts.cumsum(0), (counts * centers).cumsum(0)
    above = below[-1] - below
    between = (sums[-1] * below / below[-1] - sums).square() / (below * above).clamp(min=1)
    return image[0, 0] > centers[int(between.argmax())]


def reached(fields: Fields, size: tuple[int, ...], affine: np.ndarray) -> Tensor:
    """Where the map leads into the moving image's field of view, bool (*T)."""
    offset = voxel_offset(sampled(fields.total, size), affine, fields.moving.affine)
    there = identity_grid(list(size), offset) + offset
    end = torch.tensor(fields.moving.size).view(1, -1, *[1] * len(size)) - 0.5
    return ((there >= -0.5) & (there <= end)).all(dim=1)[0]


def disagreement(
    answer: Tensor | Mapping[str, Tensor], network_affine: np.ndarray, size: tuple[int, ...], affine: np.ndarray
) -> Tensor | None:
    """Distances in mm of the answers from perturbed starts to the answer, (K, *T); None without them."""
    if not isinstance(answer, Mapping) or "starts" not in answer:
        return None
    starts = plain(answer["starts"])[0]
    distance = ddf_to_mm(starts - plain(answer["ddf"]), network_affine).norm(dim=1, keepdim=True)
    return torch.cat(
        [resample_mm(one[None], network_affine, affine, size, padding_mode="border")[0] for one in distance]
    )
