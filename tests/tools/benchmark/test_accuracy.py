"""Bundles trained for the same time and scored on the same pairs, on a tiny phantom."""

import csv

import pytest

from common.errors import RegInputError
from common.phantom import write_phantom
from tools.benchmark.accuracy import METHODS, Method, Terms, benchmark_accuracy, methods_of


@pytest.mark.slow
def test_networks_and_pairwise_bundles_get_rows_and_what_is_finished_stays(tmp_path):
    dataset = write_phantom(tmp_path / "data", subjects=3, size=(32, 32, 32)).parent
    terms = Terms(str(dataset), minutes=0.05, threads=1, roi_size=(24, 32, 32))
    methods = [Method("as prepared"), Method("SVF", 0.8), Method("VoxelMorph-1", 2.0)]
    said: list[str] = []
    path = benchmark_accuracy(tmp_path, terms, methods, work=tmp_path / "work", command="command", say=said.append)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    settings = {"as prepared": "", "SVF": "divergence_weight 0.8", "VoxelMorph-1": "smooth_weight 2"}
    assert {row["method"]: row["setting"] for row in rows} == settings
    trained = [row for row in rows if row["method"] == "VoxelMorph-1"]
    assert all(int(row["steps"]) > 0 and int(row["parameters"]) == 274387 for row in trained)
    assert all(3 <= float(row["training_s"]) < 60 for row in trained)  # until the step in hand is done
    assert all(0 < float(row["dice"]) < 1 for row in rows)
    registered = [row for row in rows if row["method"] != "as prepared"]
    assert all(float(row["seconds"]) > 0 and float(row["registration_memory_mib"]) > 100 for row in registered)
    assert all(float(row["sdlogj"]) == 0 for row in rows if row["method"] == "as prepared")
    before = path.read_text()
    benchmark_accuracy(tmp_path, terms, methods, work=tmp_path / "work", command="command", say=said.append)
    assert path.read_text() == before and "already in" in said[-1]


def test_a_wrong_request_is_refused(tmp_path):
    for method, minutes in ((Method("VGG", None), 1.0), (Method(METHODS[0], None), 0.0)):
        with pytest.raises(RegInputError, match="expected some of"):
            benchmark_accuracy(tmp_path, Terms("data", minutes=minutes), [method], work=tmp_path, command="")


def test_networks_and_svf_have_a_line_for_every_weight_and_the_others_one():
    methods = methods_of(["as prepared", "SVF", "NCF", "EOIR 8"], [0.5, 2.0], [0.1])
    assert [method.title for method in methods] == [
        "as prepared",
        "SVF divergence_weight 0.1",
        "NCF",
        "EOIR 8 smooth_weight 0.5",
        "EOIR 8 smooth_weight 2",
    ]
    assert methods[3].variant.settings == {"channels": 8, "smooth_weight": 0.5}
