"""Pictures of EOIR's sweeps, drawn from the csv files that ``eoir.py`` wrote.

Left, as the paper's Figure 4: Dice against multiply-adds, a curve for each width over the encoder's depth. Right: Dice
against SDlogJ over the weight of the smoothness term.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from common.errors import RegInputError
from common.report import save_figure

__all__ = ["Run", "Sweep", "draw_sweep", "read_sweeps", "report_eoir"]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by the color-blind
MARKERS = "osD^vP"
DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, 1), (1, 1), (-1, -1))
PLACES = [(across, up, far) for far in (6, 10, 16) for across, up in DIRECTIONS]
"""Which way a note may stand from its marker and how many points off, the best first."""
GROUP = ("dataset", "grid", "spacing_mm", "overlays")
COLUMNS = (
    *GROUP,
    *("encoder_depth", "channels", "smooth_weight", "steps", "seed", "pairs", "dice", "sdlogj"),
    *("parameters", "multiply_adds_g", "device", "torch", "threads", "commit"),
)


class Run(NamedTuple):
    """One trained network."""

    depth: int
    channels: int
    smooth_weight: float
    dice: float
    sdlogj: float
    parameters: int
    multiply_adds_g: float


class Sweep(NamedTuple):
    """Networks trained alike on one data set."""

    name: str
    """For a file's name: ``eoir-malc``, with what tells sweeps of one csv apart."""
    runs: list[Run]
    identity_dice: float | None
    caption: str


def report_eoir(results: Path, out: Path) -> list[Path]:
    """Draw every sweep found, ``<out>/eoir-<data set>.png``.

    Args:
        results: folder of the csv files, ``eoir-*.csv``.
        out: folder for the pictures.

    Raises:
        RegInputError: if there is no csv, or one has other columns or no trained network.
    """
    paths = sorted(Path(results).glob("eoir-*.csv"))
    if not paths:
        raise RegInputError(f"{results} has no eoir-*.csv; make one with `regbundles benchmark eoir`.")
    sweeps = [sweep for path in paths for sweep in read_sweeps(path)]
    names = Counter(sweep.name for sweep in sweeps)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise RegInputError(f"{results} has {names[twice[0]]} sweeps called {twice[0]}; report them from two folders.")
    written = []
    for sweep in sweeps:
        written.append(Path(out) / f"{sweep.name}.png")
        save_figure(draw_sweep(sweep), written[-1], dpi=220)
    return written


def read_sweeps(path: Path) -> list[Sweep]:
    """The sweeps of one csv; of a network measured twice the later row counts."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise RegInputError(f"{path} lacks columns or rows, expected {', '.join(COLUMNS)}; write it again.")
    trained = [row for row in rows if row["encoder_depth"]]
    if not trained:
        raise RegInputError(f"{path} has no trained network yet; let `regbundles benchmark eoir` go on.")
    groups = list(dict.fromkeys(key_of(row) for row in trained))
    return [make_sweep(group, rows, several=len(groups) > 1) for group in groups]


def key_of(row: dict[str, str]) -> tuple[str, ...]:
    """What the networks of one sweep share."""
    return tuple(row[column] for column in (*GROUP, "steps", "seed"))


def make_sweep(group: tuple[str, ...], rows: Sequence[dict[str, str]], several: bool) -> Sweep:
    """The rows of one group as a sweep."""
    dataset, grid, spacing, overlays, steps, seed = group
    mine = [row for row in rows if row["encoder_depth"] and key_of(row) == group]
    start = [row for row in rows if not row["encoder_depth"] and tuple(row[c] for c in GROUP) == group[: len(GROUP)]]
    runs = {(row["encoder_depth"], row["channels"], row["smooth_weight"]): run_of(row) for row in mine}
    words = [dataset.lower(), *([grid, *overlays.split("+"), f"{steps}steps", f"seed{seed}"] if several else [])]
    last = mine[-1]
    threads = f"{last['threads']} thread{'' if last['threads'] == '1' else 's'}"
    commits = ", ".join(dict.fromkeys(row["commit"] for row in mine))
    caption = (
        f"{dataset}, {grid} voxels of {spacing} mm; {steps} training steps, seed {seed}, "
        f"overlays: {overlays.replace('+', ', ') or 'none'}; {last['pairs']} validation pairs\n"
        f"{last['device']}, {threads}, torch {last['torch']}; commit {commits}"
    )
    identity_dice = float(start[-1]["dice"]) if start else None
    return Sweep("-".join(["eoir", *filter(None, words)]), list(runs.values()), identity_dice, caption)


def run_of(row: dict[str, str]) -> Run:
    """One row as numbers."""
    return Run(
        int(row["encoder_depth"]),
        int(row["channels"]),
        float(row["smooth_weight"]),
        float(row["dice"]),
        float(row["sdlogj"]),
        int(row["parameters"]),
        float(row["multiply_adds_g"]),
    )


def draw_sweep(sweep: Sweep) -> Figure:
    """Both panels and the caption; without two smoothness weights of one network the left one alone."""
    smoothness = smoothness_curves(sweep.runs)
    figure = Figure(figsize=(7.4 if smoothness else 4.6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    cost, *other = figure.subplots(1, 2 if smoothness else 1, sharey=True, squeeze=False)[0]
    notes = {cost: draw_cost(cost, depth_curves(sweep.runs))}
    notes |= {axes: draw_smoothness(axes, smoothness) for axes in other}
    for axes in notes:
        if notes[axes]:
            axes.legend(fontsize=7.5, frameon=False, loc="best")
        if sweep.identity_dice is not None:
            axes.axhline(sweep.identity_dice, color="0.45", linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.grid(True, color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.14, y=0.12)
    if sweep.identity_dice is not None:
        place = {"xy": (0.99, sweep.identity_dice), "xycoords": ("axes fraction", "data")}
        cost.annotate("before", **place, fontsize=7, ha="right", va="bottom", color="0.35", annotation_clip=False)
    cost.set_ylabel("mean Dice, validation pairs", fontsize=8.5)
    figure.supxlabel(sweep.caption, fontsize=6.5, color="0.3")
    for axes, texts in notes.items():
        spread(figure, axes, texts)
    return figure


def depth_curves(runs: Sequence[Run]) -> dict[int, list[Run]]:
    """Per width, the networks by depth at the smoothness most were trained with; each begins without an encoder."""
    usual = Counter(run.smooth_weight for run in runs).most_common(1)[0][0]
    runs = sorted(run for run in runs if run.smooth_weight == usual)
    start = [run for run in runs if run.depth == 0]
    widths = sorted({run.channels for run in runs if run.depth > 0})
    return {width: start + [run for run in runs if run.depth and run.channels == width] for width in widths}


def smoothness_curves(runs: Sequence[Run]) -> dict[tuple[int, int], list[Run]]:
    """Per network, its runs by smoothness weight, where there are at least two."""
    curves: dict[tuple[int, int], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.smooth_weight):
        curves.setdefault((run.depth, run.channels), []).append(run)
    return {network: curve for network, curve in curves.items() if len(curve) > 1}


def draw_cost(axes: Axes, curves: dict[int, list[Run]]) -> list[Annotation]:
    """Dice against multiply-adds; each marker says the encoder's depth and the number of parameters."""
    notes = []
    for index, (width, curve) in enumerate(curves.items()):
        points = [(run.multiply_adds_g, run.dice) for run in curve]
        draw_curve(axes, points, index, f"$N_s$ = {width}")
        for run, point in zip(curve, points, strict=True):
            if run.depth or index == 0:
                color = COLORS[index % len(COLORS)] if run.depth else "0.25"
                notes.append(label(axes, f"{run.depth}: {count_text(run.parameters)}", point, color))
    for run in [run for curve in list(curves.values())[:1] for run in curve if run.depth == 0]:  # of no width
        axes.plot(run.multiply_adds_g, run.dice, color="0.25", marker="*", markersize=9, linestyle="", zorder=4)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("multiply-adds of the convolutions, $10^9$", fontsize=8.5)
    axes.set_title("at the markers: encoder layers: parameters", fontsize=7.5, color="0.3", loc="left")
    return notes


