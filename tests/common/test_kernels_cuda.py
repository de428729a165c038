"""When triton's kernels are chosen, what happens where they cannot be built, and their tests in its interpreter."""

import importlib.util
import re
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from common import kernels_cuda
from common.errors import RegInputError
from common.kernels_cuda import or_else, triton_found, usable
from common.lncc import lncc_mean
from tests.common.test_kernels_cpu import run_python
from tests.lncc_oracle import random_pair

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
INTERPRET = """
import sys
import pytest
sys.exit(pytest.main(["-v", "-x", "-p", "no:cacheprovider", "-m", {marks!r}, "tests/common/test_lncc_cuda.py"]))
"""


@pytest.fixture
def no_failures(monkeypatch):
    """A process in which no kernel has failed yet."""
    monkeypatch.setattr(kernels_cuda, "failures", [])


@needs_triton
@pytest.mark.parametrize(("marks", "least"), [("not slow", 12), pytest.param("slow", 100, marks=pytest.mark.slow)])
def test_kernels_give_their_results_in_tritons_interpreter(marks, least):
    """A process of its own, because triton reads the variable when it is imported."""
    run = run_python(INTERPRET.format(marks=marks), timeout=3600, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert run.returncode == 0, run.stdout
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= least and "skipped" not in run.stdout


def test_kernels_are_not_for_the_cpu():
    image = torch.rand(2, 3)
    assert not usable(image)
    with pytest.raises(
        RegInputError, match=r"'triton' for images on cpu with triton (installed|missing); expected a GPU"
    ):
        lncc_mean(*random_pair(1, 1, 5, 5, 5), 3, backend="triton")


def test_kernels_decline_what_is_no_plain_array_of_one_device(monkeypatch):
    """Whatever the device: the interpreter, which takes all of them, stands in for a GPU."""
    monkeypatch.setattr(kernels_cuda, "triton_found", lambda: True)
    monkeypatch.setattr(kernels_cuda, "interpreted", lambda: True)
    image = torch.rand(2, 3)
    assert usable(image, image.T)
    assert not any(usable(*of) for of in ((image, image.double()), (image.half(),), (image, image.to("meta"))))


def test_kernels_that_cannot_be_built_are_named_once_and_done_without(no_failures):
    tried = []

    def broken(*args):
        tried.append(args)
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    run = or_else(broken, lambda *args: sum(args))
    with pytest.warns(UserWarning, match=r"do not run here \(RuntimeError: Failed to find C compiler.\); torch does"):
        assert run(1, 2) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(3, 4) == 7 and or_else(broken, lambda *args: 5)() == 5
    assert tried == [(1, 2)]


def test_a_lack_of_memory_is_no_reason_to_do_without(no_failures):
    def broken():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        or_else(broken, lambda: None)()
    assert kernels_cuda.failures == []


def test_auto_on_a_gpu_is_triton_and_gives_way_to_short_sums(no_failures, monkeypatch):
    """The CPU stands in for the GPU: the image says that it is on one."""
    from common import lncc

    chosen = []
    monkeypatch.setattr(kernels_cuda, "usable", lambda *_: True)
    monkeypatch.setattr(lncc, "usable", lambda *_: False)
    monkeypatch.setattr(lncc, "fused", lambda *images, **outputs: chosen.append(images[0].shape) or 1 / 0)
    fixed, warped = (image.detach()[0] for image in random_pair(1, 2, 5, 5, 5))
    run = lncc.own_gradient("auto", SimpleNamespace(is_cuda=True, device=torch.device("cuda")), warped)
    formula = lncc.prepare(fixed[None], warped[None], 3, True, 1e-5, "product", "auto")[2]
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        total = run(fixed, warped, 3, formula)
    assert chosen == [(2, 5, 5, 5)]
    expected = lncc_mean(fixed[None], warped[None], 3, backend="separable") * fixed.numel()
    torch.testing.assert_close(total.float(), expected)


def test_triton_that_does_not_load_is_named_and_done_without(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "triton":
                raise ImportError("libtriton.so: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.warns(UserWarning, match=r"cannot be imported \(libtriton.so: cannot open"):
        assert not triton_found.__wrapped__()


def test_without_triton_nothing_is_missed(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert not triton_found.__wrapped__()
