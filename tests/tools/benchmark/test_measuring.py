"""What all measurements share."""

import time

import pytest
import torch

from tools.benchmark import measuring as benchmark


def test_summary_is_median_and_interquartile_range():
    assert benchmark.summary("t", [5.0, 1.0, 2.0, 3.0, 4.0]) == {"t_median": 3.0, "t_iqr": 2.0}


def growth_of_a_tensor(mebibytes: int) -> dict:
    """What the benchmark sees of a tensor that is gone when it looks, MiB."""
    before = benchmark.start_memory("cpu")
    torch.ones(mebibytes * 2**18).sum()
    return {"mib": (benchmark.peak_memory("cpu") - before) / 2**20}


def test_peak_memory_counts_what_was_freed_again():
    # In a process of its own, like every measurement: where the system cannot reset the peak (containers), the tests
    # before this one have already set a higher one.
    assert benchmark.apart(growth_of_a_tensor, 256)["mib"] == pytest.approx(256, abs=32)


def test_bandwidth_counts_what_is_read_and_what_is_written(monkeypatch):
    moments = iter(range(0, 100, 2))  # each copy takes two seconds
    monkeypatch.setattr(benchmark, "clock", lambda device: next(moments))
    assert benchmark.copy_bandwidth("cpu", mebibytes=3) == 2 * 3 * 2**20 / 2


def test_forward_and_backward_are_timed_apart():
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            time.sleep(0.02)
            return x.sum()

        @staticmethod
        def backward(ctx, gradient):
            time.sleep(0.06)
            return gradient.expand(4)

    forward, backward, value = benchmark.time_once(lambda fixed, warped: Slow.apply(warped), None, torch.ones(4), "cpu")
    assert 0.02 <= forward < 0.06 <= backward and value == 4