def draw_smoothness(axes: Axes, curves: dict[tuple[int, int], list[Run]]) -> list[Annotation]:
    """Dice against SDlogJ; each marker says the weight of the smoothness term."""
    notes = []
    for index, ((depth, channels), curve) in enumerate(curves.items()):
        points = [(run.sdlogj, run.dice) for run in curve]
        draw_curve(axes, points, index, f"{depth} layers, $N_s$ = {channels}")
        color = COLORS[index % len(COLORS)]
        notes += [label(axes, f"{run.smooth_weight:g}", point, color) for run, point in zip(curve, points, strict=True)]
    axes.set_xlabel("SDlogJ, standard deviation of log det J", fontsize=8.5)
    axes.set_title("at the markers: weight of the smoothness term", fontsize=7.5, color="0.3", loc="left")
    return notes


def draw_curve(axes: Axes, points: Sequence[tuple[float, float]], index: int, name: str) -> None:
    """One line with markers."""
    style = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
    axes.plot(*zip(*points, strict=True), label=name, **style, markersize=5, linewidth=1.3)


def label(axes: Axes, text: str, point: tuple[float, float], color: str) -> Annotation:
    """A note at a marker, for :func:`spread` to move."""
    return axes.annotate(
        text, point, xytext=(0, 0), textcoords="offset points", ha="center", va="center", fontsize=6.5, color=color
    )


def spread(figure: Figure, axes: Axes, notes: Sequence[Annotation]) -> None:
    """Put every note where it covers least of the curves and of the notes before it: right, left, below, above, ..."""
    figure.draw_without_rendering()
    taken = [box for line in axes.lines if line.get_marker() not in ("", "None") for box in boxes_along(axes, line)]
    legend = axes.get_legend()
    taken += [legend.get_window_extent()] if legend else []
    for note in notes:
        costs = {}
        bare = note.get_window_extent()
        half = bare.width * 36 / figure.dpi, bare.height * 36 / figure.dpi  # half of its size, pixels -> points
        for across, up, far in PLACES:
            place = across * (half[0] + far * (1 if up == 0 else 0.3)), up * (half[1] + far)
            note.xyann = place
            box = note.get_window_extent()
            shared = [Bbox.intersection(box, other) for other in taken]
            outside = 0 if axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) else 1e6
            costs[place] = sum(part.width * part.height for part in shared if part is not None) + outside
        note.xyann = min(costs, key=costs.get)
        taken.append(note.get_window_extent())


def boxes_along(axes: Axes, line: Line2D) -> list[Bbox]:
    """Small squares on a curve and on its markers, in pixels."""
    points = axes.transData.transform(line.get_xydata())
    steps = np.linspace(0, 1, 25)[:, None]
    path = np.concatenate([points, *(a + steps * (b - a) for a, b in pairwise(points))])
    return [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in path]


def count_text(count: int) -> str:
    """``111k``, ``3.44M``."""
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.2f}M"
