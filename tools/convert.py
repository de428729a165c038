"""Transforms from one program's files into another's, by way of RAS millimeters."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from common.errors import RegInputError
from common.files import save_atomically
from common.geometry import ddf_to_mm, linear_part, mm_to_ddf, multiply, voxel_offset
from common.map_files import read_transform
from common.maps import Field, Linear, Map
from common.volumes import open_volume

from .learn2reg import UNREADABLE, read_npz, read_voxel_displacement, write_voxel_displacement
from .neuro_affines import read_freesurfer, read_fsl, write_freesurfer, write_fsl
from .predictions import Grid
from .transforms import MAPS, NIFTI, check_out, field_on, grid_of, write_map

__all__ = ["FORMATS", "convert"]

FORMATS = ("itk", "matrix", "ddf", "learn2reg", "freesurfer", "fsl")
VOXELS = ("ddf", "learn2reg")
SUFFIXES = {
    "itk": MAPS,
    "matrix": (".txt", ".mat"),
    "ddf": (".npz", *NIFTI),
    "learn2reg": (".npz", *NIFTI),
    "freesurfer": (".lta",),
    "fsl": (".mat", ".txt"),
}


class Images(NamedTuple):
    """The images of the pair, where they were named."""

    reference: SpatialImage | None
    moving: SpatialImage | None

    def grid(self, ndim: int) -> Grid | None:
        """Of the fixed image."""
        return None if self.reference is None else grid_of(self.reference, ndim)

    def moving_grid(self, ndim: int) -> Grid | None:
        """Of the moving image; of the fixed one, if that alone was named."""
        return self.grid(ndim) if self.moving is None else grid_of(self.moving, ndim)


def convert(
    source: Path,
    out: Path,
    *,
    source_format: str | None = None,
    out_format: str | None = None,
    reference: Path | None = None,
    moving: Path | None = None,
    force: bool = False,
) -> None:
    """Write a transform in another format; what formats are is said in :data:`FORMATS` and by the command's help.

    Args:
        source: the file to read.
        out: the file to write.
        source_format: of ``source``; by default its content tells.
        out_format: of ``out``; by default .npz is "ddf", .txt "matrix", .lta "freesurfer" and anything else "itk".
        reference: the fixed image: formats in voxels, and FSL's, mean nothing without it.
        moving: the moving image, where its grid is another one.
        force: replace ``out``.

    Raises:
        RegInputError: if a file cannot be used, an image is missing, or ``out`` cannot hold such a transform.
        RegEnvError: if ``out`` cannot be written, or without nitransforms where it is needed.
    """
    kind = named(source_format) or kind_of_content(source)
    wanted = named(out_format) or kind_of_name(out)
    check_out(out, SUFFIXES[wanted], force)
    images = Images(*(None if path is None else open_volume(path) for path in (reference, moving)))
    whole = READERS[kind](source, images)
    WRITERS[wanted](whole, out, images)


def named(kind: str | None) -> str | None:
    """A format by its name, if it is one."""
    if kind is not None and kind not in FORMATS:
        raise RegInputError(f"the format is '{kind}', expected one of {', '.join(FORMATS)}; choose one.")
    return kind


def kind_of_name(path: Path) -> str:
    """The format to write."""
    return {".npz": "ddf", ".txt": "matrix", ".lta": "freesurfer"}.get(path.suffix.lower(), "itk")


def kind_of_content(path: Path) -> str:
    """The format of a file: fields in voxels have four axes as NIfTI, components last in Learn2Reg's."""
    if path.suffix.lower() == ".lta":
        return "freesurfer"
    if path.suffix.lower() == ".npz":
        return "ddf" if "ddf" in array_names(path) else "learn2reg"
    if not path.name.lower().endswith(NIFTI):
        return "itk"
    shape = open_volume(path).shape
    ndim = len(shape) - 1
    if ndim in (2, 3) and shape[0] != ndim and shape[-1] == ndim:
        return "learn2reg"
    return "ddf" if ndim in (2, 3) and shape[0] == ndim and shape[-1] != ndim else "itk"


