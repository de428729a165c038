"""Reading scans with suspicion: whatever is wrong with a file is said in one sentence before any work starts.

nibabel accepts a good deal that ruins a registration without a word: bytes lost or flipped inside a gzip stream (it
never reaches the checksum), four-dimensional and complex images, NaN voxels, affines that it made up itself.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from .dicom import DICOM_MAGIC, is_series
from .errors import RegInputError
from .nifti_header import header_breaches, header_doubts, lost_sizes, scale_doubts, stored_header
from .streams import stream_length
from .text_header import compressed_voxels
from .volumes import is_text_headed, open_volume, read_voxels, spatial_size

__all__ = ["Volume", "check_image", "check_label", "check_subject", "collect", "findings", "label_values", "refuse"]

logger = logging.getLogger(__name__)

HEAD = 256  # bytes that tell what kind of file it is
GZIP_MAGIC = b"\x1f\x8b"
MAX_VOXELS = 512**3  # a larger header is more often damaged than true
MIN_SIZE = 2  # voxels along an axis: one slice has no gradient
AFFINE_ATOL = 1e-3  # mm or its ratio: float32 headers round about 1e-5
LABEL_ATOL = 1e-3  # distance of a stored label from an integer
MIN_CONDITION = 1e-6  # smallest over largest singular value of an affine that still can be inverted in float32
DISPLACEMENT_INTENTS = ("displacement vector", "vector")


@dataclass(frozen=True)
class Volume:
    """A scan that has passed.

    Attributes:
        path: where it was read.
        voxels: (X, Y) or (X, Y, Z), float32 for images and int32 for labels.
        affine: (4, 4), voxels to RAS mm.
    """

    path: Path
    voxels: np.ndarray
    affine: np.ndarray


def check_image(
    path: Path | str, ndim: int | None = None, *, assume_affine: bool = False, max_voxels: int = MAX_VOXELS
) -> Volume:
    """Read a two- or three-dimensional image of any format of :mod:`common.volumes` to its last byte.

    Args:
        path: the file, or the folder of a DICOM series.
        ndim: number of axes it must have, trailing axes of length one not counted; ``None``: 2 or 3.
        assume_affine: accept a file that states no position at all, with the one its reader makes up.
        max_voxels: largest number of voxels that a header may claim.

    Raises:
        RegInputError: if the file is missing, damaged, of another dimension, RGB or complex, holds NaN or infinite
            voxels or one value only, or has no valid affine. It says what was found, expected and to do.
    """
    path = Path(path)
    image = open_image(path, ndim, assume_affine, max_voxels)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
        voxels = read_voxels(image).astype(np.float32)
    bad = ~np.isfinite(voxels)
    if bad.any():
        first = tuple(map(int, np.argwhere(bad)[0]))
        raise RegInputError(
            f"{path} has {bad.sum()} NaN or infinite voxels, the first at {first}, expected finite ones; replace "
            f"them, for instance by the background's value."
        )
    if voxels.min() == voxels.max():
        raise RegInputError(f"{path} is {voxels.flat[0]:g} everywhere, expected contrast; check how it was exported.")
    return Volume(path, voxels, image.affine)


def check_label(path: Path | str, image: Volume | None = None, *, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read a label map to its last byte and hold it against its image's grid.

    Args:
        path: the file.
        image: what :func:`check_image` returned for the image; ``None`` skips the comparison.
        max_voxels: largest number of voxels that a header may claim.

    Raises:
        RegInputError: as :func:`check_image`, and if a value is fractional, negative or beyond int32, if no voxel is
            labelled, or if the grid is not the image's.
    """
    path = Path(path)
    file = open_image(path, None if image is None else image.voxels.ndim, image is not None, max_voxels)
    voxels = read_voxels(file)
    rounded = label_values(path, voxels)
    if image is not None and (
        rounded.shape != image.voxels.shape or not np.allclose(file.affine, image.affine, atol=AFFINE_ATOL)
    ):
        raise RegInputError(
            f"{path} has the grid {grid_text(rounded, file.affine)}, expected that of {image.path}, "
            f"{grid_text(image.voxels, image.affine)}; resample the labels onto the image with nearest neighbour."
        )
    return Volume(path, rounded, file.affine)


