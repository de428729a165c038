"""Threads, forks and what kernels decline; everything that they do without numba, or where nothing can be written."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from common import kernels_cpu
from common.errors import RegInputError
from common.kernels_cpu import numba_found, slabs, usable
from common.lncc import lncc, lncc_mean
from common.smooth import gaussian_smooth
from common.spatial import compose, warp
from tests.lncc_oracle import random_pair
from tests.threads import set_threads

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def small_slabs(monkeypatch):
    """Every plane is worth a thread."""
    monkeypatch.setattr(kernels_cpu, "MIN_VOXELS", 1)


def fields(size: tuple[int, ...] = (5, 6, 7), seed: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """An image and two ddfs."""
    generator = torch.Generator().manual_seed(seed)
    image, *ddfs = (torch.rand(1, c, *size, generator=generator, dtype=dtype) for c in (1, 3, 3))
    return [image, *(4 * ddf - 2 for ddf in ddfs)]


def run_python(code: str, folder: Path = ROOT, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess:
    """Run code in another interpreter that imports from a folder, for ``timeout`` seconds at most."""
    command, environment = [sys.executable, "-W", "ignore", "-c", code], os.environ | environment
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.parametrize("planes", [0, 1, 2, 5, 7])
def test_slabs_cover_every_plane_once_and_in_order(planes, threads, small_slabs):
    with set_threads(threads):
        results = slabs(lambda first, last, k: (first, last, k), planes, 100, lambda k: (k,))
    assert [plane for first, last, _ in results for plane in range(first, last)] == list(range(planes))
    assert [k for *_, k in results] == list(range(max(1, min(threads, planes))))


def test_little_work_wakes_no_thread():
    with set_threads(3):
        (name,) = slabs(lambda *_: threading.current_thread().name, 50, 2 * kernels_cpu.MIN_VOXELS - 1, lambda _: ())
    assert name == threading.current_thread().name


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_an_exception_in_any_slab_reaches_the_caller_once_all_have_ended(broken, small_slabs):
    ended = []

    def kernel(first: int, last: int, k: int) -> None:
        if k == broken:
            raise ZeroDivisionError(f"slab {k}")
        ended.append(k)

    with set_threads(3), pytest.raises(ZeroDivisionError, match=f"slab {broken}"):
        slabs(kernel, 3, 100, lambda k: (k,))
    assert sorted(ended) == [k for k in range(3) if k != broken]


def test_callers_in_several_threads_get_their_own_results(small_slabs):
    found = {}

    def call(index: int) -> None:
        found[index] = slabs(lambda first, last, k: (index, first, last, k), 6, 100, lambda k: (k,))

    with set_threads(3):
        callers = [threading.Thread(target=call, args=(index,)) for index in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(timeout=60)
    assert found == {index: [(index, 2 * k, 2 * k + 2, k) for k in range(3)] for index in range(8)}


@pytest.mark.parametrize("threads", [2, 3])
def test_number_of_threads_changes_nothing_but_rounding(threads, small_slabs):
    def results(count: int) -> list[torch.Tensor]:
        with set_threads(count):
            image, first, second = (field.requires_grad_() for field in fields())
            composed = compose(first, second)
            warped = warp(image, composed, padding_mode="zeros")
            mean = lncc_mean(image, warped, 3)
            smoothed = gaussian_smooth(second, 0.7)
            gradients = torch.autograd.grad(mean + smoothed.square().mean(), (image, first, second))
        return [composed, warped, mean, smoothed, *gradients]

    torch.testing.assert_close(results(threads), results(1), rtol=1e-5, atol=1e-8)


def test_kernels_take_plain_floating_tensors_of_one_dtype_on_the_cpu():
    from monai.data import MetaTensor  # not for the interpreters below, which start faster without

    image, parameter = torch.rand(2, 3), torch.nn.Parameter(torch.rand(2))
    assert numba_found() and usable(image) and usable(image, parameter) and usable(image.double())
    assert usable(image.T, image[:0], image.expand(4, 2, 3))
    refused = {
        "mixed": (image, image.double()),
        "half": (image.half(),),
        "integers": (image.long(),),
        "complex": (image.to(torch.complex64),),
        "meta": (image.to("meta"),),
        "sparse": (image.to_sparse(),),
        "MetaTensor": (image, MetaTensor(image)),
        "negated view": (torch.imag(torch.complex(image, image).conj()),),
    }
    assert [name for name, tensors in refused.items() if usable(*tensors)] == []


def test_kernels_keep_out_of_tracing_and_functional_transforms():
    seen = []

    def probe(image: torch.Tensor) -> torch.Tensor:
        seen.append(usable(image))
        return image + 1

    image = torch.rand(2, 3)
    torch.jit.trace(probe, image, check_trace=False)
    torch.func.vmap(probe)(image)
    torch.func.grad(lambda x: probe(x).sum())(image)
    assert len(seen) == 3 and not any(seen)


@pytest.mark.slow
def test_kernels_keep_out_of_compiled_graphs():
    image = torch.rand(2, 3)
    compiled = torch.compile(lambda x: x + usable(x), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), image, rtol=0, atol=0)


def test_numba_that_does_not_load_is_named_and_done_without(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "numba":
                raise ImportError("Numba needs NumPy 2.3 or less")

    monkeypatch.delitem(sys.modules, "numba")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.warns(UserWarning, match=r"cannot be imported \(Numba needs NumPy 2.3 or less\)"):
        assert not numba_found.__wrapped__()


@pytest.mark.parametrize("switch", [0, 1])
def test_numba_that_is_switched_off_is_done_without(switch, monkeypatch):
    monkeypatch.setattr("numba.config.DISABLE_JIT", switch)
    assert numba_found.__wrapped__() == (not switch)


def test_scripted_operators_agree_with_the_kernels():
    image, first, second = fields(dtype=torch.float64)
    pairs = [
        (torch.jit.script(warp)(image, first), warp(image, first)),
        (torch.jit.script(compose)(first, second, "zeros"), compose(first, second, "zeros")),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_inference_mode_autocast_and_another_default_device_change_nothing():
    image, first, second = fields()

    def results() -> list[torch.Tensor]:
        fixed = image + 0.5 * second[:, :1]
        return [warp(image, first), compose(first, second), lncc(fixed, image, 3), gaussian_smooth(first, 1.0)]

    expected = results()
    with torch.inference_mode():
        torch.testing.assert_close(results(), expected, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(results(), expected, rtol=0, atol=0)
    with torch.device("meta"):
        torch.testing.assert_close(results(), expected, rtol=0, atol=0)


def test_without_numba_torch_gives_the_same_numbers(tmp_path):
    """Every operator and its gradients, and the explicit backend is refused in one sentence."""
    code = f"""
