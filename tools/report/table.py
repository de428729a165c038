"""`index.csv`: what the page shows, for spreadsheets and programs."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from .columns import columns_of
from .pair import Pair, printable

__all__ = ["START", "write_table"]

START = ("pair", "method", "fixed", "moving", "verdict", "reasons", "folder", "report")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_table(path: Path, pairs: Sequence[Pair], root: Path, beside: Path) -> None:
    """Write a row a pair, in the order given; a value that does not exist is an empty field.

    Args:
        path: of the csv file.
        pairs: the rows.
        root: the folder that the pairs' folders are relative to.
        beside: the folder that paths in the table shall be relative to.
    """
    columns = [column.key for column in columns_of([pair.numbers for pair in pairs])]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([text_cell(name) for name in (*START, *columns)])
        for pair in pairs:
            folder = None if pair.folder is None else os.path.join(root, pair.folder)
            report = folder and "report" in pair.files and os.path.join(folder, pair.files["report"])
            paths = [relative(place, beside) if place else "" for place in (folder, report)]
            texts = (pair.name, pair.method, pair.fixed, pair.moving, pair.verdict or "", "; ".join(pair.reasons))
            numbers = [pair.numbers.get(key, "") for key in columns]
            writer.writerow([*map(text_cell, (*texts, *paths)), *numbers])


def relative(place: str, beside: Path) -> str:
    """A path as text, relative where it can be: Windows has no path from one drive to another."""
    try:
        return printable(Path(os.path.relpath(place, beside)).as_posix())
    except ValueError:
        return printable(Path(place).absolute().as_posix())


def text_cell(text: str) -> str:
    """A text that a spreadsheet shows as it is: one that would begin a formula gets an apostrophe in front.

    Source: OWASP, "CSV Injection".
    """
    return f"'{text}" if text.startswith(FORMULA) else text
