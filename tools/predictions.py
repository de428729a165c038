"""Predictions of a pair: displacement fields in a folder, whatever program wrote them, or the headers alone."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from torch import Tensor

from common.errors import RegInputError
from common.geometry import mm_to_ddf, spatial_affine, voxel_offset
from common.naming import stem
from common.preflight import AFFINE_ATOL
from common.transform_files import read_displacement

from .learn2reg import check_shape, displacement_stem, read_voxel_displacement

__all__ = ["FIELD", "Folder", "Grid", "Identity", "Pair", "Prediction", "Predictions"]

FIELD = "displacement.nii.gz"  # what inference writes into <fixed>__<moving>/
TIMES = "metrics.csv"  # what inference writes beside those folders; its column `seconds` is read


class Grid(NamedTuple):
    """Spatial size of an image and its (N + 1, N + 1) affine, voxels to RAS mm."""

    size: tuple[int, ...]
    affine: np.ndarray

    @property
    def spacing_mm(self) -> list[float]:
        """Voxel size along each array axis."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0).tolist()


@dataclass(frozen=True)
class Pair:
    """Two images of a data set and what comes with them.

    Args:
        paths: the datalist's item, absolute paths by key.
    """

    paths: dict[str, str]

    @property
    def fixed(self) -> Path:
        """The fixed image."""
        return Path(self.paths["fixed"])

    @property
    def moving(self) -> Path:
        """The moving image."""
        return Path(self.paths["moving"])

    @property
    def name(self) -> str:
        """``<fixed>__<moving>``, as inference names its folders."""
        return f"{stem(self.fixed)}__{stem(self.moving)}"

    @cached_property
    def fixed_grid(self) -> Grid:
        """On which fields and scores live."""
        return read_grid(self.fixed)

    @cached_property
    def moving_grid(self) -> Grid:
        """The fixed one itself where the headers agree to a thousandth of a millimeter: no rounding between them."""
        fixed, moving = self.fixed_grid, read_grid(self.moving)
        same = fixed.affine.shape == moving.affine.shape and np.allclose(fixed.affine, moving.affine, atol=AFFINE_ATOL)
        return Grid(moving.size, fixed.affine) if same else moving


class Prediction(NamedTuple):
    """Where each fixed voxel lies in the moving image, (1, N, *S) float64 on the fixed grid.

    Attributes:
        offset: added to a fixed voxel's indices it gives the moving image's voxel coordinates.
        ddf: the same in voxels of the fixed grid, for regularity; differs from ``offset`` only between two grids.
    """

    offset: Tensor
    ddf: Tensor


class Predictions(Protocol):
    """Anything that has a prediction for every pair."""

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raise RegInputError if a pair has none, or none that fits, as far as headers tell."""

    def read(self, pair: Pair) -> Prediction:
        """The prediction of one pair."""

    def seconds(self, pair: Pair) -> float | None:
        """What registering the pair took, None if nobody measured it."""


class Identity:
    """Fixed and moving world are the same: what the headers say, the affine alignment of prepared data."""

    def check(self, pairs: Sequence[Pair]) -> None:
        """Nothing can be missing."""

    def read(self, pair: Pair) -> Prediction:
        """No displacement in mm."""
        size = pair.fixed_grid.size
        return from_mm(torch.zeros(1, len(size), *size, dtype=torch.float64), pair)

    def seconds(self, pair: Pair) -> float | None:
        """Not measured."""
        return None


@dataclass(frozen=True)
class Folder:
    """One field a pair, as ``<fixed>__<moving>/displacement.nii.gz`` or ``<fixed>__<moving>.nii.gz`` (ITK displacement
    fields, LPS mm), or as Learn2Reg's ``disp_FFFF_MMMM.nii.gz`` or ``.npz`` (voxels).

    Args:
        path: the folder.
    """

    path: Path

    def check(self, pairs: Sequence[Pair]) -> None:
        """Find every file and hold its header against the fixed grid; npz files have none and are read later."""
        if not self.path.is_dir():
            raise RegInputError(f"{self.path} is no folder, expected one of predictions; correct the path.")
        missing = [pair.name for pair in pairs if not self.found(pair)]
        if missing:
            wanted = ", ".join(path.name for path in self.candidates(pairs[0])[1:]) + f" or <pair>/{FIELD}"
            raise RegInputError(
                f"{self.path} has no prediction for {len(missing)} of {len(pairs)} pairs, the first {missing[0]}, "
                f"expected a file such as {wanted}; predict every pair of the section."
            )
        for pair in pairs:
            check_header(self.file(pair), pair)

    def read(self, pair: Pair) -> Prediction:
        """Read the field; RegInputError unless it is finite and on the fixed grid."""
        path = self.file(pair)
        if is_voxels(path):
            offset = read_voxel_displacement(path, pair.fixed_grid.size)
            return Prediction(offset, offset)
        ddf_mm, affine = read_displacement(path)
        check_grid(path, Grid(tuple(ddf_mm.shape[2:]), affine), pair.fixed_grid)
        return from_mm(ddf_mm.double(), pair)

    def seconds(self, pair: Pair) -> float | None:
        """From ``metrics.csv`` beside the predictions."""
        return self.times.get((pair.fixed.name, pair.moving.name))

    @cached_property
    def times(self) -> dict[tuple[str, str], float]:
        """Seconds by the two files' names."""
        path = self.path / TIMES
        if not path.is_file():
            return {}
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("seconds")]
        return {(row["fixed"], row["moving"]): float(row["seconds"]) for row in rows}

    def candidates(self, pair: Pair) -> list[Path]:
        """Where the field of a pair may lie."""
        names = [f"{pair.name}/{FIELD}", f"{pair.name}.nii.gz", f"{pair.name}.nii"]
        voxels = displacement_stem(pair.fixed, pair.moving)
        names += [f"{voxels}{suffix}" for suffix in (".nii.gz", ".nii", ".npz")] if voxels else []
        return [self.path / name for name in names]

    def found(self, pair: Pair) -> list[Path]:
        """Those of the candidates that are there."""
        return [path for path in self.candidates(pair) if path.is_file()]

    def file(self, pair: Pair) -> Path:
        """The one file of a pair; RegInputError if there are two."""
        paths = self.found(pair)
        if len(paths) != 1:
            raise RegInputError(
                f"{self.path} has {[str(path.relative_to(self.path)) for path in paths]} for the pair {pair.name}, "
                "expected one file; keep one layout in a folder."
            )
        return paths[0]


