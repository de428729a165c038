"""Images, label maps and points through transforms, in the moving file's own data type."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from common.errors import RegInputError
from common.files import save_atomically
from common.geometry import voxel_offset
from common.label_warp import warp_label_linear
from common.points import read_points, write_points
from common.spatial import warp
from common.volumes import open_volume, read_voxels, save_as

from .transforms import NIFTI, check_out, grid_of, read_map

__all__ = ["apply_to_image", "apply_to_points"]

POINTS = (".csv", ".fcsv", ".mrk.json")
INTERPOLATIONS = ("linear", "nearest")
FLOAT32_WHOLE = 2**24  # whole numbers up to here are exact in float32


def apply_to_image(
    transforms: Sequence[Path],
    image: Path,
    reference: Path,
    out: Path,
    *,
    label: bool = False,
    interpolation: str | None = None,
    outside: float = 0.0,
    force: bool = False,
) -> None:
    """Write a moving image on the fixed image's grid, in the moving image's data type.

    Args:
        transforms: files, fixed to moving; the last is applied to points first.
        image: the moving image; further axes, such as time, are kept.
        reference: the fixed image.
        out: .nii or .nii.gz.
        label: values are labels: none is made that was not there.
        interpolation: "linear", or "nearest", the default of labels; of labels "linear" takes the one with the largest
            linear weight.
        outside: value beyond the moving image.
        force: replace ``out``.

    Raises:
        RegInputError: if a file cannot be used or ``out`` exists.
        RegEnvError: if ``out`` cannot be written.
    """
    check_out(out, NIFTI, force)
    mode = interpolation or ("nearest" if label else "linear")
    if mode not in INTERPOLATIONS:
        raise RegInputError(f"interpolation is '{mode}', expected {' or '.join(INTERPOLATIONS)}; choose one.")
    whole = read_map(transforms)
    fixed, moving = open_volume(reference), open_volume(image)
    check_values(moving)
    grid, own = grid_of(fixed, whole.ndim), grid_of(moving, whole.ndim)
    voxels = read_voxels(moving)
    rest = voxels.shape[whole.ndim :]
    channels = voxels.reshape(*own.size, -1)
    offset = voxel_offset(whole.on_grid(*grid), grid.affine, own.affine)
    resample = label_warper(mode, outside) if label else image_warper(mode, outside)
    warped = np.stack([resample(channels[..., k], offset) for k in range(channels.shape[-1])], axis=-1)
    values = warped.reshape(*grid.size, *rest)
    save_atomically(lambda path: save_as(moving, values, fixed.affine, path), out)


def apply_to_points(
    transforms: Sequence[Path], points: Path, out: Path, space: str | None = None, force: bool = False
) -> None:
    """Write where points of the fixed image lie in the moving image: the direction in which images are pulled.

    Args:
        transforms: files, fixed to moving; the last is applied first.
        points: landmarks in mm, a file that ``common.points`` reads.
        out: .csv, .fcsv or .mrk.json.
        space: "LPS" or "RAS", of a file that does not say it, and of ``out``, which is LPS by default and says so.
        force: replace ``out``.
    """
    check_out(out, POINTS, force)
    whole = read_map(transforms)
    found = read_points(points, space, whole.ndim)
    write_points(out, replace(found, mm=whole.points(found.mm)), space or "LPS")


def check_values(image: SpatialImage) -> None:
    """Refuse colors and complex numbers."""
    if image.get_data_dtype().kind not in "iuf":
        raise RegInputError(
            f"{image.get_filename()} holds {image.get_data_dtype()}, expected whole or real numbers; split it."
        )


def image_warper(mode: str, outside: float) -> Callable[[np.ndarray, Tensor], np.ndarray]:
    """Interpolation of one channel (*S) through an offset (1, N, *T) in its voxels."""
    kind = {"linear": "bilinear", "nearest": "nearest"}[mode]

    def resample(values: np.ndarray, offset: Tensor) -> np.ndarray:
        above = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32) - np.float32(outside))[None, None]
        return warp(above, offset, kind, "zeros")[0, 0].numpy() + outside

    return resample


def label_warper(mode: str, outside: float) -> Callable[[np.ndarray, Tensor], np.ndarray]:
    """The same of labels: the nearest, or that of the largest linear weight."""

    def resample(values: np.ndarray, offset: Tensor) -> np.ndarray:
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        if not np.array_equal(whole, values):
            raise RegInputError("the image holds fractions, expected labels; leave --label out.")
        if mode == "linear":
            above = torch.from_numpy(whole.astype(np.int64) - int(outside))[None, None]
            return warp_label_linear(above, offset)[0, 0].numpy() + int(outside)
        largest = max(abs(float(whole.max(initial=0))), abs(float(whole.min(initial=0))))
        dtype = np.float32 if largest < FLOAT32_WHOLE else np.float64
        above = torch.from_numpy(whole.astype(dtype) - dtype(outside))[None, None]
        return warp(above, offset, "nearest", "zeros")[0, 0].numpy() + outside

    return resample
