"""Tables from what ``regbundles benchmark accuracy`` wrote: every method, and the methods at equal smoothness."""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.errors import RegInputError

from .report_speed import digits

__all__ = ["BOUNDS", "report_accuracy"]

BOUNDS = (0.10, 0.15, 0.20, 0.30)  # of SDlogJ
Row = Mapping[str, str]
COLUMNS = (
    *("method", "setting", "parameters", "training steps", "training, min", "its memory, MiB", "Dice", "SDlogJ"),
    *("NDV, %", "registration, s", "its memory, MiB"),
)


def report_accuracy(path: Path) -> str:
    """Two tables in Markdown: every method and setting, means over the pairs; the best Dice under bounds of SDlogJ.

    Args:
        path: csv of ``regbundles benchmark accuracy``.

    Raises:
        RegInputError: if the file is missing, empty or has other columns.
    """
    groups = read_groups(path)
    try:
        lines = [line_of(*key, rows) for key, rows in groups.items()]
        bounded = [bounded_line(name, groups) for name in dict.fromkeys(name for name, _ in groups)]
        first = next(iter(groups.values()))[0]
        commits = sorted({row["commit"] for rows in groups.values() for row in rows})
        origin = (
            f"`{path.name}`: {first['device']}, {first['threads']} threads, torch {first['torch']}, commits "
            f"{', '.join(commits)}; means over the pairs (Dice: their standard deviation in brackets)."
        )
    except KeyError as missing:
        raise RegInputError(f"{path} has no column {missing}; run `regbundles benchmark accuracy` anew.") from None
    heads = ["method", *(f"SDlogJ to {bound:g}" for bound in BOUNDS)]
    return f"{origin}\n\n{table(COLUMNS, lines)}\n\n{table(heads, bounded)}"


def read_groups(path: Path) -> dict[tuple[str, str], list[Row]]:
    """Rows by method and setting, in the order of the file."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                groups[row.get("method", ""), row.get("setting", "")].append(row)
    if not groups:
        raise RegInputError(f"{path} has no rows, expected scores of methods; run `regbundles benchmark accuracy`.")
    return dict(groups)


def line_of(name: str, setting: str, rows: Sequence[Row]) -> list[str]:
    """One method's cells."""
    first, scores = rows[0], [float(row["dice"]) for row in rows]
    trained = int(first["steps"]) > 0
    memory = float(first["registration_memory_mib"])
    return [
        name,
        setting,
        f"{int(first['parameters']):,}" if trained else "",
        first["steps"] if trained else "",
        digits(float(first["training_s"]) / 60) if trained else "",
        f"{float(first['training_memory_mib']):.0f}" if trained else "",
        f"{np.mean(scores):.4f} ({np.std(scores):.4f})",
        f"{mean(rows, 'sdlogj'):.3f}",
        f"{mean(rows, 'ndv_percent'):.4f}",
        digits(mean(rows, "seconds")) if memory else "",
        f"{memory:.0f}" if memory else "",
    ]


def bounded_line(name: str, groups: Mapping[tuple[str, str], Sequence[Row]]) -> list[str]:
    """A method's best mean Dice among its settings whose mean SDlogJ is not above each bound."""
    points = [(mean(rows, "sdlogj"), mean(rows, "dice")) for (method, _), rows in groups.items() if method == name]
    best = [max((dice for sdlogj, dice in points if sdlogj <= bound), default=None) for bound in BOUNDS]
    return [name, *("" if dice is None else f"{dice:.4f}" for dice in best)]


def mean(rows: Sequence[Row], column: str) -> float:
    """Of a column over the pairs."""
    return float(np.mean([float(row[column]) for row in rows]))


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])
