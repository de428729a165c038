import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.report_pairs import report_pairs

COLUMNS = ("fixed", "moving", "method", "setting", "dice", "sdlogj", "ndv_percent", "seconds")


def write(path, rows):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(dict(zip(COLUMNS, row, strict=True)) for row in rows)
    return path


def rows_of(method, setting, dice, sdlogj, seconds):
    return [("1", str(k), method, setting, value, sdlogj, 0.0001, seconds) for k, value in enumerate(dice)]


def test_the_best_points_of_no_greater_sdlogj_are_compared_pair_by_pair(tmp_path):
    rows = rows_of("affine", "", (0.4, 0.4, 0.4), 0, 0)
    rows += rows_of("svf", "smooth", (0.60, 0.61, 0.62), 0.14, 5) + rows_of("svf", "rough", (0.63, 0.64, 0.68), 0.19, 6)
    rows += rows_of("greedy", "a", (0.58, 0.60, 0.59), 0.18, 30) + rows_of("greedy", "b", (0.7, 0.7, 0.7), 0.26, 60)
    lines = report_pairs(write(tmp_path / "pairs.csv", rows), tmp_path / "curve.png").splitlines()
    at = {line.split()[0]: line for line in lines if line[:2] == "0."}
    assert "none" in at["0.15"] and "0.6100" in at["0.15"]
    # differences 0.05, 0.04 and 0.09: mean 0.06, standard deviation 0.02646, t = 4.3027 over sqrt 3
    assert "+0.0600 (-0.0057 to +0.1257)" in at["0.20"] and "1/5.0" in at["0.20"]
    assert "greedy a" in at["0.25"] and "greedy b" in at["0.30"] and "-0.0500" in at["0.30"]
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_a_table_without_a_peer_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="of a peer"):
        report_pairs(write(tmp_path / "pairs.csv", rows_of("svf", "", (0.6,), 0.1, 5)), tmp_path / "curve.png")
    with pytest.raises(RegInputError, match="is missing"):
        report_pairs(tmp_path / "none.csv", tmp_path / "curve.png")
