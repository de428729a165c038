"""The form of LNCC leaves a training as it is."""

import csv

import pytest

from common.errors import RegInputError
from common.phantom import write_phantom
from tools.benchmark.curves import benchmark_curves, largest_difference


@pytest.mark.slow
def test_every_form_of_the_loss_trains_alike_and_another_seed_does_not(tmp_path):
    dataset = str(write_phantom(tmp_path / "data", subjects=3, size=(32, 32, 32)).parent)
    options = {"dataset_dir": dataset, "threads": 1, "work": tmp_path / "work"}
    path = benchmark_curves(tmp_path, 16, **options)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 17))
    five, group, auto = ([float(row[name]) for row in rows] for name in ("five_conv", "group_conv", "auto"))
    nudged = [float(row["nudged"]) for row in rows]
    assert max(largest_difference(five, other) for other in (group, auto, nudged)) < 1e-3
    assert largest_difference(five, nudged) > 0
    with benchmark_curves(tmp_path, 16, **options, backends=["auto"], seed=1).open(newline="") as file:
        other_seed = [float(row["auto"]) for row in csv.DictReader(file)]
    assert largest_difference(auto, other_seed) > 1e-2
    assert path.with_suffix(".png").is_file()


def test_the_difference_is_relative_and_the_largest():
    assert largest_difference([1.0, 2.0, 4.0], [1.0, 2.5, 4.4]) == pytest.approx(0.25)


def test_a_broken_epoch_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="steps is 12; expected a multiple of 8"):
        benchmark_curves(tmp_path, 12, work=tmp_path)
