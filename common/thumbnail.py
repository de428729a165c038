"""A pair at a glance: the three planes of the warped image with the outline of the fixed one, in a few kilobytes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.ndimage import binary_erosion
from torch import Tensor

from .files import save_atomically
from .planes import Plane, display_planes, foreground_center, slice_view, windowed
from .report import FIXED_COLOR

__all__ = ["save_thumbnail", "thumbnail"]

HEIGHT, GAP = 128, 4  # pixels: of the tallest plane, and between planes
MOST_BYTES = 15_000
QUALITIES = (85, 70, 55, 40, 25)


def save_thumbnail(
    path: Path, fixed: Tensor, warped: Tensor, spacing_mm: Sequence[float], orientation: str = "RAS"
) -> None:
    """Write :func:`thumbnail` as JPEG of at most 15 kB, whole or not at all."""
    picture = Image.fromarray(thumbnail(fixed, warped, spacing_mm, orientation))
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MOST_BYTES:
            break
    save_atomically(lambda temporary: temporary.write_bytes(buffer.getvalue()), path)


def thumbnail(fixed: Tensor, warped: Tensor, spacing_mm: Sequence[float], orientation: str = "RAS") -> np.ndarray:
    """The planes through the center of the fixed image's foreground, side by side, pixels in true proportions.

    The outline is that of what is brighter than the fixed image's mean, the foreground by which slices are chosen.

    Args:
        fixed: (1, 1, *S), finite.
        warped: (1, 1, *S).
        spacing_mm: voxel size along each array axis.
        orientation: where each array axis points to; not used in 2-D.

    Returns:
        (128, W, 3) uint8.

    Raises:
        RegInputError: if spacing_mm or orientation fit no image.
    """
    images = [image.detach().as_subclass(Tensor)[0, 0].float().cpu().numpy() for image in (fixed, warped)]
    planes = display_planes(images[0].shape, spacing_mm, orientation)
    center = foreground_center(images[0])
    fixed_gray, _, warped_gray = windowed([images[0], images[1], images[1]])
    level = float(fixed_gray.mean())
    tallest = max(images[0].shape[plane.rows] * spacing_mm[plane.rows] for plane in planes)
    tiles = []
    for plane in planes:
        size = pixels(plane, images[0].shape, spacing_mm, tallest)
        onto, shown = (resized(slice_view(gray, plane, center), size) for gray in (fixed_gray, warped_gray))
        tiles.append(framed(outlined(shown, onto > level)))
    gap = np.zeros((HEIGHT, GAP, 3), np.uint8)
    return np.concatenate([part for tile in tiles for part in (gap, tile)][1:], axis=1)


def pixels(plane: Plane, size: Sequence[int], spacing_mm: Sequence[float], tallest_mm: float) -> tuple[int, int]:
    """Height and width of a plane, one scale for all."""
    scale = HEIGHT / tallest_mm
    return tuple(max(1, round(size[axis] * spacing_mm[axis] * scale)) for axis in (plane.rows, plane.columns))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W) in [0, 1] of another size, averaged where it shrinks."""
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize(size[::-1], Image.Resampling.BOX))


def outlined(gray: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colors (H, W, 3) in [0, 1] of an image with the rim of a mask."""
    colors = np.repeat(gray[..., None], 3, axis=-1)
    colors[mask & ~binary_erosion(mask)] = to_rgb(FIXED_COLOR)
    return colors


def framed(colors: np.ndarray) -> np.ndarray:
    """The picture in bytes, black above and below to the full height."""
    codes = (colors * 255).round().clip(0, 255).astype(np.uint8)
    above = (HEIGHT - len(codes)) // 2
    return np.pad(codes, ((above, HEIGHT - len(codes) - above), (0, 0), (0, 0)))