import sys
import torch
sys.modules["numba"] = None
from common.errors import RegInputError
from common.lncc import lncc_mean
from tests.common.test_kernels_cpu import every_operator, fields
assert not any(name.endswith("_cpu") and name != "common.kernels_cpu" for name in sys.modules if "common." in name[:7])
try:
    lncc_mean(*(field[:, :1] for field in fields()[:2]), 3, backend="cpu")
except RegInputError as error:
    print(error)
torch.save(every_operator(), {str(tmp_path / "results.pt")!r})
"""
    run = run_python(code)
    assert run.returncode == 0, run.stderr
    assert "numba missing" in run.stdout and run.stdout.count("\n") == 1
    torch.testing.assert_close(torch.load(tmp_path / "results.pt"), every_operator(), rtol=1e-9, atol=1e-12)


def every_operator() -> list[torch.Tensor]:
    """Values and gradients of all that has a kernel, in float64."""
    image, first, second = (field.requires_grad_() for field in fields(dtype=torch.float64))
    warped = warp(image, compose(first, second))
    value = lncc(image.detach().square(), warped, 3)
    smoothed = gaussian_smooth(first, 0.8)
    gradients = torch.autograd.grad(value.sum() + smoothed.square().sum(), (image, first, second))
    return [tensor.detach() for tensor in (warped, value, smoothed, *gradients)]


def test_a_forked_child_works_after_its_parent_used_threads():
    code = """
import multiprocessing
import torch
from common.spatial import warp
torch.set_num_threads(2)
image, ddf = torch.rand(1, 1, 20, 21, 22), torch.rand(1, 3, 20, 21, 22)
expected = warp(image, ddf)
def child(queue):
    torch.set_num_threads(2)
    queue.put(bool((warp(image, ddf) == expected).all()))
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,), daemon=True)
process.start()
print(queue.get(timeout=60))
process.join(60)
print(process.exitcode)
"""
    run = run_python(code)
    assert run.stdout.split() == ["True", "0"], run.stderr


def test_a_place_where_nothing_can_be_written_only_costs_the_cache(tmp_path):
    package = tmp_path / "common"
    shutil.copytree(ROOT / "common", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__pycache__").write_text("no folder, so nothing can be put here, by root neither")
    code = """
import torch
from common import smooth_cpu
from common.smooth import gaussian_smooth
print(smooth_cpu.__file__)
field = torch.arange(120.0).view(1, 1, 4, 5, 6)
print(gaussian_smooth(field, 0.5).sum().item())
"""
    run = run_python(code, tmp_path, HOME="/dev/null", XDG_CACHE_HOME="/dev/null", NUMBA_CACHE_DIR="")
    assert run.returncode == 0, run.stderr
    place, total = run.stdout.split()
    assert Path(place).parent == package
    expected = gaussian_smooth(torch.arange(120.0).view(1, 1, 4, 5, 6), 0.5).sum()
    assert float(total) == pytest.approx(float(expected), rel=1e-6)


def test_explicit_backend_is_refused_for_what_it_cannot_take(monkeypatch):
    monkeypatch.setattr("common.lncc.usable", lambda *_: False)
    with pytest.raises(RegInputError, match=r"backend 'cpu' .* use 'auto'"):
        lncc(*random_pair(1, 1, 5, 5, 5), 3, backend="cpu")
