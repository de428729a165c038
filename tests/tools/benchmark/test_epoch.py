"""The tables of epochs and networks on a tiny grid."""

import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.epoch import EPOCH, benchmark_epoch
from tools.benchmark.network import benchmark_network
from tools.benchmark.report_speed import report_speed

SIZE = (16, 16, 32)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_row_for_every_form_of_the_loss(tmp_path):
    options = {"networks": ["VoxelMorph-1"], "backends": ["five_conv", "auto"], "threads": 1, "command": "command"}
    rows = read(benchmark_epoch(tmp_path, SIZE, 2, **options))
    assert [(row["network"], row["backend"]) for row in rows] == [("VoxelMorph-1", b) for b in ("five_conv", "auto")]
    for row in rows:
        step = float(row["step_s_median"])
        assert 0 < float(row["lncc_s_median"]) < step
        assert float(row["epoch_s"]) == pytest.approx(EPOCH * step, abs=0.06)
        assert float(row["saved_s"]) == pytest.approx(float(rows[0]["step_s_median"]) - step, abs=2e-5)
        assert row["parameters"] == "274387" and row["command"] == "command" and row["size"] == "16x16x32"
    assert "| VoxelMorph-1 | `auto` |" in report_speed(tmp_path, tmp_path)


@pytest.mark.slow
def test_a_row_for_every_network(tmp_path):
    rows = read(benchmark_network(tmp_path, SIZE, 1, networks=["VoxelMorph-1", "EOIR 8"], threads=1))
    assert [row["parameters"] for row in rows] == ["274387", "111208"]
    for row in rows:
        assert 0 < float(row["forward_s_median"]) < float(row["step_s_median"])
    assert "| EOIR 8 | 111,208 |" in report_speed(tmp_path, tmp_path)


@pytest.mark.parametrize("command", [benchmark_epoch, benchmark_network])
def test_a_wrong_request_is_refused_before_any_run(command, tmp_path):
    with pytest.raises(RegInputError, match="expected at least 1 run"):
        command(tmp_path, SIZE, 0)
    assert not list(tmp_path.iterdir())
