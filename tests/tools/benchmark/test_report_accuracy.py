"""Tables of accuracy, from a csv made by hand whose means are known."""

import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.report_accuracy import report_accuracy

STACK = {"device": "a processor", "threads": 2, "torch": "2.13.0", "commit": "abc"}


def write(path, settings):
    """Two pairs a setting: (method, setting, Dice of both, SDlogJ of both, steps)."""
    rows = []
    for method, setting, dices, sdlogjs, steps in settings:
        training = {"steps": steps, "training_s": 90 * (steps > 0), "training_memory_mib": 512, "parameters": 1234567}
        for pair, (dice, sdlogj) in enumerate(zip(dices, sdlogjs, strict=True)):
            scores = {"pair": pair, "dice": dice, "sdlogj": sdlogj, "ndv_percent": 0.01, "seconds": 2.5}
            memory = {"registration_memory_mib": 700 if method != "as prepared" else 0}
            rows.append({"method": method, "setting": setting, **scores, **training, **memory, **STACK})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def cells(text, start):
    lines = [line for line in text.splitlines() if line.startswith(start)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def report(tmp_path):
    return report_accuracy(
        write(
            tmp_path / "accuracy.csv",
            [
                ("as prepared", "", (0.3, 0.5), (0, 0), 0),
                ("Net", "smooth_weight 1", (0.5, 0.7), (0.1, 0.18), 120),
                ("Net", "smooth_weight 0.5", (0.6, 0.8), (0.22, 0.3), 110),
            ],
        )
    )


def test_each_setting_has_its_means(report):
    first, second = (line for line in cells(report, "| Net") if len(line) == 11)
    assert (first[1], second[1]) == ("smooth_weight 1", "smooth_weight 0.5")
    assert first[2:] == ["1,234,567", "120", "1.5", "512", "0.6000 (0.1000)", "0.140", "0.0100", "2.5", "700"]


def test_a_method_without_training_leaves_its_cells_empty(report):
    line = next(line for line in cells(report, "| as prepared") if len(line) == 11)
    assert line == ["as prepared", "", "", "", "", "", "0.4000 (0.1000)", "0.000", "0.0100", "", ""]


def test_at_a_bound_stands_the_best_setting_that_is_smooth_enough(report):
    """The means of SDlogJ are 0.14 and 0.26: the second setting counts from a bound of 0.3 on."""
    bounded = next(line for line in cells(report, "| Net") if len(line) == 5)
    assert bounded == ["Net", "", "0.6000", "0.6000", "0.7000"]


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="has no rows"):
        report_accuracy(tmp_path / "none.csv")
