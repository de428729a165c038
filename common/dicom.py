"""A folder of one DICOM series as one volume, read by ITK (GDCM).

Slices are put in order by where they lie, not by file name or instance number, and the affine comes from their
positions. What makes up no evenly spaced stack of one orientation is refused: a volume made of it anyway would be
wrong by millimeters.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from .errors import RegInputError
from .itk_images import ItkVoxels, component_dtype, image_io, nifti_of, read_by_itk, reason, refuse_colors

__all__ = ["DICOM_MAGIC", "holds_dicom", "is_series", "open_series"]

DICOM_MAGIC = (128, b"DICM")  # at this byte of every DICOM file
SERIES_UID, DESCRIPTION, POSITION, ORIENTATION = "0020|000e", "0008|103e", "0020|0032", "0020|0037"
ROWS = b"\x28\x00\x10\x00"  # the tag that every image has, as it is stored
UNEVEN = 0.05  # of the distance between slices that one may lie off its place; scanners round to 0.001 to 0.01 mm
SLANT = 0.5  # pixels by which the whole stack may be slanted: half a pixel cannot be told from rounding
SAME_DIRECTION = 1e-3  # difference of two unit vectors; as large as 0.06 degrees


@dataclass(frozen=True)
class Slice:
    """One file of a series; positions and directions in LPS mm."""

    path: Path
    series: str
    description: str
    size: tuple[int, int]
    spacing: tuple[float, float, float]
    position: np.ndarray
    directions: np.ndarray  # (3, 2), of the two axes of the slice
    dtype: np.dtype

    @property
    def normal(self) -> np.ndarray:
        """Right-handed unit vector across the slice."""
        return np.cross(*self.directions.T)


def is_series(path: Path) -> bool:
    """Whether a path names a folder, or one series of a folder as ``folder#SeriesInstanceUID``."""
    return os.path.isdir(split_series(path)[0])  # which a name that is too long is not, instead of an error


def holds_dicom(path: Path) -> bool:
    """Whether a path, as :func:`is_series` takes it, is a folder with a DICOM file in it."""
    folder, _ = split_series(path)
    return os.path.isdir(folder) and any(file.is_file() and has_magic(file) for file in folder.iterdir())


def split_series(path: Path) -> tuple[Path, str | None]:
    """The folder, and the series that is named behind ``#``."""
    name, mark, uid = str(path).rpartition("#")
    return (Path(name), uid) if mark and not os.path.exists(path) else (path, None)


def open_series(path: Path) -> nib.Nifti1Image:
    """One series as a volume (X, Y, slices) whose voxels are read when they are asked for.

    Args:
        path: a folder with one series, other files beside it do not matter; or ``folder#SeriesInstanceUID``.

    Raises:
        RegInputError: if there is no series or there are several, if slices differ in size, orientation or distance,
            are missing, lie at one place, or are slanted as a tilted gantry leaves them.
    """
    folder, uid = split_series(path)
    stack = chosen_series(folder, uid)
    check_alike(stack, path)
    normal = stack[0].normal
    stack.sort(key=lambda part: float(part.position @ normal))
    affine = stack_affine(stack, path)
    dtype = np.result_type(*{part.dtype for part in stack})
    files = [part.path for part in stack]
    shape = (*stack[0].size, len(stack))
    return nifti_of(ItkVoxels(lambda: read_by_itk("ImageSeriesReader", files, dtype, 3), shape, dtype), affine, path)


def chosen_series(folder: Path, uid: str | None) -> list[Slice]:
    """The slices of the series that is asked for, or of the only one."""
    found = defaultdict(list)
    for part in slices_in(folder):
        found[part.series].append(part)
    if not found:
        raise RegInputError(
            f"{folder} is a folder without DICOM images, expected one series of them or an image file; check the path."
        )
    if uid is None and len(found) == 1:
        return next(iter(found.values()))
    if uid not in found:
        listed = ", ".join(f"{key} ({stack[0].description}{len(stack)} slices)" for key, stack in sorted(found.items()))
        wanted = f"the series {uid}" if uid else "one"
        raise RegInputError(
            f"{folder} holds {len(found)} DICOM series, {listed}; expected {wanted}; name one as "
            f"'{folder}#{min(found)}', or a folder that holds it alone."
        )
    return found[uid]


