"""Tables and pictures of speed, from csv files of known content."""

import csv

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from common.errors import RegInputError
from tools.benchmark.report_speed import digits, report_speed, step_figure

STACK = {"size": "8x9x10", "device": "a processor", "threads": "2", "torch": "2.13.0", "runs": "5", "commit": "abc1234"}


def epoch_row(network: str, backend: str, step: float, lncc: float, saved: float) -> dict:
    times = {"step_s_median": step, "lncc_s_median": lncc, "epoch_s": 403 * step, "saved_s": saved}
    return {"network": network, "backend": backend, **times, "saved_percent": round(100 * saved / 4, 1), **STACK}


ROWS = [epoch_row("VoxelMorph-1", "five_conv", 4.0, 3.0, 0.0), epoch_row("VoxelMorph-1", "auto", 1.25, 0.25, 2.75)]


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_epochs_become_a_table_and_a_picture(tmp_path):
    write(tmp_path / "epoch-x.csv", ROWS)
    text = report_speed(tmp_path, tmp_path)
    assert "`epoch-x.csv`: 8x9x10, a processor, 2 threads, torch 2.13.0, median of 5, commit abc1234." in text
    assert "| VoxelMorph-1 | `auto` | 1.25 | 0.25 | 8.4 | 2.75 | 68.8 |" in text
    assert (tmp_path / "epoch-x.png").read_bytes().startswith(b"\x89PNG")


def test_networks_and_lncc_become_tables(tmp_path):
    network = {"network": "EOIR 8", "parameters": "111208", "multiply_adds_g": "7.5", "forward_s_median": "0.51234"}
    network |= {"forward_memory_mib": "300.4", "step_s_median": "2.5", "step_memory_mib": "1000.6", **STACK}
    write(tmp_path / "network-x.csv", [network])
    lncc = {"window": "9", "backend": "cpu", "forward_s_median": "0.1", "backward_s_median": "0.02"}
    lncc |= {"total_s_median": "0.12", "peak_memory_mib": "80", "times_faster_than_five_conv": "300"}
    write(tmp_path / "lncc-x.csv", [{**lncc, "times_faster_than_monai": "", "times_the_floor": "9.96", **STACK}])
    text = report_speed(tmp_path, tmp_path)
    assert "| EOIR 8 | 111,208 | 7.5 | 0.512 | 300 | 2.5 | 1001 |" in text
    assert "| 8x9x10 | 9 | `cpu` | 0.1 | 0.02 | 0.12 | 80 | 300 |  | 9.96 |" in text


def test_bars_are_as_long_as_the_step_and_lncc_is_on_top():
    figure = step_figure([{key: str(value) for key, value in row.items()} for row in ROWS])
    FigureCanvasAgg(figure).draw()
    rest, lncc = figure.axes[0].containers
    assert [bar.get_width() for bar in rest] == [1.0, 1.0]
    assert [(bar.get_x(), bar.get_width()) for bar in lncc] == [(1.0, 3.0), (1.0, 0.25)]


@pytest.mark.parametrize(("value", "text"), [("0.123456", "0.123"), (1234.5, "1230"), (99.96, "100"), ("", "")])
def test_three_digits_and_no_exponent(value, text):
    assert digits(value) == text


def test_a_folder_or_a_file_without_what_is_drawn_is_refused(tmp_path):
    with pytest.raises(RegInputError, match=r"has no lncc-\*.csv"):
        report_speed(tmp_path, tmp_path)
    write(tmp_path / "network-x.csv", [{"network": "EOIR 8", **STACK}])
    with pytest.raises(RegInputError, match="no column 'parameters'"):
        report_speed(tmp_path, tmp_path)
