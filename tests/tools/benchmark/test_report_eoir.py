"""What is drawn, from csv files as the sweep writes them."""

import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.eoir import append
from tools.benchmark.report_eoir import COLUMNS, count_text, draw_sweep, read_sweeps, report_eoir


def a_row(depth, channels, weight, dice, **changes):
    """A row of a network whose multiply-adds and SDlogJ are known."""
    row = dict.fromkeys(COLUMNS, "x") | {"dataset": "Toy", "grid": "8x8x8", "overlays": "", "steps": 64, "seed": 0}
    row |= {"encoder_depth": depth, "channels": channels, "smooth_weight": weight, "dice": dice, "pairs": 2}
    if depth == "":
        row |= {"steps": 0, "seed": ""}
    return row | {"sdlogj": 0.1, "parameters": 1000, "multiply_adds_g": 1 + (depth or 0) * (channels or 0)} | changes


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "eoir-toy-cpu-1threads-torch2.13.0.csv"
    append(path, a_row("", "", "", 0.5))
    for depth, channels, weight, dice in [(0, 1, 1.0, 0.6), (2, 4, 1.0, 0.65), (2, 8, 1.0, 0.7), (2, 8, 0.5, 0.75)]:
        append(path, a_row(depth, channels, weight, dice, sdlogj=0.2 / weight))
    return path


def lines_of(axes):
    """The curves by their names."""
    return {line.get_label(): list(map(tuple, line.get_xydata())) for line in axes.lines if line.get_label()[0] != "_"}


def test_curves_go_through_the_rows(path):
    (sweep,) = read_sweeps(path)
    cost, smoothness = draw_sweep(sweep).axes
    assert lines_of(cost) == {
        "$N_s$ = 4": [(1.0, 0.6), (9.0, 0.65)],
        "$N_s$ = 8": [(1.0, 0.6), (17.0, 0.7)],
    }
    assert lines_of(smoothness) == {"2 layers, $N_s$ = 8": [(0.4, 0.75), (0.2, 0.7)]}
    assert cost.get_xscale() == "log" and sweep.identity_dice == 0.5


def test_markers_name_layers_parameters_and_weights(path):
    cost, smoothness = draw_sweep(read_sweeps(path)[0]).axes
    assert [text.get_text() for text in cost.texts] == ["0: 1k", "2: 1k", "2: 1k", "before"]
    assert [text.get_text() for text in smoothness.texts] == ["0.5", "1"]


def test_without_smoothness_weights_there_is_one_panel(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert len(draw_sweep(read_sweeps(path)[0]).axes) == 1


def test_the_later_of_two_rows_counts(path):
    append(path, a_row(2, 4, 1.0, 0.9))
    assert [run.dice for run in read_sweeps(path)[0].runs if run.channels == 4] == [0.9]


def test_sweeps_that_were_trained_otherwise_are_drawn_apart(path):
    append(path, a_row(2, 4, 1.0, 0.9, steps=128))
    names = {picture.name for picture in report_eoir(path.parent, path.parent / "out")}
    assert names == {"eoir-toy-8x8x8-64steps-seed0.png", "eoir-toy-8x8x8-128steps-seed0.png"}


def test_a_picture_for_each_data_set(path):
    other = path.with_name("eoir-other-cpu-1threads-torch2.13.0.csv")
    append(other, a_row(1, 4, 1.0, 0.6, dataset="other"))
    written = report_eoir(path.parent, path.parent / "out")
    assert [picture.name for picture in written] == ["eoir-other.png", "eoir-toy.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in written)


def test_counts_are_shortened():
    assert [count_text(n) for n in (18925, 999_499, 3_441_484)] == ["19k", "999k", "3.44M"]


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(RegInputError, match=r"no eoir-\*.csv"):
        report_eoir(tmp_path, tmp_path)
    path = tmp_path / "eoir-bad.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["dice"], [0.5]])
    with pytest.raises(RegInputError, match="lacks columns"):
        report_eoir(tmp_path, tmp_path)
    path.unlink()
    append(path, a_row("", "", "", 0.5))
    with pytest.raises(RegInputError, match="no trained network yet"):
        report_eoir(tmp_path, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["eoir-bad.csv"]