def array_names(path: Path) -> list[str]:
    """The arrays of an .npz file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return list(arrays.files)
    except (*UNREADABLE, AttributeError) as error:  # one array, .npy, has no names
        raise RegInputError(f"{path} cannot be read ({error}), expected a field as .npz; check the file.") from error


def grid_for_voxels(images: Images, ndim: int) -> Grid:
    """The fixed grid, without which voxels mean nothing."""
    grid = images.grid(ndim)
    if grid is None:
        raise RegInputError(
            "a field in voxels means nothing without its grid, expected the fixed image; name it with --reference."
        )
    return grid


def read_itk(path: Path, images: Images) -> Map:
    """Anything that ``common.map_files`` reads."""
    return read_transform(path)


def read_learn2reg(path: Path, images: Images) -> Map:
    """Voxels (*S, N): added to fixed indices they give indices of the moving image."""
    ndim = dimension(images)
    grid = grid_for_voxels(images, ndim)
    offset, own = read_voxel_displacement(path, grid.size), images.moving_grid(ndim).affine
    across = linear_part(own @ np.linalg.inv(grid.affine), grid.size, offset, grid.affine)
    return Map((Field(multiply(own[:-1, :-1], offset) + across, grid.affine),))


def read_ddf(path: Path, images: Images) -> Map:
    """This project's own: (N, *S), voxels of the fixed grid, both images in one world."""
    ndim = dimension(images)
    grid = grid_for_voxels(images, ndim)
    values = read_array(path)
    values = values[0] if values.ndim == ndim + 2 and len(values) == 1 else values
    if values.shape != (ndim, *grid.size) or not np.isfinite(values).all():
        raise RegInputError(
            f"{path} has shape {values.shape}, expected finite voxels {(ndim, *grid.size)} on the fixed image's grid; "
            "name the image that it belongs to with --reference."
        )
    return Map((Field(ddf_to_mm(torch.from_numpy(values.astype(np.float64))[None], grid.affine), grid.affine),))


def dimension(images: Images) -> int:
    """2 for a fixed image of one slice, else 3."""
    if images.reference is None:
        return 3
    return 2 if (*images.reference.shape, 1)[2] == 1 else 3


def read_array(path: Path) -> np.ndarray:
    """An array of .npz, called ``ddf`` or the only one, or of NIfTI."""
    if path.suffix.lower() != ".npz":
        return np.asarray(open_volume(path).dataobj)
    return read_npz(path, "ddf")


def write_itk(whole: Map, out: Path, images: Images) -> None:
    """For ITK, see :func:`tools.transforms.write_map`."""
    write_map(whole, out, images.grid(whole.ndim))


def write_matrix(whole: Map, out: Path, images: Images) -> None:
    """An affine as RAS text, for greedy and c3d."""
    matrix = affine_alone(whole, out)
    save_atomically(lambda temporary: np.savetxt(temporary, matrix, fmt="%.12g"), out)


def affine_alone(whole: Map, out: Path) -> np.ndarray:
    """The matrix of a map that is affine, else RegInputError."""
    if whole.matrix is None:
        raise RegInputError(f"{out} would hold an affine alone, expected one, and the transform deforms; name a field.")
    return whole.matrix


def write_ddf(whole: Map, out: Path, images: Images) -> None:
    """Voxels of the fixed grid, (N, *S) float32."""
    field = field_on(whole, images.grid(whole.ndim), "the fixed grid")
    save_array(mm_to_ddf(field.ddf_mm, field.affine)[0], out, "ddf")


def write_learn2reg(whole: Map, out: Path, images: Images) -> None:
    """What is added to fixed indices, (*S, N) float32."""
    field = field_on(whole, images.grid(whole.ndim), "the fixed grid")
    own = images.moving_grid(whole.ndim)
    offset = voxel_offset(field.ddf_mm, field.affine, field.affine if own is None else own.affine)
    if out.suffix.lower() == ".npz":
        return save_array(offset[0].movedim(0, -1), out, "arr_0")
    write_voxel_displacement(out, offset, np.eye(4) if whole.ndim == 2 else field.affine)


def save_array(values: Tensor, out: Path, name: str) -> None:
    """An array as .npz under a name, or as NIfTI without a position."""
    array = values.to(torch.float32).numpy()
    if out.suffix.lower() == ".npz":
        return save_atomically(lambda temporary: np.savez_compressed(temporary, **{name: array}), out)
    save_atomically(lambda temporary: nib.save(nib.Nifti1Image(array, np.eye(4)), temporary), out)


def from_matrix(read: Callable[..., np.ndarray]) -> Callable[[Path, Images], Map]:
    """A reader of maps of one that reads matrices by path, fixed and moving image."""
    return lambda path, images: Map((Linear(read(path, images.reference, images.moving)),))


def to_matrix(write: Callable[..., None]) -> Callable[[Map, Path, Images], None]:
    """A writer of maps of one that writes matrices by path, fixed and moving image."""
    return lambda whole, out, images: write(out, affine_alone(whole, out), images.reference, images.moving)


READERS = {
    "itk": read_itk,
    "matrix": read_itk,
    "ddf": read_ddf,
    "learn2reg": read_learn2reg,
    "freesurfer": from_matrix(read_freesurfer),
    "fsl": from_matrix(read_fsl),
}
WRITERS = {
    "itk": write_itk,
    "matrix": write_matrix,
    "ddf": write_ddf,
    "learn2reg": write_learn2reg,
    "freesurfer": to_matrix(write_freesurfer),
    "fsl": to_matrix(write_fsl),
}
