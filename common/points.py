"""Landmarks: points in mm, read from tables, 3D Slicer and VTK. Inside they are RAS; a file says which space it is in.

Read in the wrong space a point is mirrored twice, often lies inside of the body still, and nobody notices. So where
neither the file nor the caller names the space, nothing is read. What the formats look like is in point_formats.py.
Tables of voxel indices, such as Learn2Reg's keypoints, are not landmarks in mm; ``common.data`` reads those.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import RegInputError
from .files import save_atomically
from .geometry import ras_to_lps
from .point_formats import csv_text, fcsv_text, markups_text, parse_csv, parse_fcsv, parse_markups, parse_vtk

__all__ = ["Points", "read_points", "write_points"]

SPACES = ("LPS", "RAS")
READERS = {".csv": parse_csv, ".fcsv": parse_fcsv, ".mrk.json": parse_markups, ".vtk": parse_vtk}
WRITERS = {".csv": csv_text, ".fcsv": fcsv_text, ".mrk.json": markups_text}


@dataclass(frozen=True)
class Points:
    """Landmarks.

    Attributes:
        mm: (K, N) float64, RAS mm.
        names: one a point, as the file has them, or none.
    """

    mm: np.ndarray
    names: tuple[str, ...] = ()


def read_points(path: Path | str, space: str | None = None, ndim: int | None = None) -> Points:
    """Read landmarks from a .csv, .fcsv, .mrk.json or .vtk file.

    Args:
        path: the file.
        space: "LPS" or "RAS", for a file that does not say; one that does has to say the same. ANTs' tables do not
            say; theirs is LPS.
        ndim: number of coordinates that a point must have; ``None``: 2 or 3. With 2, a third one that is 0 everywhere
            is dropped: Slicer, VTK and ANTs write it.

    Raises:
        RegInputError: if the file cannot be read or has no points, a row is ragged or holds no finite numbers, or the
            space is not said, or twice and differently.
    """
    path = Path(path)
    table = of_suffix(path, READERS)(path, text_of(path))
    if not table.rows:
        raise RegInputError(f"{path} holds no point, expected one at least; choose another file.")
    mm = coordinates(path, table.rows, ndim)
    if agreed_space(path, table.space, space) == "LPS":
        mm = ras_to_lps(mm)
    return Points(mm, tuple(table.names) if any(table.names) else ())


def write_points(path: Path | str, points: Points, space: str = "LPS") -> None:
    """Write landmarks as .csv, .fcsv or .mrk.json; the file states its space, and every digit is kept.

    Args:
        path: the file. Slicer's points, in the last two formats, have three coordinates: z is 0 for points of two.
        points: what to write.
        space: "LPS" or "RAS".

    Raises:
        RegInputError: for another suffix or space, points that are not finite (K, 2) or (K, 3), or names that are not
            one a point.
        RegEnvError: if it cannot be written.
    """
    path = Path(path)
    text_for = of_suffix(path, WRITERS)
    mm = np.asarray(points.mm, dtype=np.float64)
    if mm.ndim != 2 or mm.shape[1] not in (2, 3) or not len(mm) or not np.isfinite(mm).all():
        raise RegInputError(f"the points have shape {mm.shape}, expected finite (K, 2) or (K, 3); correct them.")
    if points.names and len(points.names) != len(mm):
        raise RegInputError(f"{len(points.names)} names came with {len(mm)} points, expected one each or none.")
    space = checked_space(space)
    rows = (ras_to_lps(mm) if space == "LPS" else mm) + 0.0  # -0.0 becomes 0.0
    names = [" ".join(name.splitlines()) for name in points.names]
    text = text_for(rows.tolist(), names, space)
    save_atomically(lambda file: file.write_text(text, encoding="utf-8", newline="\n"), path)


def of_suffix(path: Path, table: Mapping[str, Callable]) -> Callable:
    """What a table has for the suffix of a file."""
    for suffix, value in table.items():
        if path.name.lower().endswith(suffix):
            return value
    raise RegInputError(f"{path.name} is no file of points, expected one of {', '.join(table)}; convert it.")


def text_of(path: Path) -> str:
    """The file as text, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RegInputError(f"{path} cannot be opened ({error.strerror}), expected landmarks; check it.") from error
    except UnicodeDecodeError as error:
        raise RegInputError(f"{path} is no text (byte {error.start}), expected landmarks; export it anew.") from error


def coordinates(path: Path, rows: Sequence[Sequence], ndim: int | None) -> np.ndarray:
    """(K, N) float64 of rows of one length, all finite."""
    for number, row in enumerate(rows, 1):
        if len(row) not in (2, 3) or len(row) != len(rows[0]):
            raise RegInputError(
                f"point {number} of {path} has {len(row)} coordinates, the first {len(rows[0])}, expected 2 or 3 each; "
                "mend that row."
            )
        bad = [value for value in row if not is_finite(value)]
        if bad:
            raise RegInputError(f"point {number} of {path} has {bad[0]!r}, expected finite numbers; mend that row.")
    mm = np.array(rows, dtype=np.float64)
    if ndim == 2 and mm.shape[1] == 3 and not mm[:, 2].any():
        return mm[:, :2]
    if ndim is not None and mm.shape[1] != ndim:
        raise RegInputError(f"{path} has points of {mm.shape[1]} coordinates, expected {ndim}; choose another file.")
    return mm


def is_finite(value: object) -> bool:
    """Whether a text or a number is a finite number."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def checked_space(space: str) -> str:
    """The space in capitals."""
    if space.upper() not in SPACES:
        raise RegInputError(f"the space of the points is '{space}', expected LPS or RAS; name one of them.")
    return space.upper()


def agreed_space(path: Path, stated: str | None, asked: str | None) -> str:
    """The one space that the file and the caller name."""
    spaces = list(dict.fromkeys(checked_space(space) for space in (stated, asked) if space is not None))
    if not spaces:
        raise RegInputError(
            f"{path} does not say whether its points are in LPS or RAS mm, expected to know; name the space, or write "
            "'# space: LPS mm' above a table."
        )
    if len(spaces) > 1:
        raise RegInputError(f"{path} states {spaces[0]}, but {spaces[1]} was named, expected the same; correct one.")
    return spaces[0]
