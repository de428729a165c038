"""Gaussian smoothing against scipy, its own adjoint, and the kernel against the convolution."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from common import smooth
from common.smooth import REACH, gaussian_smooth, gaussian_taps

SIZES = [(5, 6, 7), (1, 4, 9), (3, 1, 1), (6, 7)]


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["kernel", "convolution"])
def path(request, monkeypatch):
    """Both ways in which volumes are filtered."""
    if request.param == "convolution":
        monkeypatch.setattr(smooth, "usable", lambda *_: False)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.17, 0.5, 1.0, 2.3, 10.0])
def test_taps_are_a_sampled_gaussian_of_sum_one(sigma):
    taps = gaussian_taps(sigma)
    radius = len(taps) // 2
    assert len(taps) == 2 * radius + 1 and float(taps.sum()) == pytest.approx(1, abs=1e-15)
    assert abs(radius - REACH * sigma) <= 0.5
    ratios = (taps / taps[radius]).numpy()
    np.testing.assert_allclose(ratios, np.exp(-(np.arange(-radius, radius + 1) ** 2) / max(2 * sigma**2, 1e-9)))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.7, 6.0])
@pytest.mark.parametrize("size", SIZES)
def test_value_is_scipys(size, sigma, path):
    """Windows wider than the field, and every channel of every item alike."""
    field = noise(2, 3, *size)
    expected = gaussian_filter(
        field.numpy(), sigma, mode="constant", radius=len(gaussian_taps(sigma)) // 2, axes=tuple(range(2, field.ndim))
    )
    torch.testing.assert_close(gaussian_smooth(field, sigma), torch.from_numpy(expected), rtol=0, atol=1e-14)


def test_kernel_and_convolution_agree_in_float32(monkeypatch):
    field = noise(2, 3, 7, 8, 9, dtype=torch.float32)
    found = gaussian_smooth(field, 1.3)
    monkeypatch.setattr(smooth, "usable", lambda *_: False)
    torch.testing.assert_close(found, gaussian_smooth(field, 1.3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_the_filter_is_its_own_adjoint_and_its_gradient_itself(size, path):
    field, other = noise(1, 2, *size).requires_grad_(), noise(1, 2, *size, seed=1)
    smoothed = gaussian_smooth(field, 1.1)
    assert float((smoothed * other).sum()) == pytest.approx(float((field * gaussian_smooth(other, 1.1)).sum()))
    (gradient,) = torch.autograd.grad(smoothed, field, other)
    torch.testing.assert_close(gradient, gaussian_smooth(other, 1.1), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(3, 2, 4), (3, 4)])
def test_first_and_second_gradients_are_the_finite_differences(size, path):
    field = noise(1, 2, *size).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: gaussian_smooth(f, 0.8), field)
    assert torch.autograd.gradgradcheck(lambda f: gaussian_smooth(f, 0.8).square(), field)


def test_strides_do_not_matter(path):
    field = noise(2, 3, 4, 5, 6)
    turned = field.transpose(1, 4).contiguous().transpose(1, 4)
    torch.testing.assert_close(gaussian_smooth(turned, 1.0), gaussian_smooth(field, 1.0), rtol=0, atol=1e-15)
    expanded = field[:1, :1].expand(2, 3, -1, -1, -1)
    expected = gaussian_smooth(field[:1, :1].contiguous(), 1.0).expand_as(expanded)
    torch.testing.assert_close(gaussian_smooth(expanded, 1.0), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 6), (1, 0, 4, 5, 6), (1, 3, 0, 5, 6)])
def test_an_empty_field_stays_empty(shape):
    assert gaussian_smooth(torch.zeros(shape), 1.0).shape == shape


def test_autocast_keeps_the_precision_of_a_field(path):
    field = noise(1, 2, 5, 6, 7, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        smoothed = gaussian_smooth(field, 1.0)
    torch.testing.assert_close(smoothed, gaussian_smooth(field, 1.0), rtol=0, atol=0)


@pytest.mark.parametrize("sigma", [0, 0.0, 0.16])
def test_sigma_below_a_sixth_of_a_voxel_changes_nothing(sigma):
    field = noise(1, 1, 3, 4, 5)
    torch.testing.assert_close(gaussian_smooth(field, sigma), field, rtol=0, atol=0)


@pytest.mark.parametrize("sigma", [-1.0, -1e-9, float("nan"), float("inf")])
def test_sigma_that_is_no_width_is_refused(sigma):
    with pytest.raises(ValueError, match=f"0 or more, got {sigma}"):
        gaussian_smooth(torch.zeros(1, 1, 3, 4, 5), sigma)
