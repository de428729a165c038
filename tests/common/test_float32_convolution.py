"""Convolutions in full float32: torch's own values and gradients, whatever a process allows its libraries."""

import threading

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import float32_convolution, smooth
from common.float32_convolution import convolve, convolve_adjoint, full_float32
from common.geometry import multiply
from common.lncc import lncc_mean
from common.ssim import ssim
from tests.lncc_oracle import random_pair

LIBRARIES = float32_convolution.LIBRARIES
WATCHED = {F: ("conv2d", "conv3d"), torch.nn.grad: ("conv2d_input", "conv3d_input"), torch: ("einsum",)}
CASES = [((2, 3, 7, 9), (4, 3, 3, 5), [1, 0], 1), ((1, 4, 6, 5, 7), (4, 1, 3, 3, 3), [1, 1, 1], 4)]


def settings() -> list[str]:
    """What torch lets each library do with float32."""
    return [library.fp32_precision for library in LIBRARIES]


@pytest.fixture
def tf32():
    """A process that allows the libraries what is quick: TF32, or bfloat16 where a library has no other."""
    before = settings()
    allowed = ["tf32", "tf32", "bf16", "bf16"]
    for library, precision in zip(LIBRARIES, allowed, strict=True):
        library.fp32_precision = precision
    yield allowed
    assert settings() == allowed
    for library, precision in zip(LIBRARIES, before, strict=True):
        library.fp32_precision = precision


@pytest.fixture
def seen(tf32, monkeypatch):
    """Every convolution, gradient of one and matrix product that is called, and the settings it ran under."""
    calls = []

    def watched(name, function):
        return lambda *args, **kwargs: calls.append((name, settings())) or function(*args, **kwargs)

    for module, names in WATCHED.items():
        for name in names:
            monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    return calls


def ran_in_float32(seen: list, *names: str) -> None:
    """Each of these ran so often, and none with less than float32."""
    assert [name for name, _ in seen] == list(names)
    assert all(found == ["ieee"] * len(LIBRARIES) for _, found in seen)


@pytest.mark.parametrize("shape", [(1, 1, 9, 8, 7), (2, 1, 9, 8)])
@pytest.mark.parametrize(("backend", "count"), [("five_conv", 5), ("group_conv", 1)])
def test_window_sums_of_lncc_and_their_gradients_take_no_tf32(backend, count, shape, seen):
    fixed, warped = random_pair(*shape)
    torch.autograd.backward(lncc_mean(fixed, warped, 3, backend=backend), inputs=(fixed, warped))
    name = f"conv{len(shape) - 2}d"
    ran_in_float32(seen, *[name] * count, *[f"{name}_input"] * count)


def test_window_means_of_ssim_and_their_gradients_take_no_tf32(seen):
    fixed, warped = random_pair(1, 1, 12, 13, 14)
    ssim(fixed, warped).mean().backward()
    ran_in_float32(seen, *["conv3d"] * 3, *["conv3d_input"] * 3)


def test_smoothing_and_its_gradient_take_no_tf32(seen, monkeypatch):
    monkeypatch.setattr(smooth, "usable", lambda *_: False)
    field = torch.rand(1, 3, 9, 8, 7, requires_grad=True)
    smooth.gaussian_smooth(field, 1.0).square().sum().backward()
    ran_in_float32(seen, *["conv3d"] * 6)


def test_second_derivatives_take_no_tf32(seen):
    fixed, warped = random_pair(1, 1, 7, 6, 5)
    (first,) = torch.autograd.grad(lncc_mean(fixed, warped, 3, backend="group_conv"), warped, create_graph=True)
    seen.clear()
    torch.autograd.grad(first.square().sum(), warped)
    ran_in_float32(seen, "conv3d", "conv3d_input")


def test_matrices_meet_coordinates_in_float32(seen):
    with torch.autocast("cpu", torch.bfloat16):
        found = multiply(np.eye(3), torch.rand(1, 3, 4, 5, 6))
    assert found.dtype == torch.float32
    ran_in_float32(seen, "einsum")


@pytest.mark.parametrize(("shape", "weight", "padding", "groups"), CASES)
def test_bits_are_those_of_torch(shape, weight, padding, groups):
    results = []
    for ours in (True, False):
        fields = torch.rand(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        kernel = torch.rand(weight, generator=torch.Generator().manual_seed(1))
        plain = F.conv3d if len(shape) == 5 else F.conv2d
        options = (padding, groups) if ours else (None, 1, padding, 1, groups)
        value = (convolve if ours else plain)(fields, kernel, *options)
        value.backward(torch.rand(value.shape, generator=torch.Generator().manual_seed(2)))
        results.append((value, fields.grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize(("shape", "weight", "padding", "groups"), CASES)
def test_gradients_of_both_orders(shape, weight, padding, groups):
    fields = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    kernel = torch.rand(weight, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: convolve(x, kernel, padding, groups), fields)
    assert torch.autograd.gradgradcheck(lambda x: convolve(x, kernel, padding, groups).square(), fields)


@pytest.mark.parametrize(("shape", "weight", "padding", "groups"), CASES)
def test_compilers_are_told_the_truth(shape, weight, padding, groups):
    fields, kernel = torch.rand(shape).requires_grad_(), torch.rand(weight)
    torch.library.opcheck(convolve, (fields, kernel, padding, groups))
    upstream = convolve(fields, kernel, padding, groups).detach().requires_grad_()
    torch.library.opcheck(convolve_adjoint, (upstream, kernel, list(shape), padding, groups))


def test_settings_return_after_an_error(tf32):
    with pytest.raises(KeyError), full_float32():
        raise KeyError


def test_settings_return_when_the_last_thread_has_left(tf32):
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with full_float32():
            entered.set()
            leave.wait()

    with full_float32():
        other = threading.Thread(target=stay)
        other.start()
        entered.wait()
    assert settings() == ["ieee"] * len(LIBRARIES)
    leave.set()
    other.join()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["five_conv", "group_conv"])
def test_statistics_on_a_gpu_are_float32_where_tf32_is_allowed(backend, tf32):
    fixed, warped = (image.detach().cuda() for image in random_pair(1, 1, 24, 25, 26))
    results = []
    for dtype in (torch.float32, torch.float64):
        images = fixed.to(dtype), warped.to(dtype).requires_grad_()
        value = lncc_mean(*images, 9, backend=backend)
        results.append((value.double(), torch.autograd.grad(value, images[1])[0].double()))
    (value, gradient), (exact, expected) = results
    torch.testing.assert_close(value, exact, rtol=1e-6, atol=0)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-5
