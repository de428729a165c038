"""SSIM by compiled loops: torch's values and gradients, and what it cannot do said."""

import pytest
import torch

from common import ssim as module
from common.kernels_cpu import numba_found
from common.ssim import SSIMLoss, ssim
from tests.threads import set_threads

pytestmark = pytest.mark.skipif(not numba_found(), reason="numba is not there, or NUMBA_DISABLE_JIT switches it off")
WINDOWS = [("gaussian", 11), ("gaussian", 5), ("box", 7), ("box", 3)]


@pytest.fixture(autouse=True)
def loops_whatever_the_size(monkeypatch):
    monkeypatch.setattr(module, "MIN_VOXELS", 0)


def images(*shape, dtype=torch.float64):
    """Two images that resemble each other, ready for gradients."""
    a, b = torch.rand(2, *shape, dtype=dtype, generator=torch.Generator().manual_seed(5))
    return a.requires_grad_(), (0.6 * a + 0.4 * b).detach().requires_grad_()


def by_torch(monkeypatch, function):
    """What a function gives without the loops."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIN_VOXELS", float("inf"))
        return function()


@pytest.mark.parametrize(("window", "kernel_size"), WINDOWS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_map_and_gradients_are_torchs(window, kernel_size, dtype, tolerance, monkeypatch):
    """The upstream gradient differs from voxel to voxel; batch and channels count apart."""
    a, b = images(2, 3, 13, 15, 12, dtype=dtype)

    def results():
        value = ssim(a, b, window=window, kernel_size=kernel_size, data_range=1.3)
        weight = torch.linspace(-1, 2, value.numel(), dtype=dtype).view_as(value)
        return value.detach(), *torch.autograd.grad((value * weight).sum(), (a, b))

    found, expected = results(), by_torch(monkeypatch, results)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))


def test_gradient_is_the_finite_difference():
    a, b = images(1, 1, 5, 6, 5)
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, kernel_size=3, sigma=0.8), (a, b))


@pytest.mark.parametrize("which", [0, 1])
def test_gradient_by_one_image_alone_is_that_of_both(which):
    pair = images(1, 1, 12, 13, 12)
    both = torch.autograd.grad(SSIMLoss()(*pair), pair)[which]
    alone = [image if k == which else image.detach() for k, image in enumerate(pair)]
    torch.testing.assert_close(torch.autograd.grad(SSIMLoss()(*alone), alone[which])[0], both, rtol=0, atol=1e-15)


def test_threads_change_nothing():
    a, b = images(1, 2, 24, 30, 30, dtype=torch.float32)
    results = []
    for count in (1, 2):
        with set_threads(count):
            results.append(torch.autograd.grad(SSIMLoss()(a, b), (a, b)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_what_is_no_number_stays_where_its_windows_are():
    a, b = (image.detach().clone() for image in images(1, 1, 14, 14, 14))
    b[0, 0, 0, 0, 0] = torch.nan
    value = ssim(a, b)
    assert value.isnan().sum() == 1 and value[0, 0, 0, 0, 0].isnan()


def test_strides_do_not_matter():
    a, b = images(1, 1, 12, 13, 14)
    turned = [image.detach().transpose(2, 4).contiguous().transpose(2, 4) for image in (a, b)]
    assert torch.equal(ssim(*turned), ssim(a, b))


def test_second_derivative_is_refused():
    a, b = images(1, 1, 12, 12, 12)
    (gradient,) = torch.autograd.grad(SSIMLoss()(a, b), b, create_graph=True)
    with pytest.raises(RuntimeError, match="SSIM by compiled loops has no second derivative"):
        gradient.sum().backward()
