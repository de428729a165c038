"""What of a command's output folder has to be the same whenever it was made, and what nobody should find there."""

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813

__all__ = ["hidden", "same_whenever"]

TIMES = {"seconds", "seconds_by_step"}


def same_whenever(folder: Path) -> dict[str, Any]:
    """Each file below a folder by its path: its hash; of tables and scores what is no time; of a page its end.

    ``metrics.json`` and ``metrics.csv`` say how long things took, and ``report.html`` repeats it. HDF5 notes the date:
    of ``transform.h5`` the numbers are compared, bit for bit, as SimpleITK reads them. All else, images, fields,
    labels, records, lists and pictures, is compared as bytes.
    """
    return {str(path.relative_to(folder)): timeless(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def timeless(path: Path) -> Any:
    """What one file holds besides times."""
    if path.name == "metrics.json":
        return without_times(json.loads(path.read_text()))
    if path.name == "metrics.csv":
        with path.open(newline="") as file:
            return [without_times(row) for row in csv.DictReader(file)]
    if path.suffix == ".html":
        return path.read_text().rstrip().endswith("</html>")
    content = numbers_in(path) if path.suffix == ".h5" else path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def numbers_in(path: Path) -> bytes:
    """The parameters and grids of an ITK composite's transforms."""
    composite = sitk.CompositeTransform(sitk.ReadTransform(str(path)))
    parts = [composite.GetNthTransform(number) for number in range(composite.GetNumberOfTransforms())]
    return repr([(part.GetName(), part.GetParameters(), part.GetFixedParameters()) for part in parts]).encode()


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of scores without seconds."""
    return {key: value for key, value in row.items() if key not in TIMES}


def hidden(folder: Path) -> list[str]:
    """Temporary files and folders below a folder: all of ours begin with a dot."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
