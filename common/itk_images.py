"""Images that ITK reads, as nibabel images whose voxels stay on disk until they are asked for."""

import locale
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

from .errors import RegInputError, first_line
from .itk_classes import itk_class

__all__ = [
    "ItkVoxels",
    "component_dtype",
    "image_io",
    "kept_locale",
    "nifti_of",
    "open_by_itk",
    "read_by_itk",
    "reason",
    "refuse_colors",
]

IO_CLASSES = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}
PIXEL_TYPES = {"uint8": "UC", "int16": "SS", "uint16": "US", "int32": "SI", "uint32": "UI", "float32": "F"}
COMPONENT_TYPES = {
    "char": "int8",
    "unsigned_char": "uint8",
    "short": "int16",
    "unsigned_short": "uint16",
    "int": "int32",
    "unsigned_int": "uint32",
    "long": "int64",
    "unsigned_long": "uint64",
    "long_long": "int64",
    "unsigned_long_long": "uint64",
    "float": "float32",
    "double": "float64",
}


class ItkVoxels:
    """The voxels of an image on disk, what nibabel calls an array proxy: every conversion to an array reads them.

    Args:
        read: returns the voxels (X, Y, ...); RuntimeError, from ITK, if it cannot.
        shape: of the voxels.
        dtype: of the voxels.
    """

    is_proxy = True

    def __init__(self, read: Callable[[], np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.read = read
        self.shape = shape
        self.ndim = len(shape)
        self.dtype = dtype

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """The voxels; always read anew."""
        return self.read().astype(dtype or self.dtype, copy=False)

    def __getitem__(self, index: object) -> np.ndarray:
        """A part of the voxels; all are read."""
        return np.asarray(self)[index]


def open_by_itk(path: Path, stated: bool) -> nib.Nifti1Image:
    """A MetaImage or NRRD by its suffix, its header read; RuntimeError from ITK if that fails.

    Args:
        path: the file.
        stated: whether it states a position; without one the NIfTI codes are 0.
    """
    reader = image_io(IO_CLASSES[path.suffix.lower()], path)
    refuse_colors(reader, path)
    ndim = reader.GetNumberOfDimensions()
    shape = tuple(int(reader.GetDimensions(axis)) for axis in range(ndim))
    dtype = component_dtype(reader)
    voxels = ItkVoxels(lambda: read_by_itk("ImageFileReader", path, dtype, ndim), shape, dtype)
    return nifti_of(voxels, lps_affine(reader, min(ndim, 3)), path, stated)


def image_io(name: str, path: Path) -> object:
    """ITK's ImageIO of this class, the header of ``path`` read; RuntimeError from ITK if that fails."""
    reader = itk_class(name, "").New()
    reader.SetFileName(str(path))
    with kept_locale():
        reader.ReadImageInformation()
    return reader


@contextmanager
def kept_locale() -> Iterator[None]:
    """Undo what GDCM does to the process: it sets the locale "C", after which Python takes every text for ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


def refuse_colors(reader: object, path: Path) -> None:
    """Raise RegInputError unless a voxel is one real number."""
    kind, count = reader.GetPixelTypeAsString(reader.GetPixelType()), reader.GetNumberOfComponents()
    if count != 1:
        kind = kind.upper() if kind in ("rgb", "rgba") else f"{kind} (of {count} numbers)"
        raise RegInputError(f"{path} holds {kind} voxels, expected one real number each; convert it to grey values.")


def component_dtype(reader: object) -> np.dtype:
    """The data type of the voxels in the file, of DICOM after its rescale slope and intercept."""
    return np.dtype(COMPONENT_TYPES[reader.GetComponentTypeAsString(reader.GetComponentType())])


def lps_affine(reader: object, ndim: int) -> np.ndarray:
    """(4, 4), voxels to LPS mm; a 2-D image lies in the axial plane through the origin."""
    affine = np.eye(4)
    for axis in range(ndim):
        affine[:ndim, axis] = np.array(reader.GetDirection(axis))[:ndim] * reader.GetSpacing(axis)
        affine[axis, 3] = reader.GetOrigin(axis)
    return affine


def read_by_itk(name: str, path: Path | list[Path], dtype: np.dtype, ndim: int) -> np.ndarray:
    """The voxels (X, Y, ...) of a file or of a stack of files, read by the ITK class ``name``.

    Types that ITK's Python package does not have go through double, which is exact up to 2**53.
    """
    series = isinstance(path, list)
    suffix = f"I{PIXEL_TYPES.get(dtype.name, 'D')}{ndim}"
    reader = itk_class(name, suffix).New()
    reader.SetImageIO(itk_class("GDCMImageIO" if series else IO_CLASSES[path.suffix.lower()], "").New())
    if series:
        reader.SetFileNames([str(file) for file in path])
    else:
        reader.SetFileName(str(path))
    with kept_locale():
        reader.Update()
    view = itk_class("PyBuffer", suffix).GetArrayViewFromImage(reader.GetOutput())
    return np.array(view, dtype=dtype).T  # a copy, since the view dies with the reader; ITK's order is z, y, x


def nifti_of(voxels: ItkVoxels, lps: np.ndarray, path: Path, stated: bool = True) -> nib.Nifti1Image:
    """The image in RAS mm with both its codes at 1, or at 0 where the file states no position."""
    affine = np.diag([-1.0, -1, 1, 1]) @ lps
    image = nib.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.set_sform(affine, code=int(stated))
    image.set_qform(affine, code=int(stated), strip_shears=True)
    image.file_map["image"].filename = str(path)
    return image


def reason(error: BaseException) -> str:
    """The line of an error that says something: of ITK's, which are RuntimeErrors, the last."""
    if not isinstance(error, RuntimeError):
        return first_line(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip() not in ("", "Reason: Success")]
    return lines[-1] if lines else type(error).__name__