def from_mm(ddf_mm: Tensor, pair: Pair) -> Prediction:
    """The prediction that a field (1, N, *S) in RAS mm on the fixed grid makes."""
    fixed, moving = pair.fixed_grid.affine, pair.moving_grid.affine
    offset = voxel_offset(ddf_mm, fixed, moving)
    return Prediction(offset, offset if moving is fixed else mm_to_ddf(ddf_mm, fixed))


def read_grid(path: Path) -> Grid:
    """Size and affine from a header, trailing axes of one voxel left out."""
    try:
        image = nib.load(path)
    except (OSError, ImageFileError) as error:
        raise RegInputError(f"{path} cannot be read ({error}), expected an image; check the file.") from error
    size = image.shape
    while len(size) > 2 and size[-1] == 1:
        size = size[:-1]
    return Grid(size, spatial_affine(image.affine, len(size)))


def is_voxels(path: Path) -> bool:
    """Whether a prediction's name says Learn2Reg's voxels."""
    return path.name.startswith("disp_")


def check_header(path: Path, pair: Pair) -> None:
    """Raise RegInputError unless a NIfTI field's header fits the fixed image."""
    if path.suffix == ".npz":
        return
    try:
        image = nib.load(path)
    except (OSError, ImageFileError) as error:
        raise RegInputError(
            f"{path} cannot be read ({error}), expected a displacement field; check the file."
        ) from error
    size, ndim = pair.fixed_grid.size, len(pair.fixed_grid.size)
    if is_voxels(path):
        return check_shape(path, image.shape, size)
    if image.shape[ndim:] != (*[1] * (4 - ndim), ndim):
        raise RegInputError(
            f"{path} has shape {image.shape}, expected {(*size, *[1] * (4 - ndim), ndim)}, an ITK displacement field; "
            "Learn2Reg's voxel displacements are called disp_FFFF_MMMM."
        )
    check_grid(path, Grid(image.shape[:ndim], spatial_affine(image.affine, ndim)), pair.fixed_grid)


def check_grid(path: Path, found: Grid, fixed: Grid) -> None:
    """Raise RegInputError unless a field lies on the fixed image's grid."""
    if found.size != fixed.size:
        raise RegInputError(
            f"{path} is {list(found.size)} voxels, expected the fixed image's {list(fixed.size)}; write the field on "
            "that grid."
        )
    if not np.allclose(found.affine, fixed.affine, atol=AFFINE_ATOL):
        raise RegInputError(
            f"{path} has the affine {found.affine.round(3).tolist()}, expected the fixed image's "
            f"{fixed.affine.round(3).tolist()}; write the field on that grid."
        )
