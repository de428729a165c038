"""What the report's page is made of: a pair's volumes, small enough for one file, and how a browser lays them out."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from torch import Tensor
from torch.nn import functional as F

from .mosaic import bit_mosaic, display_size, gray_mosaic, pooled, value_mosaic
from .planes import display_planes, foreground_center, windowed
from .spatial import jacobian_determinant

__all__ = ["PairView", "page_data"]

PAGE_BYTES = 4_500_000  # of volumes; the page's own text and tables come on top
IMAGE_VOXELS = 7_000_000  # 160 x 192 x 224 stays whole; larger canvases fail on phones
LABEL_VOXELS = 1_000_000
JACOBIAN_VOXELS = 600_000
LATTICE_NODES = 48_000
LINES = 28  # of the deformed grid along the longest side, as in ``common.report``
DET_FLOOR = 1e-3  # below it log det J says nothing more; folds are marked one by one
PALETTES = {"difference": "RdBu_r", "jacobian": "PuOr_r", "displacement": "viridis"}


@dataclass(frozen=True)
class PairView:
    """A registered pair on the fixed image's grid.

    Attributes:
        fixed: (1, 1, *S), finite.
        moving: (1, 1, *S), before the deformation.
        warped: (1, 1, *S).
        ddf: (1, N, *S), voxels.
        spacing_mm: voxel size along each array axis.
        orientation: where each array axis points to, as ``nibabel.aff2axcodes`` gives it; not used in 2-D.
        fixed_label: (1, 1, *S) integers, outlined; or None.
        warped_label: likewise.
        determinant: (*S), det J of x + ddf(x) where it is known already.
        error_mm: (*S), how far off the displacement may be, see ``common.error_map``; or None.
    """

    fixed: Tensor
    moving: Tensor
    warped: Tensor
    ddf: Tensor
    spacing_mm: Sequence[float]
    orientation: str = "RAS"
    fixed_label: Tensor | None = None
    warped_label: Tensor | None = None
    determinant: Tensor | None = None
    error_mm: Tensor | None = None


@torch.no_grad()
def page_data(view: PairView) -> dict:
    """All that the page draws, as JSON takes it; assets/volumes.js says how it is read.

    Grays are those of ``registration.png``. Images of more than seven million voxels are averaged down to that; the
    displacement is sampled on a coarse lattice, log det J averaged, labels thinned out; a voxel that folds is marked
    wherever it is shown.

    Args:
        view: the pair.

    Raises:
        RegInputError: if spacing or orientation fit no image.
    """
    size, spacing = tuple(view.fixed.shape[2:]), [float(s) for s in view.spacing_mm]
    planes = display_planes(size, spacing, view.orientation)
    fixed = plain(view.fixed)
    found = view.determinant if view.determinant is not None else jacobian_determinant(view.ddf)
    determinant = found.detach().float().cpu().reshape(size)
    data = {
        "size": size,
        "spacing": spacing,
        "center": foreground_center(fixed.numpy()),
        "lines": LINES,
        "planes": [plane._asdict() for plane in planes],
        "palettes": {name: palette(colors) for name, colors in PALETTES.items()},
        "labels": label_mosaics(view, spacing),
        "displacement": lattice(view.ddf, spacing),
        **jacobian_data(determinant, spacing),
        "error": None if view.error_mm is None else error_data(view.error_mm, spacing),
    }
    spent = sum(len(text) for text in texts(data))
    return data | image_data([fixed, plain(view.moving), plain(view.warped)], spacing, (PAGE_BYTES - spent) // 3)


def image_data(images: Sequence[Tensor], spacing: Sequence[float], most_bytes: int) -> dict:
    """The three images in their windows, and the range of the differences' colors."""
    gray = [torch.from_numpy(image) for image in windowed([image.numpy() for image in images])]
    change = [np.percentile(np.abs((gray[0] - other).numpy()), 99.5) for other in gray[1:]]
    size = display_size(gray[0].shape, spacing, IMAGE_VOXELS)
    mosaics = [gray_mosaic(pooled(image, size), spacing, most_bytes)._asdict() for image in gray]
    return {"images": dict(zip(("fixed", "moving", "warped"), mosaics, strict=True)), "difference": max(change) or 1.0}


