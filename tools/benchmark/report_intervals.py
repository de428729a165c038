"""Coverage of error maps as a table: the held-out pairs of ``regbundles benchmark intervals``, by method and region."""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from common.errors import RegInputError

from ..evaluation_tables import aligned

__all__ = ["report_intervals"]

HALF = "held-out"
HEADER = ("method", "region", "pairs", "mean %", "median %", "lowest %", "highest %", "spread alone %", "error mm")
HEADER = (*HEADER, "length mm", "spread alone mm")
MEANS = ("spread_alone_percent", "mean_error_mm", "mean_half_width_mm", "mean_spread_alone_mm")


def report_intervals(scores: Path, starts: int = 4) -> str:
    """The table as text; every pair counts once, however many voxels of a region it has.

    Args:
        scores: csv of ``regbundles benchmark intervals``.
        starts: from how many of them the spread was taken.

    Raises:
        RegInputError: if the csv is missing or has no such rows.
    """
    if not scores.is_file():
        raise RegInputError(f"{scores} is missing, expected a table; make it with `regbundles benchmark intervals`.")
    with scores.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["half"], row["starts"]) == (HALF, str(starts))]
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        if row["coverage_percent"]:  # a pair may have no voxel of a region
            groups.setdefault((row["method"], row["region"]), []).append(row)
    if not groups:
        raise RegInputError(f"{scores} has no {HALF} rows of {starts} starts, expected some; choose another number.")
    lines = [list(HEADER), *(line_of(*key, group) for key, group in groups.items())]
    return "\n".join(
        [f"Share of known errors within the 95 % length, {starts} starts, pairs held out", "", *aligned(lines)]
    )


def line_of(method: str, region: str, rows: Sequence[dict[str, str]]) -> list[str]:
    """One line of the table."""
    shares = [float(row["coverage_percent"]) for row in rows]
    percent = (statistics.mean(shares), statistics.median(shares), min(shares), max(shares))
    alone, *lengths = (statistics.mean(float(row[key]) for row in rows) for key in MEANS)
    texts = [*(f"{value:.1f}" for value in (*percent, alone)), *(f"{value:.2f}" for value in lengths)]
    return [method, region, str(len(rows)), *texts]
