"""The one command for a GPU, run on the CPU at tiny sizes."""

import csv

import pytest

from common.errors import RegInputError
from tools.benchmark import gpu
from tools.benchmark.gpu import PARTS, PLANS, benchmark_gpu, gpu_tests
from tools.benchmark.lncc import LNCC_BACKENDS

OPTIONS = {"sizes": "small", "threads": 1, "device": "cpu", "command": "regbundles benchmark gpu", "commit": "abc"}


def rows(folder, part):
    """Of a part's csv."""
    (path,) = folder.glob(f"{part}-cpu-1threads-*.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_measures_goes_on_and_says_what_is_left(tmp_path):
    said = []
    options = OPTIONS | {"parts": ["lncc", "tests"], "say": said.append}
    assert benchmark_gpu(tmp_path, 2.0, **options) == ["nothing is left"]
    measured = rows(tmp_path, "lncc")
    assert [(r["backend"], r["size"], r["window"], r["batch"]) for r in measured] == [
        (backend, *grid)
        for grid in (("9x10x11", "3", "1x1"), ("8x8x8", "3", "2x2"))
        for backend in ("five_conv", "separable")
    ]
    assert all(row["commit"] == "abc" and float(row["times_faster_than_five_conv"]) > 0 for row in measured)
    assert [(row["passed"], row["failed"]) for row in rows(tmp_path, "tests")] == [("2", "0")]
    said.clear()
    assert benchmark_gpu(tmp_path, 2.0, **options) == ["nothing is left"] and not said
    last = benchmark_gpu(tmp_path, 0.1, **OPTIONS | {"parts": ["epoch"], "say": said.append})
    assert last[0].startswith("left: 3 (epoch VoxelMorph-1 five_conv;") and "same folder: regbundles" in last[1]


@pytest.mark.slow
def test_every_part_leaves_its_table(tmp_path):
    assert benchmark_gpu(tmp_path, 6.0, **OPTIONS) == ["nothing is left"]
    assert len(list(tmp_path.iterdir())) == len(PARTS) + 1  # the picture of the curves
    assert [row["backend"] for row in rows(tmp_path, "epoch")] == ["five_conv", "group_conv", "auto"]
    assert [row["network"] for row in rows(tmp_path, "network")] == ["VoxelMorph-1"]
    assert len(rows(tmp_path, "curves")) == 8
    profile = {row["name"]: row for row in rows(tmp_path, "profile")}
    assert float(profile["plain"]["loss_difference"]) == 0
    assert float(profile["fused Adam"]["loss_difference"]) < 1e-3
    assert float(profile["aten::convolution_backward"]["percent"]) > 0


def test_a_gpu_is_asked_for_all_of_it_within_eight_files():
    plan = PLANS["full"]
    assert plan.lncc[:2] == (((1, 1, 160, 192, 224), 9), ((2, 16, 128, 128, 128), 7)) and len(set(plan.lncc)) == 10
    assert set(plan.backends) == set(LNCC_BACKENDS) - {"cpu"} and plan.backends[0] == "triton"
    assert len(PARTS) + len(("failures", "picture")) <= 8


def test_files_of_gpu_tests_are_found():
    assert {"tests/common/test_lncc_cuda.py", "tests/common/test_float32_convolution.py"} <= set(gpu_tests())
    assert "tests/tools/benchmark/test_cases.py" not in gpu_tests()


def test_failing_tests_are_counted_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "REPOSITORY", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2\n@pytest.mark.skip\ndef test_c(): pass\n"
    )
    row = gpu.run_tests("", ("test_it.py",))
    assert (row["passed"], row["failed"], row["skipped"]) == (1, 1, 1)
    assert row["reasons"].startswith("test_b: ") and "assert 1 == 2" in row["reasons"]


@pytest.mark.parametrize("change", [{"sizes": "huge"}, {"parts": ["lncc", "all"]}, {"minutes": 0}])
def test_a_wrong_request_is_refused(change, tmp_path):
    with pytest.raises(RegInputError, match="expected minutes above 0"):
        benchmark_gpu(tmp_path, **OPTIONS | change)
    assert not list(tmp_path.iterdir())
