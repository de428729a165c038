"""The picture of an evaluation: Dice as box plots, a color a method."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

__all__ = ["MAX_GROUPS", "dice_figure"]

MAX_GROUPS = 30  # labels, or pairs, that can be told apart side by side
INCHES_A_BOX = 0.14


def dice_figure(values: Mapping[str, np.ndarray], pairs: Sequence[str], labels: Sequence[str]) -> Figure:
    """Boxes of Dice for each method.

    A group of boxes a label, over the pairs, for up to 30 labels; else a group a pair, over the labels, for up to 30
    pairs; else one box a method, over the pairs' means.

    Args:
        values: for each method, in the order of drawing, (P, L) Dice in [0, 1], NaN where a pair lacks the label.
        pairs: P names.
        labels: L names.
    """
    if len(labels) <= MAX_GROUPS:
        return grouped(values, labels, f"label, over {len(pairs)} pairs")
    turned = {name: array.T for name, array in values.items()}
    if len(pairs) <= MAX_GROUPS:
        return grouped(turned, pairs, f"pair (fixed__moving), over {len(labels)} labels")
    means = {name: np.nanmean(array, axis=1)[:, None] for name, array in values.items()}
    return grouped(means, [f"mean of {len(labels)} labels"], f"over {len(pairs)} pairs")


def grouped(values: Mapping[str, np.ndarray], groups: Sequence[str], axis_label: str) -> Figure:
    """One box a column of each method's (N, G) values, those of a group side by side."""
    boxes = len(groups) * (len(values) + 1)
    figure = Figure(figsize=(max(6.0, INCHES_A_BOX * boxes + 1.5), 5.0), layout="constrained")
    axes = figure.subplots()
    colors = [mpl.colormaps["tab10"](k % 10) for k in range(len(values))]
    width = 0.8 / len(values)
    for k, (array, color) in enumerate(zip(values.values(), colors, strict=True)):
        places = np.arange(len(groups)) + (k - (len(values) - 1) / 2) * width
        draw_boxes(axes, [column[~np.isnan(column)] for column in array.T], places, 0.85 * width, color)
    axes.set(xlim=(-0.6, len(groups) - 0.4), ylim=(-0.02, 1.02), xlabel=axis_label, ylabel="Dice, nearest neighbor")
    axes.set_xticks(range(len(groups)), groups, rotation=60 if len(groups) > 1 else 0, ha="right", fontsize=8)
    if len(groups) == 1:
        axes.set_xticks([0], groups)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    handles = [Patch(color=color, label=name) for name, color in zip(values, colors, strict=True)]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 6), frameon=False)
    return figure


def draw_boxes(axes: Axes, columns: list[np.ndarray], places: np.ndarray, width: float, color: tuple) -> None:
    """Quartile boxes with whiskers of 1.5 times their length, medians black, outliers as dots."""
    axes.boxplot(
        columns,
        positions=places,
        widths=width,
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": color, "edgecolor": color, "linewidth": 0.8},
        whiskerprops={"color": color, "linewidth": 0.8},
        capprops={"color": color, "linewidth": 0.8},
        medianprops={"color": "black", "linewidth": 1.0},
        flierprops={"marker": ".", "markersize": 3, "markerfacecolor": color, "markeredgecolor": "none"},
    )
