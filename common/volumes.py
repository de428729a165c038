"""Scans of every format as nibabel images: NIfTI, MGH and the like, MetaImage, NRRD, a folder of one DICOM series.

Whatever the format, the affine is RAS mm as the file has it (oblique, left-handed and flipped grids stay so), the data
type is the file's own, and voxels stay on disk until they are asked for.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ImageReader
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from .dicom import is_series, open_series
from .errors import RegInputError
from .itk_images import open_by_itk, reason
from .nifti_files import save_nifti
from .text_header import read_text_header, states_position

__all__ = ["VolumeReader", "is_text_headed", "open_volume", "read_voxels", "save_as", "spatial_size"]

TEXT_HEADED = (".mha", ".mhd", ".nrrd", ".nhdr")
UNREADABLE = (ImageFileError, HeaderDataError, OverflowError, OSError, EOFError, zlib.error, ValueError, KeyError)


def open_volume(path: Path | str) -> SpatialImage:
    """Open a scan; its voxels stay on disk until :func:`read_voxels` or ``image.get_fdata()`` asks for them.

    Args:
        path: a file that nibabel reads, a MetaImage (.mha, .mhd), an NRRD (.nrrd, .nhdr), a folder with one DICOM
            series, or ``folder#SeriesInstanceUID`` where it holds several.

    Returns:
        nibabel's image for the files it reads; for the others a ``Nifti1Image`` with the affine in RAS mm, sform and
        qform code 1 (0 if the file states no position), in the data type of the file, of DICOM after its rescale
        slope and intercept. An image of two axes has a (4, 4) affine too.

    Raises:
        RegInputError: if it is no such image, if voxels are colors or vectors, or a folder holds no series, several,
            or slices that make up no evenly spaced volume.
    """
    path = Path(path)
    try:
        if is_series(path):
            return open_series(path)
        if is_text_headed(path):
            return open_by_itk(path, states_position(read_text_header(path)[0]))
        with without_nibabels_remarks():
            image = nib.load(path)
            tuple(image.shape)  # a damaged header shows here
    except RegInputError:
        raise
    except (*UNREADABLE, RuntimeError) as error:  # RuntimeError is ITK's
        raise RegInputError(
            f"{path} is no image that can be read ({reason(error)}), expected NIfTI, MGH, MetaImage, NRRD or a "
            f"folder of one DICOM series; convert it."
        ) from error
    return image


@contextmanager
def without_nibabels_remarks() -> Iterator[None]:
    """Say nothing of what nibabel mends in a header: ``common.preflight`` does, with the file's name."""
    logger = nib.imageglobals.logger
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def read_voxels(image: SpatialImage) -> np.ndarray:
    """The scaled voxels of what :func:`open_volume` opened, without trailing axes of length one.

    Raises:
        RegInputError: if the file is cut short or damaged.
    """
    try:
        voxels = np.asarray(image.dataobj)
    except (*UNREADABLE, RuntimeError, MemoryError) as error:
        raise RegInputError(
            f"{image.get_filename()} cannot be read ({reason(error)}), expected voxels; fetch it again."
        ) from error
    return voxels.reshape(spatial_size(voxels.shape))


def is_text_headed(path: Path) -> bool:
    """Whether a file's name says MetaImage or NRRD."""
    return path.suffix.lower() in TEXT_HEADED


def spatial_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing axes of length one; two axes stay at least."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return tuple(int(n) for n in shape)


class VolumeReader(ImageReader):
    """Reads what :func:`open_volume` opens, as the ``reader`` of MONAI's ``LoadImage`` and ``LoadImaged``.

    The array is (X, Y) or (X, Y, Z) without trailing axes of length one, its affine (4, 4) and RAS mm.
    """

    def verify_suffix(self, filename: Sequence[Path | str] | Path | str) -> bool:
        """True: every name is tried."""
        return True

    def read(self, data: Sequence[Path | str] | Path | str, **kwargs: Any) -> SpatialImage:
        """Open one file or folder, which ``LoadImage`` passes as a tuple of one.

        Raises:
            RegInputError: as :func:`open_volume`, and if several files are given.
        """
        paths = (data,) if isinstance(data, str | Path) else tuple(data)
        if len(paths) != 1:
            raise RegInputError(f"an image is {len(paths)} files, expected one; name a file or a folder of DICOM.")
        return open_volume(paths[0])

    def get_data(self, img: SpatialImage) -> tuple[np.ndarray, dict]:
        """Voxels, and what MONAI has to know of them: affine, size and world."""
        voxels = read_voxels(img)
        affine = np.asarray(img.affine, dtype=np.float64)
        meta = {"affine": affine, "original_affine": affine.copy(), "spatial_shape": np.array(voxels.shape)}
        return voxels, meta | {"space": "RAS", "original_channel_dim": float("nan")}


def save_as(like: SpatialImage, values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write values as NIfTI in the data type of an image, with its scale where it stores scaled numbers.

    Whole numbers are rounded, and clipped to the range of the type.
    """
    dtype = like.get_data_dtype().newbyteorder("=")
    slope, inter = (float(getattr(like.dataobj, name, default)) for name, default in (("slope", 1), ("inter", 0)))
    stored = values if (slope, inter) == (1, 0) else (values - inter) / slope
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        stored = np.clip(np.rint(stored), limits.min, limits.max)
    image = nib.Nifti1Image(stored.astype(dtype), affine, dtype=dtype)
    if (slope, inter) != (1, 0):
        image.header.set_slope_inter(slope, inter)  # stated, so that nibabel stores the numbers as they are
    save_nifti(image, path)
