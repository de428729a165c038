"""What is done with transforms on disk: applied to images and points, composed, inverted, measured.

A list of transforms is applied to points from its last to its first, as antsApplyTransforms has it: the one named last
takes fixed points away from the fixed image, the one named first brings them to the moving image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from common.errors import RegInputError, RegNumericsError
from common.files import save_atomically
from common.geometry import mm_to_ddf, spatial_affine
from common.inverse import invert_mm
from common.map_files import read_transform, write_affine
from common.maps import Field, Linear, Map, concatenate
from common.spatial import jacobian_determinant
from common.transform_files import write_composite, write_displacement
from common.volumes import open_volume

from .predictions import Grid

__all__ = [
    "InverseResidual",
    "Volumes",
    "check_out",
    "compose",
    "field_on",
    "grid_of",
    "invert",
    "jacobian",
    "read_map",
    "write_map",
]

NIFTI = (".nii", ".nii.gz")
LINEAR = (".h5", ".tfm", ".mat")
MAPS = (*NIFTI, *LINEAR)


class InverseResidual(NamedTuple):
    """How far moving voxels are from themselves after the inverse and the transform, inside the fixed grid, in mm."""

    largest_mm: float
    mean_mm: float


class Volumes(NamedTuple):
    """What a Jacobian determinant says of local volumes."""

    smallest: float
    largest: float
    folded_percent: float


def check_out(path: Path, suffixes: Sequence[str], force: bool) -> None:
    """Raise RegInputError, before any work, if a file cannot be written under that name or is there already."""
    if not path.name.lower().endswith(tuple(suffixes)):
        raise RegInputError(f"{path} ends in '{path.suffix}', expected {', '.join(suffixes)}; rename it.")
    if path.exists() and not force:
        raise RegInputError(f"{path} exists, expected a new name; choose another one or replace it with --force.")


def grid_of(image: SpatialImage, ndim: int) -> Grid:
    """The grid of the first ``ndim`` axes of an image.

    Raises:
        RegInputError: if the image has fewer, or a 2-D transform meets a volume.
    """
    shape = (*image.shape, 1, 1)
    if len(image.shape) < 2 or (ndim == 2 and shape[2] != 1):
        raise RegInputError(
            f"{image.get_filename()} has shape {tuple(image.shape)}, expected {ndim} axes as the transform has; name "
            "an image of that dimension."
        )
    return Grid(tuple(int(n) for n in shape[:ndim]), spatial_affine(image.affine, ndim))


def read_map(paths: Sequence[Path]) -> Map:
    """One map of transform files, the last of which is applied to points first."""
    return concatenate([read_transform(path) for path in reversed(paths)])


def field_on(whole: Map, grid: Grid | None, purpose: str) -> Field:
    """A map as one field: on a grid, or by default on that of the field which it begins with.

    Raises:
        RegInputError: if there is neither.
    """
    first = whole.parts[0]
    if grid is None and not isinstance(first, Field):
        raise RegInputError(
            f"the transform has no grid of its own, expected an image that gives {purpose}; name it with --reference."
        )
    own = Grid(first.size, first.affine) if grid is None else grid
    return Field(whole.on_grid(*own), own.affine)


def apart(whole: Map, grid: Grid | None = None) -> tuple[Field, np.ndarray | None] | None:
    """A field and the affine after it, where a map is just that and, if a grid is asked for, lies on it."""
    parts = whole.merged().parts
    if not isinstance(parts[0], Field) or len(parts) > 2 or not all(isinstance(part, Linear) for part in parts[1:]):
        return None
    field = parts[0]
    if grid is not None and (field.size != grid.size or not np.allclose(field.affine, grid.affine, atol=1e-4)):
        return None  # 1e-4 mm: what float32 headers leave
    return field, parts[1].matrix if len(parts) == 2 else None


def write_map(whole: Map, out: Path, grid: Grid | None = None) -> None:
    """Write a map for ITK: an affine as it is, anything else as a field, in .h5 with the affine after it apart.

    Args:
        whole: the map.
        out: .h5; .tfm and .mat hold affines only; .nii and .nii.gz hold the whole map as a displacement field.
        grid: where it is sampled unless it already is a field there.
    """
    as_field = out.name.lower().endswith(NIFTI)
    if whole.matrix is not None and not as_field:
        return write_affine(out, whole.matrix)
    if not as_field and out.suffix.lower() != ".h5":
        raise RegInputError(f"{out} holds affines only, expected .h5 or .nii.gz for a deformation; rename it.")
    found = None if as_field else apart(whole, grid)
    if found is not None:
        return write_composite(out, found[0].ddf_mm, found[0].affine, found[1])
    field = field_on(whole, grid, "the grid to sample it on")
    if as_field:
        return write_displacement(out, field.ddf_mm, field.affine)
    return write_composite(out, field.ddf_mm, field.affine)


def compose(transforms: Sequence[Path], out: Path, reference: Path | None = None, force: bool = False) -> None:
    """Write several transforms as one, see :func:`write_map`.

    Args:
        transforms: the last is applied to points first.
        out: the file to write.
        reference: image on whose grid the whole is sampled; unnecessary where all are affine or the last is a field.
        force: replace ``out``.
    """
    check_out(out, MAPS, force)
    whole = read_map(transforms)
    write_map(whole, out, None if reference is None else grid_of(open_volume(reference), whole.ndim))


def invert(
    transforms: Sequence[Path], out: Path, moving: Path | None = None, fixed: Path | None = None, force: bool = False
) -> InverseResidual | None:
    """Write the inverse of transforms: of affines exactly, of others as a field on the moving image's grid.

    Args:
        transforms: the last is applied to points first.
        out: the file to write.
        moving: the moving image, for its grid.
        fixed: the fixed image, on whose grid transforms are sampled first that do not begin with a field.
        force: replace ``out``.

    Returns:
        What the inverse leaves; None for an affine.

    Raises:
        RegInputError: without a grid that is needed, or if the moving image lies elsewhere.
        RegNumericsError: if the mean residual is half a voxel or more: nothing is written then.
    """
    check_out(out, MAPS, force)
    whole = read_map(transforms)
    grid = None if moving is None else grid_of(open_volume(moving), whole.ndim)
    if whole.matrix is not None:
        write_map(Map((Linear(np.linalg.inv(whole.matrix)),)), out, grid)
        return None
    if grid is None:
        raise RegInputError(
            "the transform deforms, and its inverse lies on the moving image's grid; name that image with --reference."
        )
    field, initial = apart(whole) or (forward_field(whole, fixed), None)
    inverse, residual_mm = invert_mm(field.ddf_mm, field.affine, grid.affine, grid.size, initial)
    residual = summary(residual_mm, grid)
    write_map(Map((Field(inverse, grid.affine),)), out)
    return residual


def forward_field(whole: Map, fixed: Path | None) -> Field:
    """A map on the fixed image's grid."""
    if fixed is None and not isinstance(whole.parts[0], Field):
        raise RegInputError(
            "the transform has no grid of its own, expected the fixed image that gives one; name it with --fixed."
        )
    return field_on(whole, None if fixed is None else grid_of(open_volume(fixed), whole.ndim), "the fixed grid")