def jacobian_data(determinant: Tensor, spacing: Sequence[float]) -> dict:
    """log det J in grays around its zero, the voxels that fold, and the slices with most of them along each axis."""
    size = determinant.shape
    folded = ~(determinant > 0)  # NaN is no map
    log = determinant.nan_to_num(0).clamp(DET_FLOOR, 1 / DET_FLOOR).log()
    coarse = pooled(log, display_size(size, spacing, JACOBIAN_VOXELS))
    extent = min(max(math.ceil(4 * float(np.percentile(coarse.abs().numpy(), 99.5))), 1), 8) / 4
    gray = (coarse / extent).clamp(-1, 1).add(1).div(2)
    data = {"jacobian": gray_mosaic(gray, spacing, 300_000)._asdict() | {"extent": extent}, "folds": None}
    if folded.any():
        shown = pooled(folded.float(), display_size(size, spacing, IMAGE_VOXELS), largest=True) > 0
        most = [int(folded.movedim(k, 0).flatten(1).sum(1).argmax()) for k in range(folded.ndim)]
        data["folds"] = bit_mosaic(shown.numpy())._asdict() | {"count": int(folded.sum()), "most": most}
    return data


def error_data(error_mm: Tensor, spacing: Sequence[float]) -> dict:
    """Lengths from 0 to nearly their largest in grays, and that in mm."""
    coarse = pooled(error_mm.float(), display_size(error_mm.shape, spacing, JACOBIAN_VOXELS))
    most = float(np.percentile(coarse.numpy(), 99.5)) or 1.0
    return gray_mosaic((coarse / most).clamp(0, 1), spacing, 300_000)._asdict() | {"most": most}


def lattice(ddf: Tensor, spacing: Sequence[float]) -> dict:
    """The displacement in mm along the array's axes at the nodes of a coarse lattice, corner to corner, as int16."""
    size = tuple(ddf.shape[2:])
    nodes = tuple(max(n, 2) for n in display_size(size, spacing, LATTICE_NODES))
    mode = "trilinear" if len(size) == 3 else "bilinear"
    mm = ddf.detach().float().cpu() * torch.tensor(spacing).view(1, -1, *[1] * len(size))
    coarse = F.interpolate(mm, nodes, mode=mode, align_corners=True)[0].nan_to_num(0)
    extent = float(coarse.abs().max()) or 1.0
    codes = (coarse / extent * 32767).round().to(torch.int16).numpy().astype("<i2")
    longest = float(np.percentile(coarse.square().sum(0).sqrt().numpy(), 99.5)) or 1.0
    return {
        "size": nodes,
        "extent": extent,
        "most": longest,
        "src": base64.b64encode(codes.tobytes()).decode(),
    }


def label_mosaics(view: PairView, spacing: Sequence[float]) -> dict:
    """The label maps that are there, their values numbered from 1, thinned out by nearest neighbor."""
    maps = {"fixed": view.fixed_label, "warped": view.warped_label}
    there = {name: label[0, 0].cpu() for name, label in maps.items() if label is not None}
    if not there:
        return {}
    values = np.unique(np.concatenate([label.unique().numpy() for label in there.values()] + [[0]]))
    mosaics = {}
    for name, label in there.items():
        size = display_size(label.shape, spacing, LABEL_VOXELS)
        picked = [np.arange(m) * n // m + n // m // 2 for m, n in zip(size, label.shape, strict=True)]
        codes = np.searchsorted(values, label.numpy()[np.ix_(*picked)]) - np.searchsorted(values, 0)
        mosaics[name] = value_mosaic(np.where(codes == 0, 0, (codes - 1) % 255 + 1).astype(np.uint8))._asdict()
    return mosaics


def palette(name: str) -> str:
    """The 256 colors of a map of matplotlib's as hexadecimal digits, six a color."""
    return colormaps[name](np.arange(256), bytes=True)[:, :3].tobytes().hex()


def plain(image: Tensor) -> Tensor:
    """(1, 1, *S) as float32 (*S) on the CPU, without MONAI's metadata."""
    return image.detach().as_subclass(Tensor)[0, 0].float().cpu()


def texts(value: object) -> list[str]:
    """Every text in a nested value."""
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in texts(item)]
    return [value] if isinstance(value, str) else []
