"""What was tried against the collection, and what went right: the README's table from results/reliability.csv."""

import csv
from pathlib import Path

from common.errors import RegInputError

__all__ = ["report_reliability"]

COLUMNS = ("what", "tried", "right", "the libraries alone", "libraries")


def report_reliability(path: Path) -> str:
    """The table as Markdown: a row for each subject, right over tried, and the same for the libraries alone.

    Args:
        path: csv of ``make reliability``.

    Raises:
        RegInputError: if it is missing.
    """
    if not path.is_file():
        raise RegInputError(f"{path} is missing, expected what `make reliability` writes; run that first.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [[row["subject"], row["tried"], row["right"], alone(row), row["libraries"]] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (COLUMNS, ["---"] * len(COLUMNS), *cells))


def alone(row: dict[str, str]) -> str:
    """How many of how many the libraries got right; empty where they were not tried."""
    tried = int(row["libraries_tried"] or 0)
    return f"{row['libraries_right']} of {tried}" if tried else ""
