"""Tables of csv that tell of many pairs."""

import csv
from collections.abc import Sequence
from pathlib import Path

from common.errors import first_line

from .pair import Gathered, LeftOut, printable

__all__ = ["read_rows"]


def read_rows(path: Path, place: str, needed: Sequence[str], found: Gathered) -> list[dict[str, str | None]]:
    """The rows of a table, or none and why; one that vanished meanwhile has none, without a word.

    Args:
        path: of the table.
        place: its folder, relative, with slashes.
        needed: columns without which it is not ours.
        found: to whose ``left_out`` a table is added that cannot be read.
    """
    where = printable(path.name if place == "." else f"{place}/{path.name}")
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (OSError, csv.Error) as error:
        found.left_out.append(LeftOut(where, f"could not be read: {first_line(error)}"))
        return []
    if not rows or any(not isinstance(rows[0].get(key), str) for key in needed):
        found.left_out.append(LeftOut(where, "says nothing of registrations"))
        return []
    return rows
