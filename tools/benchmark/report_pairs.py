"""SVF against its peers at equal smoothness, from what ``regbundles benchmark pairs`` wrote: a table and a curve."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from common.errors import RegInputError
from common.report import save_figure

from ..evaluation_tables import aligned
from ..statistics import compare

__all__ = ["report_pairs"]

BOUNDS = (0.15, 0.20, 0.25, 0.30)  # of SDlogJ
OWN = "svf"
MARKERS = {"svf": "o", "greedy": "s", "syn": "^"}


class Point(NamedTuple):
    """One setting of one method, means over the pairs that it was run on.

    Attributes:
        method: its name.
        setting: its options.
        dice: by pair.
        sdlogj: mean.
        ndv_percent: mean.
        seconds: mean.
    """

    method: str
    setting: str
    dice: dict[tuple[str, str], float]
    sdlogj: float
    ndv_percent: float
    seconds: float

    @property
    def mean(self) -> float:
        """Mean Dice."""
        return float(np.mean(list(self.dice.values())))


def report_pairs(scores: Path, picture: Path) -> str:
    """Draw Dice against SDlogJ and return a table of svf and the best peer at each bound of SDlogJ.

    At a bound, each side's point is the setting of the highest mean Dice whose mean SDlogJ is not above the bound. The
    interval is that of the paired differences, 95 %, by Student's t.

    Args:
        scores: csv of ``regbundles benchmark pairs``; pairs that lack a setting are left out of its comparison.
        picture: where the curve goes, .png or .svg.

    Raises:
        RegInputError: if the file is missing or has no point of svf and of a peer.
    """
    points = read_points(scores)
    peers = [point for point in points if point.method not in (OWN, "affine")]
    own = [point for point in points if point.method == OWN]
    if not own or not peers:
        raise RegInputError(f"{scores} has no points of {OWN} and of a peer, expected both; run `benchmark pairs`.")
    save_figure(draw(points), picture)
    columns = ["SDlogJ to", "svf Dice", "s", "NDV %", "best peer", "Dice", "s", "difference (95 %)", "n", "time"]
    rows = [row for bound in BOUNDS if (row := row_at(bound, own, peers)) is not None]
    return "\n".join(aligned([columns, *rows]))


def read_points(path: Path) -> list[Point]:
    """Every setting of every method but the affine."""
    if not path.is_file():
        raise RegInputError(f"{path} is missing, expected scores of pairs; run `regbundles benchmark pairs`.")
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    groups = defaultdict(list)
    for row in table:
        groups[row["method"], row["setting"]].append(row)
    points = []
    for (method, setting), rows in groups.items():
        means = [float(np.mean([float(row[key]) for row in rows])) for key in ("sdlogj", "ndv_percent", "seconds")]
        points.append(Point(method, setting, {(r["fixed"], r["moving"]): float(r["dice"]) for r in rows}, *means))
    return points


def best_at(bound: float, points: Sequence[Point]) -> Point | None:
    """The point of the highest mean Dice whose SDlogJ is not above a bound."""
    return max((point for point in points if point.sdlogj <= bound), key=lambda point: point.mean, default=None)


def row_at(bound: float, own: Sequence[Point], peers: Sequence[Point]) -> list[str] | None:
    """Cells of the table at one bound; None without a point of svf."""
    first, other = best_at(bound, own), best_at(bound, peers)
    if first is None:
        return None
    cells = [f"{bound:.2f}", f"{first.mean:.4f}", f"{first.seconds:.1f}", f"{first.ndv_percent:.4f}"]
    if other is None:
        return [*cells, "none", *[""] * 5]
    common = [pair for pair in first.dice if pair in other.dice]
    found = compare([first.dice[pair] for pair in common], [other.dice[pair] for pair in common])
    interval = f"{found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
    cells += [f"{other.method} {other.setting}", f"{other.mean:.4f}", f"{other.seconds:.1f}", interval, str(found.n)]
    return [*cells, f"1/{other.seconds / first.seconds:.1f}"]


def draw(points: Sequence[Point]) -> Figure:
    """Mean Dice against mean SDlogJ, a marker a setting."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for method in dict.fromkeys(point.method for point in points if point.method != "affine"):
        chosen = sorted((p for p in points if p.method == method), key=lambda point: point.sdlogj)
        label = f"{method}, {span([point.seconds for point in chosen])} s"
        style = "-" if method == OWN else ""
        axes.plot([p.sdlogj for p in chosen], [p.mean for p in chosen], MARKERS.get(method, "x") + style, label=label)
    axes.set_xlabel("SDlogJ of the deformation (less is smoother)")
    axes.set_ylabel(f"mean Dice, {len(points[0].dice)} pairs")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def span(values: Sequence[float]) -> str:
    """Smallest to largest, rounded; one number where they round to the same."""
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"