def slices_in(folder: Path) -> Iterable[Slice]:
    """Every DICOM image of a folder, not of the folders below it."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and has_magic(path):
            part = read_slice(path)
            if part is not None:
                yield part


def has_magic(path: Path) -> bool:
    """Whether a file says that it is DICOM."""
    offset, magic = DICOM_MAGIC
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(len(magic)) == magic


def read_slice(path: Path) -> Slice | None:
    """The header of one file; ``None`` if it holds no image, as DICOMDIR and structured reports do."""
    try:
        reader = image_io("GDCMImageIO", path)
    except RuntimeError as error:
        if ROWS not in path.read_bytes():
            return None
        raise RegInputError(
            f"{path} is no DICOM image that can be read ({reason(error)}), expected one of a series; fetch it again."
        ) from error
    refuse_colors(reader, path)
    tags = reader.GetMetaDataDictionary()
    if not tags.HasKey(POSITION) or not tags.HasKey(ORIENTATION) or reader.GetDimensions(2) != 1:
        raise RegInputError(
            f"{path} states no position of a single slice, expected a series of slices; convert multi-frame and "
            f"secondary images to NIfTI with dcm2niix."
        )
    text = tags[DESCRIPTION].strip() if tags.HasKey(DESCRIPTION) else ""
    return Slice(
        path=path,
        series=tags[SERIES_UID].strip("\0 ") if tags.HasKey(SERIES_UID) else "",
        description=f"{text}, " if text else "",
        size=(int(reader.GetDimensions(0)), int(reader.GetDimensions(1))),
        spacing=tuple(float(reader.GetSpacing(axis)) for axis in range(3)),
        position=np.array([reader.GetOrigin(axis) for axis in range(3)]),
        directions=np.array([reader.GetDirection(axis) for axis in range(2)]).T,
        dtype=component_dtype(reader),
    )


def check_alike(stack: list[Slice], path: Path) -> None:
    """Raise RegInputError unless all slices have one size, pixel spacing and orientation."""
    first = stack[0]
    for part in stack[1:]:
        if part.size != first.size or not np.allclose(part.spacing[:2], first.spacing[:2], rtol=1e-3):
            raise RegInputError(
                f"{path} holds slices of {first.size} pixels of {first.spacing[:2]} mm and of {part.size} of "
                f"{part.spacing[:2]} ({part.path.name}), expected one grid; name a folder with one volume alone."
            )
        if not np.allclose(part.directions, first.directions, atol=SAME_DIRECTION):
            raise RegInputError(
                f"{path} holds slices of several orientations ({first.path.name} and {part.path.name}), expected "
                f"parallel ones; leave out the scouts."
            )


def stack_affine(stack: list[Slice], path: Path) -> np.ndarray:
    """(4, 4), voxels to LPS mm, of slices in order; see :func:`open_series` for what is refused."""
    first = stack[0]
    affine = np.eye(4)
    affine[:3, :2] = first.directions * first.spacing[:2]
    affine[:3, 2] = first.normal * first.spacing[2]
    affine[:3, 3] = first.position
    if len(stack) > 1:
        positions = np.array([part.position for part in stack])
        check_distances(positions @ first.normal, path)
        step = (positions[-1] - positions[0]) / (len(stack) - 1)
        check_straight(positions, step, first, path)
        affine[:3, 2] = first.normal * float(step @ first.normal)
    return affine


def check_distances(heights: np.ndarray, path: Path) -> None:
    """Raise RegInputError unless slices at these heights, in mm, are evenly spaced."""
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if gaps.min() < UNEVEN * max(usual, 1e-6):
        raise RegInputError(
            f"{path} holds several slices at {heights[gaps.argmin()]:.2f} mm, expected one at each place; name a "
            f"folder with one time point, echo or contrast alone."
        )
    steps = gaps / usual
    off = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights))).max()
    if off <= UNEVEN * usual:
        return
    if np.abs(steps - np.round(steps)).max() <= UNEVEN:
        missing, where = int(np.round(steps).sum()) - len(gaps), int(steps.argmax())
        raise RegInputError(
            f"{path} lacks {missing} slices, the first between {heights[where]:.2f} and {heights[where + 1]:.2f} mm, "
            f"expected one every {usual:.2f} mm; fetch the whole series."
        )
    raise RegInputError(
        f"{path} has slices {gaps.min():.2f} to {gaps.max():.2f} mm apart, expected even distances; resample it, for "
        f"instance with dcm2niix."
    )


def check_straight(positions: np.ndarray, step: np.ndarray, first: Slice, path: Path) -> None:
    """Raise RegInputError if the stack is slanted: its slices are shifted against each other in their own plane."""
    across = positions - positions[0]
    sideways = np.linalg.norm(across - np.outer(across @ first.normal, first.normal), axis=1).max()
    if sideways > SLANT * min(first.spacing[:2]):
        angle = np.degrees(np.arccos(np.clip(abs(step @ first.normal) / np.linalg.norm(step), 0, 1)))
        raise RegInputError(
            f"{path} is slanted by {angle:.1f} degrees ({sideways:.1f} mm over the stack), as a tilted gantry leaves "
            f"it, expected slices straight above each other; resample it, for instance with dcm2niix."
        )
