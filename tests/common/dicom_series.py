"""A DICOM series of CT slices, written slice by slice by SimpleITK."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from common.itk_images import kept_locale

__all__ = ["OBLIQUE", "SHAPE", "SPACING_MM", "even", "write_series"]

SHAPE = (5, 6, 7)  # slices, rows, columns
SPACING_MM = (0.7, 0.9, 2.5)  # along a row, along a column, between slices
OBLIQUE = Rotation.from_euler("xyz", (12, -20, 35), degrees=True).as_matrix()


def write_series(
    folder: Path,
    positions=None,
    uid="1.2.3.4",
    rescale=(2, -1000),
    direction=OBLIQUE,
    order=None,
    seed=0,
    stored=None,
    spacing_mm=SPACING_MM,
) -> np.ndarray:
    """A CT series with these slice positions (LPS mm); returns the Hounsfield units (slices, rows, columns).

    Args:
        folder: is made where it is not there.
        positions: of the first voxel of each slice, (K, 3); by default even ones.
        uid: of the series.
        rescale: slope and intercept, from stored numbers to Hounsfield units.
        direction: columns are the directions of a row, of a column and of the stack, LPS.
        order: names of the files, in the order of the positions.
        seed: of the stored numbers, where none are given.
        stored: int16 (slices, rows, columns).
        spacing_mm: along a row, along a column, between slices.
    """
    folder.mkdir(exist_ok=True)
    if positions is None:
        positions = even(SHAPE[0], direction)
    if stored is None:
        stored = np.random.default_rng(seed).integers(0, 1500, (len(positions), *SHAPE[1:])).astype(np.int16)
    slope, intercept = rescale
    values = stored * slope + intercept
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    names = order or range(len(positions))
    for k, (name, position) in enumerate(zip(names, positions, strict=True)):
        image = sitk.GetImageFromArray(values[k : k + 1].astype(np.int16 if float(slope).is_integer() else np.float64))
        image.SetSpacing(spacing_mm)
        tags = {
            "0008|0060": "CT",
            "0008|103e": "thorax",
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{k + 1}",
            "0020|0013": str(len(positions) - k),  # against the order of the positions
            "0020|0032": "\\".join(f"{p:.6f}" for p in position),
            "0020|0037": "\\".join(f"{d:.9f}" for d in direction[:, :2].T.ravel()),
            "0028|1052": str(intercept),
            "0028|1053": str(slope),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}_{name:03}.dcm"))
        with kept_locale():  # SimpleITK's GDCM changes it too
            writer.Execute(image)
    return values


def even(count, direction=OBLIQUE, gap=2.5):
    return np.array([10, -40, 70]) + gap * np.arange(count)[:, None] * direction[:, 2]
