import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.report_intervals import report_intervals

COLUMNS = ("half", "method", "starts", "region", "coverage_percent", "spread_alone_percent", "mean_error_mm")
COLUMNS = (*COLUMNS, "mean_half_width_mm", "mean_spread_alone_mm")


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *rows])
    return path


def test_held_out_pairs_are_told_by_method_and_region(tmp_path):
    rows = [("held-out", "svf", 4, "body", value, 80, 1.0, 2.5, 3) for value in (92, 95, 97.4)]
    rows += [("calibration", "svf", 4, "body", 10, 0, 0, 0, 0), ("held-out", "svf", 8, "body", 20, 0, 0, 0, 0)]
    rows += [("held-out", "svf", 4, "flat", "", "", "", "", "")]
    lines = report_intervals(table(tmp_path / "intervals.csv", rows)).splitlines()
    assert lines[-1].split() == ["svf", "body", "3", "94.8", "95.0", "92.0", "97.4", "80.0", "1.00", "2.50", "3.00"]


def test_a_table_without_such_rows_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="16 starts"):
        report_intervals(table(tmp_path / "intervals.csv", []), 16)
    with pytest.raises(RegInputError, match="is missing"):
        report_intervals(tmp_path / "none.csv")
