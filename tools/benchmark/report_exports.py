"""The table of exported networks in docs/sharing.md, from the csv of ``regbundles benchmark export``."""

import csv
from pathlib import Path

from common.errors import RegInputError

__all__ = ["report_exports"]

COLUMNS = {
    "network": lambda row: f"`{row['bundle']}`",
    "format": lambda row: row["format"],
    "MB": lambda row: row["megabytes"],
    "takes": lambda row: "any size" if row["sizes"] == "any" else "this size only",
    "pair": lambda row: row["size"],
    "export, s": lambda row: row["export_s"],
    "torch, s": lambda row: row["torch_s"],
    "exported, s": lambda row: row["exported_s"],
    "largest difference, voxels": lambda row: row["largest_difference_voxels"],
}


def report_exports(path: Path) -> str:
    """The table as Markdown, a row for each network and format.

    Args:
        path: csv of ``regbundles benchmark export``.

    Raises:
        RegInputError: if it is missing.
    """
    if not path.is_file():
        raise RegInputError(f"{path} is missing, expected what `regbundles benchmark export` writes; run that first.")
    with path.open(newline="") as file:
        cells = [[cell(row) for cell in COLUMNS.values()] for row in csv.DictReader(file)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (COLUMNS, ["---"] * len(COLUMNS), *cells))
