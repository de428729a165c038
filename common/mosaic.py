"""Volumes as pictures that a browser decodes: every slice a tile of one JPEG or PNG, written as a data URL."""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Mosaic", "bit_mosaic", "display_size", "gray_mosaic", "pooled", "value_mosaic"]

BLOCK = 8  # JPEG codes blocks of so many pixels: tiles that start with one do not shine into each other
QUALITIES = (90, 80, 70, 60, 45, 30)


class Mosaic(NamedTuple):
    """A volume of 8 bits (2-D: of one slice).

    Attributes:
        size: of the volume.
        axis: along which it is cut into tiles, in order; None for an image, which is one tile.
        columns: tiles in a row of the picture.
        pitch: pixels from one tile to the next, down and right; tiles start at the top left of each field.
        src: the picture as a data URL.
    """

    size: tuple[int, ...]
    axis: int | None
    columns: int
    pitch: tuple[int, int]
    src: str


def display_size(size: Sequence[int], spacing_mm: Sequence[float], voxels: int) -> tuple[int, ...]:
    """Size of a grid over the same field of view with at most so many voxels, as near to cubes as the old one allows.

    Axes of thick slices stay as they are; finer ones are brought to one spacing.

    Args:
        size: of the grid.
        spacing_mm: its voxel size along each axis.
        voxels: the limit, at least 1.
    """
    low, high = min(spacing_mm), max(n * s for n, s in zip(size, spacing_mm, strict=True))

    def at(step_mm: float) -> tuple[int, ...]:
        return tuple(min(n, max(1, int(n * s / step_mm + 1e-6))) for n, s in zip(size, spacing_mm, strict=True))

    if math.prod(size) <= voxels:
        return tuple(size)
    for _ in range(40):  # halving: the spacing at which the limit is met
        middle = (low * high) ** 0.5
        low, high = (low, middle) if math.prod(at(middle)) <= voxels else (middle, high)
    return at(high)


def pooled(volume: Tensor, size: Sequence[int], largest: bool = False) -> Tensor:
    """Means, or the largest values, of the voxels that each voxel of a smaller grid covers.

    Args:
        volume: (*S), floating point.
        size: the new one, nowhere larger.
        largest: for masks, whose single voxels must not fade.
    """
    if tuple(volume.shape) == tuple(size):
        return volume
    pool = {
        (2, False): F.adaptive_avg_pool2d,
        (3, False): F.adaptive_avg_pool3d,
        (2, True): F.adaptive_max_pool2d,
        (3, True): F.adaptive_max_pool3d,
    }[volume.ndim, largest]
    return pool(volume[None, None], tuple(size))[0, 0]


def gray_mosaic(volume: Tensor, spacing_mm: Sequence[float], most_bytes: int) -> Mosaic:
    """A volume of grays as JPEG of the best quality that keeps within a number of bytes.

    Args:
        volume: (*S) in [0, 1]; 0 is black.
        spacing_mm: voxel size along each axis; tiles are cut across the thickest, where they are sharpest.
        most_bytes: of the data URL. The lowest quality is taken where none keeps within it.
    """
    codes = (volume * 255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    sheet, mosaic = tiled(codes, int(np.argmax(spacing_mm)), BLOCK)
    picture = Image.fromarray(sheet)
    for quality in QUALITIES:
        content = encoded(picture, "JPEG", quality=quality)
        if len(content) * 4 / 3 < most_bytes:
            break
    return mosaic._replace(src=data_url("jpeg", content))


def value_mosaic(volume: np.ndarray) -> Mosaic:
    """A volume (*S) of uint8, such as labels, as PNG: nothing is lost."""
    sheet, mosaic = tiled(volume, 0, 1)
    return mosaic._replace(src=data_url("png", encoded(Image.fromarray(sheet), "PNG", compress_level=6)))


def bit_mosaic(mask: np.ndarray) -> Mosaic:
    """A mask (*S) as PNG of one bit a voxel: 255 where it is set."""
    sheet, mosaic = tiled(mask.astype(np.uint8), 0, 1)
    picture = Image.fromarray(sheet * np.uint8(255)).convert("1", dither=Image.Dither.NONE)
    return mosaic._replace(src=data_url("png", encoded(picture, "PNG", compress_level=6)))


def tiled(volume: np.ndarray, axis: int, block: int) -> tuple[np.ndarray, Mosaic]:
    """The slices across an axis as one picture, nearly square, tiles filled up to whole blocks by their last pixels."""
    slices = volume[None] if volume.ndim == 2 else np.moveaxis(volume, axis, 0)
    count, *tile = slices.shape
    pitch = tuple(-(-n // block) * block for n in tile)
    columns = min(count, max(1, round(math.sqrt(count * pitch[0] / pitch[1]))))
    rows = -(-count // columns)
    spare = ((0, rows * columns - count), *((0, p - n) for p, n in zip(pitch, tile, strict=True)))
    filled = np.pad(slices, spare, mode="edge") if any(after for _, after in spare) else slices
    sheet = filled.reshape(rows, columns, *pitch).swapaxes(1, 2).reshape(rows * pitch[0], columns * pitch[1])
    return np.ascontiguousarray(sheet), Mosaic(
        tuple(volume.shape), None if volume.ndim == 2 else axis, columns, pitch, ""
    )


def encoded(picture: Image.Image, kind: str, **settings: int) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def data_url(kind: str, content: bytes) -> str:
    """A file as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
