import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.ncf import benchmark_ncf, make_network


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"parts": ("half",)}, r"parts are \['half'\]"),
        ({"parts": ("0",)}, r"parts are \['0'\]"),
        ({"sizes": ((20,),)}, r"sizes \[\(20,\)\]"),
        ({"sizes": ((20, 10),)}, r"sizes \[\(20, 10\)\]"),
        ({"steps": 0}, "steps 0"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(arguments, sentence, tmp_path):
    with pytest.raises(RegInputError, match=sentence):
        benchmark_ncf(tmp_path, command="", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("part", "chunk", "slab"), [("whole", 0, 0), ("auto", None, 2**19), ("2048", 2048, 2**19)])
def test_parts_are_those_of_the_bundle(part, chunk, slab):
    network = make_network(part, 4)
    assert (network.architecture["chunk"], network.architecture["slab"]) == (chunk, slab)
    assert (network.iterations, network.half_resolution_steps, network.progress) == (4, 0, False)


@pytest.mark.slow  # each row is a process that imports torch and MONAI
def test_a_row_a_size_and_way(tmp_path):
    said = []
    path = benchmark_ncf(tmp_path, ((16, 17),), ("whole", "100"), 2, command="as typed", say=said.append)
    rows = list(csv.DictReader(path.open()))
    assert [(row["size"], row["parts"], row["steps"]) for row in rows] == [("16x17", p, "2") for p in ("whole", "100")]
    assert all(0 < float(row["seconds_per_step_median"]) < float(row["total_s"]) for row in rows)
    assert all(float(row["growth_mib"]) < float(row["peak_memory_mib"]) for row in rows)
    assert rows[0]["command"] == "as typed" and len(said) == 2


@pytest.mark.slow
def test_parts_need_less_memory_than_the_whole(tmp_path):
    path = benchmark_ncf(tmp_path, ((40, 40, 40),), ("whole", "auto"), 1, command="")
    whole, auto = (float(row["growth_mib"]) for row in csv.DictReader(path.open()))
    assert auto < 0.75 * whole
