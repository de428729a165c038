"""The table of compiled loops beside torch, on a tiny grid."""

import csv

import pytest
import torch

from common.kernels_cpu import numba_found
from tools.benchmark.kernels import OPERATORS, benchmark_kernels, case


def test_every_operator_has_a_gradient_to_time():
    for operator in OPERATORS:
        function, inputs = case(operator, (16, 17, 18), "cpu", "auto")
        inputs.requires_grad_()
        (gradient,) = torch.autograd.grad(function(inputs).sum(), inputs)
        assert gradient.shape == inputs.shape and torch.isfinite(gradient).all() and gradient.any()


@pytest.mark.slow
@pytest.mark.skipif(not numba_found(), reason="numba is not installed")
def test_a_row_for_either_form_of_every_operator(tmp_path):
    path = benchmark_kernels(tmp_path, (16, 16, 16), runs=2, warmup=1, threads=1, command="here")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["operator"], row["backend"]) for row in rows] == [(o, b) for o in OPERATORS for b in ("torch", "cpu")]
    for torch_row, row in zip(rows[::2], rows[1::2], strict=True):
        ratio = float(torch_row["total_s_median"]) / float(row["total_s_median"])
        assert float(row["times_faster_than_torch"]) == pytest.approx(ratio, abs=0.06)
