"""Operators and variants of a training step on a tiny grid."""

import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.profile import STEP_VARIANTS, add_differences, benchmark_profile, profile_cases

SIZE = (16, 16, 32)


@pytest.mark.slow
def test_operators_and_variants_of_a_step(tmp_path):
    names = ["plain", "channels_last_3d", "bf16 autocast"]  # a process each
    assert set(names) < set(STEP_VARIANTS)
    path = benchmark_profile(tmp_path, SIZE, 2, 1, networks=["VoxelMorph-1"], variants=names, threads=1)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    operators = [row for row in rows if row["kind"] == "operator"]
    shares = [float(row["percent"]) for row in operators]
    assert shares == sorted(shares, reverse=True) and 50 < sum(shares) <= 100.5
    assert "aten::convolution_backward" in {row["name"] for row in operators}
    variants = {row["name"]: row for row in rows if row["kind"] == "variant"}
    assert list(variants) == names and all(len(row["losses"].split()) == 3 for row in variants.values())
    assert variants["plain"]["loss_difference"] == "0" and variants["plain"]["times_faster_than_plain"] == "1.0"
    assert float(variants["channels_last_3d"]["loss_difference"]) < 1e-4
    assert 1e-6 < float(variants["bf16 autocast"]["loss_difference"]) < 0.1


def variant(network, name, seconds, losses):
    return {
        "network": network,
        "kind": "variant",
        "name": name,
        "size": "1",
        "step_s_median": seconds,
        "losses": losses,
    }


def test_difference_is_the_largest_of_all_steps_and_gain_against_the_same_network():
    rows = [variant("a", "plain", 2.0, "4 2"), variant("a", "x", "1.0", "4.4 2.1"), variant("b", "x", 1.0, "9 9")]
    rows.append(variant("a", "y", 4.0, "nan 2"))
    add_differences(rows)
    assert (rows[1]["times_faster_than_plain"], rows[1]["loss_difference"]) == (2.0, "0.1")
    assert "loss_difference" not in rows[2]  # its plain step is not there yet
    assert (rows[3]["times_faster_than_plain"], rows[3]["loss_difference"]) == (0.5, "nan")


def test_cuda_graphs_are_tried_on_a_gpu_only():
    for device, count in (("cpu", len(STEP_VARIANTS) - 1), ("cuda", len(STEP_VARIANTS))):
        cases = profile_cases(SIZE, 1, 1, ["VoxelMorph-1"], None, 1, device)
        assert len([case for case in cases if case.key["kind"] == "variant"]) == count


def test_a_wrong_request_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="expected at least 1 run"):
        benchmark_profile(tmp_path, SIZE, 0)
    assert not list(tmp_path.iterdir())