def check_subject(image: Path | str, label: Path | str) -> tuple[Volume, Volume]:
    """Read an image and its labels, as :func:`check_image` and :func:`check_label` do."""
    volume = check_image(image)
    return volume, check_label(label, volume)


def collect(checks: Iterable[tuple]) -> None:
    """Run every check, so that a person hears of all findings at once.

    Args:
        checks: tuples of a function and its arguments, such as ``(check_image, "a.nii.gz")``.

    Raises:
        RegInputError: with a numbered sentence for each check that raised one, on one line.
    """
    refuse(findings(checks))


def findings(checks: Iterable[tuple]) -> list[str]:
    """The sentences of the checks that raised RegInputError; see :func:`collect`."""
    sentences = []
    for check, *arguments in checks:
        try:
            check(*arguments)
        except RegInputError as error:
            sentences.append(str(error))
    return sentences


def refuse(sentences: list[str]) -> None:
    """Raise one RegInputError that numbers ``sentences``; return if there are none."""
    if len(sentences) == 1:
        raise RegInputError(sentences[0])
    if sentences:
        numbered = " ".join(f"({k}) {sentence}" for k, sentence in enumerate(sentences, 1))
        raise RegInputError(f"{len(sentences)} findings, expected none; mend these and start again: {numbered}")


def open_image(path: Path, ndim: int | None, assume_affine: bool, max_voxels: int) -> SpatialImage:
    """The image with a believable header, its bytes complete; voxels still on disk."""
    check_file(path)
    image = open_volume(path)
    check_shape(path, image, ndim, max_voxels)
    check_type(path, image)
    check_affine(path, image, assume_affine)
    check_header(path, image)
    check_bytes(path, image)
    return image


def check_file(path: Path) -> None:
    """Refuse what is no file, an empty one, a web page, and a name that contradicts the content."""
    if is_series(path):
        return
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise RegInputError(
            f"{path} cannot be opened ({error.strerror}), expected an image file; check the path."
        ) from error
    if not head:
        raise RegInputError(f"{path} is empty, expected an image; fetch it again.")
    if head[DICOM_MAGIC[0] :].startswith(DICOM_MAGIC[1]):
        raise RegInputError(f"{path} is one file of DICOM, expected a series; name the folder that holds it alone.")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise RegInputError(f"{path} is a web page, expected an image; was the download behind a login?")
    if is_gzip_name(path) != head.startswith(GZIP_MAGIC):
        kind = "not compressed" if is_gzip_name(path) else "gzip-compressed"
        raise RegInputError(f"{path} is {kind}, its name says otherwise; rename it to match its content.")