def summary(residual_mm: Tensor, grid: Grid) -> InverseResidual:
    """Largest and mean residual, refused where it is no inverse."""
    known = residual_mm[residual_mm.isfinite()]
    if len(known) == 0:
        raise RegInputError(
            "no voxel of the moving image comes from inside the transform's grid, expected that they overlap; name the "
            "transform's own moving image with --reference."
        )
    found = InverseResidual(float(known.max()), float(known.mean()))
    if found.mean_mm >= min(grid.spacing_mm) / 2:
        raise RegNumericsError(
            f"the inverse is off by {found.mean_mm:.2g} mm on average, expected less than half a voxel: the transform "
            "folds; register with more regularization."
        )
    return found


def jacobian(
    transforms: Sequence[Path], out: Path, reference: Path | None = None, total: bool = False, force: bool = False
) -> Volumes:
    """Write the determinant of the Jacobian, float32: 2 says that what is 1 mm^3 in the fixed image is 2 mm^3 there.

    Args:
        transforms: the last is applied to points first.
        out: .nii or .nii.gz.
        reference: image that gives the grid; by default that of the field which the transform begins with.
        total: of the whole map; else what its affines do to volume is divided out. A displacement field holds no
            affine apart: of one that contains an affine alignment both are the same.
        force: replace ``out``.
    """
    check_out(out, NIFTI, force)
    whole = read_map(transforms)
    grid = None if reference is None else grid_of(open_volume(reference), whole.ndim)
    field = field_on(whole, grid, "the grid to measure on")
    if min(field.size) < 2:
        raise RegInputError(f"the grid is {list(field.size)} voxels, expected two along every axis; name another one.")
    values = jacobian_determinant(mm_to_ddf(field.ddf_mm, field.affine))[0] / (1 if total else whole.volume)
    save_values(values, field.affine, out)
    return Volumes(float(values.min()), float(values.max()), 100 * float((values <= 0).double().mean()))


def save_values(values: Tensor, affine: np.ndarray, out: Path) -> None:
    """Write (*S) as float32 NIfTI."""
    full, ndim = np.eye(4), values.ndim
    full[:ndim, :ndim], full[:ndim, 3] = affine[:-1, :-1], affine[:-1, -1]
    image = nib.Nifti1Image(values.to(torch.float32).numpy(), full)
    save_atomically(lambda temporary: nib.save(image, temporary), out)
