"""What files of landmarks look like: the text of a file to rows, names and the space it states, and back.

    .csv       columns x, y and, in 3-D, z; ``label`` or ``name``, where there is one, and any others. The space stands
               in a comment, ``# space: LPS mm``, or in the columns: x_lps, y_lps, z_lps, or l, p, s, as Slicer exports.
               Without a header the columns are the coordinates. ANTs has x, y, z, t, label and no space.
    .fcsv      3D Slicer's older lists: a table whose header stands in comments, ``# CoordinateSystem = LPS``
    .mrk.json  3D Slicer's markups, one list a file
    .vtk       legacy VTK in ASCII: its POINTS; where Slicer wrote it, the title has ``SPACE=LPS``

Coordinates stay as they are written; ``common.points`` checks and turns them.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import RegInputError

__all__ = [
    "PointTable",
    "csv_text",
    "fcsv_text",
    "markups_text",
    "parse_csv",
    "parse_fcsv",
    "parse_markups",
    "parse_vtk",
]

AXES = ("x", "y", "z")
UNITS = "mm|cm|m|um|voxels?|pixels?"
STATEMENT = re.compile(rf"#.*?\b(?:space|coordinate ?system)\s*[:=]\s*(\w+)(?:[\s,;(]+({UNITS})\b)?", re.IGNORECASE)
COLUMN = re.compile(r"([xyz])(?:_(lps|ras))?(?:_?(?:\(mm\)|mm))?")
ANATOMICAL = {("l", "p", "s"): "lps", ("r", "a", "s"): "ras"}
SLICER_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
SLICER_NUMBERS = {"0": "RAS", "1": "LPS"}  # what Slicer wrote before it wrote names
SLICER_SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.0.json#"
)


@dataclass(frozen=True)
class PointTable:
    """What a file says.

    Attributes:
        rows: coordinates of each point, texts or numbers, not checked.
        names: one a point, "" where there is none.
        space: that the file states, in its own words, or ``None``.
    """

    rows: list[Sequence]
    names: list[str]
    space: str | None


def parse_csv(path: Path, text: str) -> PointTable:
    """A table with or without a header.

    Raises:
        RegInputError: if it has no columns of coordinates, ragged rows, two spaces, or another unit than mm.
    """
    comments, rows = comments_and_rows(path, text)
    spaces = stated_spaces(path, comments)
    if rows and not all(map(is_number, rows[0])):
        header = [name.strip().lower() for name in rows.pop(0)]
        header, named = plain_columns(header)
        spaces += named
    else:
        header = list(AXES[: len(rows[0])]) if rows and len(rows[0]) < 4 else []
    if len(set(spaces)) > 1:
        raise RegInputError(f"{path} states {' and '.join(spaces)}, expected one space; correct it.")
    return columns_of(path, header, rows, spaces[0] if spaces else None)


def parse_fcsv(path: Path, text: str) -> PointTable:
    """A list of 3D Slicer before 5.

    Raises:
        RegInputError: as :func:`parse_csv`.
    """
    comments, rows = comments_and_rows(path, text)
    spaces = stated_spaces(path, comments)
    columns = [match[1] for match in (re.match(r"#\s*columns\s*=\s*(.+)", line) for line in comments) if match]
    header = [name.strip().lower() for name in (columns or [SLICER_COLUMNS])[0].split(",")]
    return columns_of(path, header, rows, SLICER_NUMBERS.get(spaces[0], spaces[0]) if spaces else None)


def parse_markups(path: Path, text: str) -> PointTable:
    """A markups file of 3D Slicer.

    Raises:
        RegInputError: if it is no such file, or holds more than one list, points without a position, or not mm.
    """
    try:
        lists = json.loads(text)["markups"]
        if len(lists) != 1:
            raise RegInputError(f"{path} holds {len(lists)} lists of points, expected one; save them one by one.")
        unit = lists[0].get("coordinateUnits", "mm")
        points = lists[0]["controlPoints"]
        unplaced = [k for k, point in enumerate(points, 1) if point.get("positionStatus", "defined") != "defined"]
        rows = [list(point["position"]) for point in points if not unplaced]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RegInputError):
            raise
        raise RegInputError(
            f"{path} is no markups file of 3D Slicer ({type(error).__name__}: {error}), expected one; save it again."
        ) from error
    if unplaced:
        raise RegInputError(f"point {unplaced[0]} of {path} was never placed, expected all placed; delete it.")
    if unit != "mm":
        raise RegInputError(f"{path} is in {unit}, expected mm; save it in mm.")
    space = lists[0].get("coordinateSystem")
    names = [str(point.get("label", "")) for point in points]
    return PointTable(rows, names, None if space is None else SLICER_NUMBERS.get(str(space), str(space)))


def parse_vtk(path: Path, text: str) -> PointTable:
    """The points of a legacy VTK file.

    Raises:
        RegInputError: if it is no such file, not ASCII, or has fewer numbers than it claims.
    """
    lines = text.split("\n")
    if not lines[0].startswith("# vtk DataFile") or len(lines) < 4 or lines[2].strip().upper() != "ASCII":
        raise RegInputError(f"{path} is no legacy VTK file in ASCII, expected one; save it as such.")
    found = re.search(r"^POINTS\s+(\d+)\s+\w+\s(.*)", text, re.MULTILINE | re.DOTALL)
    count = int(found[1]) if found else 0
    values = found[2].split(maxsplit=3 * count)[: 3 * count] if found else []
    if found and len(values) < 3 * count:
        raise RegInputError(f"{path} has {len(values)} coordinates, its header claims {3 * count}; fetch it again.")
    title = re.search(r"SPACE=(\w+)", lines[1])
    rows = [values[k : k + 3] for k in range(0, 3 * count, 3)]
    return PointTable(rows, [""] * count, title[1] if title else None)


def csv_text(rows: list[list[float]], names: Sequence[str], space: str) -> str:
    """A table whose first line states the space."""
    ndim = len(rows[0])
    table = [[*AXES[:ndim], *(["label"] if names else [])]]
    table += [[*row, *names[k : k + 1]] for k, row in enumerate(rows)]
    return f"# space: {space} mm\n{table_text(table)}"


def fcsv_text(rows: list[list[float]], names: Sequence[str], space: str) -> str:
    """A list for 3D Slicer."""
    table = [
        [k, *row, *[0.0] * (3 - len(row)), 0, 0, 0, 1, 1, 1, 0, *(names[k : k + 1] or [""]), "", ""]
        for k, row in enumerate(rows)
    ]
    head = f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {space}\n# columns = {SLICER_COLUMNS}\n"
    return head + table_text(table)


def markups_text(rows: list[list[float]], names: Sequence[str], space: str) -> str:
    """A markups file for 3D Slicer."""
    points = [
        {"id": str(k), "label": (names[k] if names else ""), "position": [*row, *[0.0] * (3 - len(row))]}
        for k, row in enumerate(rows)
    ]
    markups = {"type": "Fiducial", "coordinateSystem": space, "coordinateUnits": "mm", "controlPoints": points}
    return json.dumps({"@schema": SLICER_SCHEMA, "markups": [markups]}, indent=1, ensure_ascii=False) + "\n"


def table_text(rows: list[list]) -> str:
    """Rows with commas, quoted where needed; numbers with all of their digits."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def comments_and_rows(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    """Lines that begin with #, and the cells of the others."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    comments, table = ([line for line in lines if line.startswith("#") == wanted] for wanted in (True, False))
    try:
        rows = list(csv.reader(table, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise RegInputError(f"{path} is no table ({error}), expected cells between commas; export it again.") from error
    return comments, rows


def stated_spaces(path: Path, comments: list[str]) -> list[str]:
    """The spaces that comments name, in capitals."""
    statements = [match for match in map(STATEMENT.match, comments) if match]
    for match in statements:
        if match[2] and match[2].lower() != "mm":
            raise RegInputError(f"{path} says '{match[0]}', expected mm; convert the points.")
    return [match[1].upper() for match in statements]


def plain_columns(header: list[str]) -> tuple[list[str], list[str]]:
    """The columns with x, y and z by these names, and the spaces that their names state."""
    for letters, space in ANATOMICAL.items():
        if set(letters) <= set(header):
            header = [f"{AXES[letters.index(name)]}_{space}" if name in letters else name for name in header]
            break
    matches = [COLUMN.fullmatch(name) for name in header]
    spaces = [match[2].upper() for match in matches if match and match[2]]
    return [match[1] if match else name for name, match in zip(header, matches, strict=True)], spaces


def columns_of(path: Path, header: list[str], rows: list[list[str]], space: str | None) -> PointTable:
    """Coordinates and names of the rows of a table."""
    if not rows:
        return PointTable([], [], space)
    if not {"x", "y"} <= set(header) or any(header.count(axis) > 1 for axis in AXES):
        raise RegInputError(
            f"{path} has the columns {','.join(header or rows[0])}, expected x,y,z, each once; name them in its first "
            "line."
        )
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise RegInputError(
                f"point {number} of {path} has {len(row)} cells, its header {len(header)}, expected as many; mend that "
                "row."
            )
    axes = [header.index(axis) for axis in AXES if axis in header]
    name = next((header.index(key) for key in ("label", "name") if key in header), None)
    names = ["" if name is None else row[name].strip() for row in rows]
    return PointTable([[row[k] for k in axes] for row in rows], names, space)


def is_number(text: str) -> bool:
    """Whether a cell is a number, NaN and infinity too."""
    try:
        float(text)
    except ValueError:
        return False
    return True
