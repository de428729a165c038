import numpy as np
import pytest
from matplotlib.patches import PathPatch

from tools.dice_plot import dice_figure


def boxes_and_ticks(pairs: int, labels: int) -> tuple[int, list[str]]:
    rng = np.random.default_rng(0)
    values = {name: rng.random((pairs, labels)) for name in ("first", "second")}
    values["first"][0, 0] = np.nan
    figure = dice_figure(values, [f"pair {k}" for k in range(pairs)], [f"label {k}" for k in range(labels)])
    axes = figure.axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, PathPatch)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "second"]
    return len(boxes), [tick.get_text() for tick in axes.get_xticklabels()]


@pytest.mark.parametrize(
    ("pairs", "labels", "groups", "first"),
    [(3, 30, 30, "label 0"), (3, 31, 3, "pair 0"), (31, 31, 1, "mean of 31 labels"), (1, 1, 1, "label 0")],
)
def test_few_labels_have_a_group_each_else_pairs_else_all_is_one(pairs, labels, groups, first):
    boxes, ticks = boxes_and_ticks(pairs, labels)
    assert boxes == 2 * groups and len(ticks) == groups and ticks[0] == first


def test_the_median_line_lies_at_the_median_of_known_values():
    values = np.array([[0.2, 0.5], [0.4, np.nan], [0.9, 0.7]])
    axes = dice_figure({"m": values}, ["a", "b", "c"], ["x", "y"]).axes[0]
    medians = [line.get_ydata()[0] for line in axes.lines if line.get_color() == "black" and len(line.get_ydata())]
    assert medians == pytest.approx([0.4, 0.6])
