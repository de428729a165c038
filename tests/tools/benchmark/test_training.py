import csv
import random

import pytest
import torch

from common.errors import RegInputError
from tools.benchmark.training import benchmark_training, bits, damaged_copies


def test_copies_are_damaged_in_as_many_ways_as_asked():
    data = bytes(range(200))
    copies = list(damaged_copies(data, 40, random.Random(0)))
    assert len(copies) == 40 and [len(copy) for copy in copies[:5]] == [0, 50, 100, 150, 199]
    for copy in copies[5:]:
        assert sum((a ^ b).bit_count() for a, b in zip(copy, data, strict=True)) == 1


def test_bits_tell_one_bit_apart_and_nothing_else():
    weights = {"a": torch.tensor([1.0, 2.0]), "b": [0.5, {"c": torch.ones(2, 2)}]}
    same = {"a": torch.tensor([1.0, 2.0]), "b": [0.5, {"c": torch.ones(2, 2).T}]}
    next_float = torch.nextafter(torch.tensor(2.0), torch.tensor(3.0))
    assert bits(weights) == bits(same)
    assert bits(weights) != bits(weights | {"a": torch.tensor([1.0, next_float])})
    assert bits(torch.zeros(2)) != bits(-torch.zeros(2)) != bits(torch.zeros(2, dtype=torch.int32))


@pytest.mark.parametrize("counts", [(0, 305), (50, 4)])
def test_counts_that_say_nothing_are_refused(counts, tmp_path):
    with pytest.raises(RegInputError, match="expected at least 1 and 5"):
        benchmark_training(tmp_path, *counts, command="")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_runs_survive_kills_and_damage_and_repeat_themselves(tmp_path):
    path = benchmark_training(tmp_path, kills=1, damages=20, command="the command", say=lambda line: None)
    rows = list(csv.DictReader(path.open()))
    assert [row["check"].split()[0] for row in rows] == ["the", "kills", "damaged"]
    for row in rows:
        assert int(row["passed"]) == int(row["tried"]) > 0, row
    assert int(rows[2]["plain_torch"]) < 10 and rows[0]["command"] == "the command"
