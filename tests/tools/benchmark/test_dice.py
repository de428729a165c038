"""The benchmark's table on a tiny size."""

import csv

import pytest
import torch

from common.errors import RegInputError
from tools.benchmark.dice import DICE_BACKENDS, a_pair, benchmark_dice


@pytest.mark.slow
def test_both_losses_are_measured_and_agree(tmp_path):
    path = benchmark_dice(tmp_path, (20, 18, 17), [3], runs=2, threads=1, command="command")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert path.name == f"dice-cpu-1threads-torch{torch.__version__.split('+')[0]}.csv"
    assert [(row["backend"], row["labels"], row["size"]) for row in rows] == [
        (b, "3", "20x18x17") for b in DICE_BACKENDS
    ]
    assert float(rows[0]["loss"]) == pytest.approx(float(rows[1]["loss"]), abs=1e-6) and float(rows[0]["loss"]) > 0.01
    assert all(float(row["total_s_median"]) > 0 and row["command"] == "command" for row in rows)


def test_the_labels_fill_the_grid():
    label, ddf = a_pair((20, 33), 5, "cpu")
    assert label.shape == (1, 1, 20, 33) and ddf.shape == (1, 2, 20, 33) and 0 <= int(label.max()) < 5


@pytest.mark.parametrize(
    "change", [{"backends": ["x"]}, {"runs": 0}, {"labels": []}, {"size": (3,)}, {"device": "tpu"}]
)
def test_a_wrong_request_is_refused(change, tmp_path):
    with pytest.raises(RegInputError):
        benchmark_dice(tmp_path, **{"size": (4, 4), "labels": [2]} | change, command="")
    assert not list(tmp_path.iterdir())