def is_gzip_name(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() in (".gz", ".mgz")


def check_shape(path: Path, image: SpatialImage, ndim: int | None, max_voxels: int) -> None:
    """As many axes as asked for, each of two voxels and more."""
    shape = tuple(int(n) for n in image.shape)
    if len(shape) == 5 and image.header.get_intent()[0] in DISPLACEMENT_INTENTS:
        raise RegInputError(f"{path} is a displacement field {shape}, expected an image; name the image it belongs to.")
    size = spatial_size(shape)
    axes = (2, 3) if ndim is None else (ndim,)
    if len(size) not in axes:
        raise RegInputError(
            f"{path} has shape {shape}, expected {' or '.join(map(str, axes))} axes; choose one volume."
        )
    if min(size) < MIN_SIZE:
        raise RegInputError(f"{path} has shape {shape}, expected {MIN_SIZE} voxels an axis at least; choose another.")
    if np.prod(size, dtype=float) > max_voxels:
        raise RegInputError(f"{path} claims {shape} voxels, expected at most {max_voxels}; crop it or raise the limit.")


def check_type(path: Path, image: SpatialImage) -> None:
    """Real numbers, one a voxel."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iufb":
        kind = "RGB" if dtype.kind == "V" else str(dtype)
        raise RegInputError(f"{path} holds {kind} voxels, expected one real number each; convert it to grey values.")


def check_affine(path: Path, image: SpatialImage, assume_affine: bool) -> None:
    """An affine that the file states, finite and invertible."""
    header = image.header
    stated = not isinstance(header, nib.Nifti1Header) or header["sform_code"] or header["qform_code"]
    if not stated and not assume_affine:
        raise RegInputError(
            f"{path} states no position (neither sform nor qform code, or no origin), expected a valid affine; set the "
            f"true one: left and right cannot be told apart without it."
        )
    finite = np.isfinite(image.affine).all()
    singular = np.linalg.svd(image.affine[:3, :3], compute_uv=False) if finite else np.zeros(3)
    if singular[-1] <= MIN_CONDITION * singular[0]:
        raise RegInputError(
            f"{path} has the affine {image.affine.tolist()}, expected an invertible one; mend its header."
        )


def check_header(path: Path, image: SpatialImage) -> None:
    """A NIfTI header that does not contradict itself; what it leaves in doubt is said once."""
    if not is_nifti(path, image):
        return
    stored = stored_header(image)
    breaches = header_breaches(stored)
    if breaches:
        raise RegInputError(f"{path} is damaged: {'; '.join(breaches)}, expected as many; fetch it again.")
    if lost_sizes(stored):
        raise RegInputError(
            f"{path} states voxels of {lost_sizes(stored)} mm and no sform, expected sizes above 0; set the true ones."
        )
    for doubt in (*header_doubts(image.header), *scale_doubts(stored)):  # nibabel forgets the scale once it applies it
        say_once(f"{path} states {doubt}.")


def is_nifti(path: Path, image: SpatialImage) -> bool:
    """Whether the header is the file's own: images of the formats that ITK reads get one as well."""
    return isinstance(image.header, nib.Nifti1Header) and not is_text_headed(path) and not is_series(path)


@cache
def say_once(warning: str) -> None:
    """Log a warning, unless this process has said it: a file is opened several times."""
    logger.warning(warning)


def check_bytes(path: Path, image: SpatialImage) -> None:
    """As many bytes as the header claims, of NIfTI no more; of a compressed stream, down to its checksum.

    What is not compressed is counted by ITK where it reads the file.
    """
    if is_series(path):
        return
    expected = int(np.prod(image.shape, dtype=np.int64) * image.get_data_dtype().itemsize)
    if is_text_headed(path):
        stream = compressed_voxels(path)
        if stream is None:
            return
        found = stream_length(stream.path, expected, stream.offset)
    else:
        expected += int(image.dataobj.offset)
        found = stream_length(path, expected) if is_gzip_name(path) else data_file(image, path).stat().st_size
    if found < expected:
        raise RegInputError(
            f"{path} holds {found} bytes, its header claims {expected}; it is cut short, fetch it again."
        )
    if found > expected and is_nifti(path, image):
        raise RegInputError(
            f"{path} holds {found} bytes, its header claims {expected}; its size or data type is wrong, fetch it again."
        )


def data_file(image: SpatialImage, path: Path) -> Path:
    """Where the voxels are: the ``.img`` of a pair, else the file itself."""
    return Path(image.file_map["image"].filename or path)


def label_values(path: Path, voxels: np.ndarray) -> np.ndarray:
    """Labels of any number type as int32; RegInputError, naming ``path``, for what :func:`check_label` refuses."""
    if voxels.dtype.kind == "f":
        if not np.isfinite(voxels).all() or np.abs(voxels - np.round(voxels)).max() > LABEL_ATOL:
            raise RegInputError(f"{path} has fractional labels, expected integers; resample with nearest neighbour.")
        voxels = np.round(voxels)
    low, high = float(voxels.min()), float(voxels.max())
    if low < 0 or high > np.iinfo(np.int32).max:
        raise RegInputError(f"{path} has labels from {low:g} to {high:g}, expected 0 to 2147483647; renumber them.")
    if high == 0:
        raise RegInputError(f"{path} has no labelled voxel, expected one at least; check that it belongs to its image.")
    return voxels.astype(np.int32)


def grid_text(voxels: np.ndarray, affine: np.ndarray) -> str:
    """Size and affine, for a message."""
    return f"{voxels.shape} with affine {np.round(affine[:3], 4).tolist()}"
