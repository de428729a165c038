"""The table of the LNCC benchmark on a tiny size, and its arithmetic."""

import csv
import subprocess

import pytest
import torch

from common.errors import RegEnvError, RegInputError
from common.lncc import lncc_mean
from tools.benchmark import lncc as module
from tools.benchmark.lncc import benchmark_lncc, lncc_backends
from tools.repository import REPOSITORY

SIZE = (9, 10, 11)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """One run of every backend with two threads."""
    path = benchmark_lncc(tmp_path_factory.mktemp("results"), [SIZE], [3], runs=3, threads=2)
    with path.open(newline="") as file:
        return path, list(csv.DictReader(file))


def test_one_row_for_every_backend_and_monai(table):
    assert [(row["backend"], row["size"], row["window"]) for row in table[1]] == [
        (backend, "9x10x11", "3") for backend in lncc_backends("cpu")
    ]


def test_file_name_tells_device_and_stack(table):
    assert table[0].name == f"lncc-cpu-2threads-torch{torch.__version__.split('+')[0]}.csv"


def test_all_backends_measured_the_same_loss(table):
    fixed, noise = torch.rand(2, 1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    expected = -float(lncc_mean(fixed, (fixed + noise) / 2, 3))
    assert [float(row["loss"]) for row in table[1]] == pytest.approx([expected] * len(lncc_backends("cpu")), abs=1e-3)


def test_every_row_names_stack_commit_and_command(table):
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.strip()
    for row in table[1]:
        assert row["torch"] == torch.__version__ and row["threads"] == "2" and row["device"]
        assert row["commit"].removesuffix("+dirty") == (head or "unknown")
        assert row["command"].startswith("regbundles benchmark lncc --sizes 9x10x11 --windows 3 --runs 3")


def test_times_and_ratios_agree(table):
    totals = {row["backend"]: float(row["total_s_median"]) for row in table[1]}
    for row in table[1]:
        assert float(row["forward_s_median"]) > 0 and float(row["backward_s_median"]) > 0
        for other in ("five_conv", "monai"):
            expected = totals[other] / totals[row["backend"]]
            assert float(row[f"times_faster_than_{other}"]) == pytest.approx(expected, abs=0.006)


def test_warm_up_runs_are_not_timed(monkeypatch):
    times = iter([(100.0, 100.0, 0.0), (1.0, 2.0, 0.0), (1.0, 2.0, 0.0)])
    monkeypatch.setattr(module, "time_once", lambda *_: next(times))
    threads = torch.get_num_threads()
    row = module.measure("separable", (1, 1, *SIZE), 3, runs=2, warmup=1, threads=threads, device="cpu")
    assert (row["forward_s_median"], row["backward_s_median"], row["total_s_median"]) == (1.0, 2.0, 3.0)


def test_ratio_is_empty_without_its_reference():
    cases = [{"backend": "separable", "total_s_median": 1.0}, {"backend": "monai", "total_s_median": 6.0}]
    module.add_ratios(cases)
    assert (cases[0]["times_faster_than_five_conv"], cases[0]["times_faster_than_monai"]) == ("", 6.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backends": ["cumsum"]}, "cumsum"),
        ({"runs": 0}, "runs is 0"),
        ({"windows": [4]}, "window 4"),
        ({"windows": [11]}, "window 11"),
        ({"sizes": [(9,)]}, r"size \(9,\)"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_wrong_request_is_refused_before_any_run(change, message, tmp_path):
    with pytest.raises(RegInputError, match=message):
        benchmark_lncc(tmp_path, **{"sizes": [SIZE], "windows": [3]} | change)
    assert not list(tmp_path.iterdir())


def test_times_the_floor_divides_the_total(table):
    for row in table[1]:
        assert float(row["times_the_floor"]) == pytest.approx(
            float(row["total_s_median"]) / float(row["floor_s"]), rel=0.02, abs=0.06
        )


def test_the_floor_is_twelve_bytes_a_voxel_at_the_pace_of_a_copy(monkeypatch):
    monkeypatch.setattr(module, "copy_bandwidth", lambda device: 4 * 12 * 2 * 3 * 990)
    threads = torch.get_num_threads()
    row = module.measure("separable", (2, 3, *SIZE), 3, runs=1, warmup=0, threads=threads, device="cpu")
    assert row["floor_s"] == 0.25


@pytest.mark.parametrize(("device", "found"), [("cpu", "the device cpu"), ("cuda", "no package of that name")])
def test_a_peer_that_is_not_there_costs_one_sentence(device, found, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "check_device", lambda device: None)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RegEnvError, match=f"found {found}; expected a GPU and .* MIT-licensed .*; `pip install"):
        benchmark_lncc(tmp_path, [SIZE], [3], device=device, backends=["five_conv", "fused_lncc"])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_compiled_backend_measures_the_same_loss(tmp_path):
    names = ["separable", "compiled_monai"]
    with benchmark_lncc(tmp_path, [SIZE], [3], runs=1, threads=1, backends=names).open(newline="") as file:
        values = [float(row["loss"]) for row in csv.DictReader(file)]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
