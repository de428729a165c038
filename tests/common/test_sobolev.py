import math

import pytest
import torch
from torch import Tensor

from common.sobolev import apply_kernel, apply_operator, operator_energy, operator_symbol, sobolev_gradient

SIZES = [(8, 8, 8), (6, 9, 12), (10, 7)]
ALPHAS = [0.01, 0.005, 0.001]


def random_field(*size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, len(size), *size, generator=generator, dtype=torch.float64)


def inner(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_symbol_is_the_fourier_transform_of_the_seven_point_stencil(size, alpha):
    """Of an impulse, whose answer is written out: the middle, and two neighbors along each axis around the torus."""
    stencil = torch.zeros(1, 1, *size, dtype=torch.float64)
    origin = (0,) * len(size)
    stencil[0, 0][origin] = 1 + 2 * alpha * sum(n**2 for n in size)
    for axis, n in enumerate(size):
        for step in (1, n - 1):
            place = list(origin)
            place[axis] = step
            stencil[0, 0][tuple(place)] -= alpha * n**2
    spectrum = torch.fft.rfftn(stencil[0, 0])
    expected = operator_symbol(torch.Size(size), alpha, stencil)
    assert (spectrum.real - expected).abs().max() < 1e-12 * expected.max() and spectrum.imag.abs().max() < 1e-12
    impulse = torch.zeros_like(stencil)
    impulse[0, 0][origin] = 1
    assert (apply_operator(impulse, alpha) - stencil).abs().max() < 1e-12 * stencil.max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_kernel_undoes_the_operator_applied_twice(size, alpha):
    field = random_field(*size)
    assert (apply_kernel(apply_operator(apply_operator(field, alpha), alpha), alpha) - field).abs().max() < 1e-12
    assert (apply_operator(apply_operator(apply_kernel(field, alpha), alpha), alpha) - field).abs().max() < 1e-12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("apply", [apply_operator, apply_kernel])
def test_operator_and_kernel_are_symmetric_and_positive_definite(apply, size):
    a, b = random_field(*size), random_field(*size, seed=1)
    assert inner(a, apply(b, 0.01)) == pytest.approx(inner(apply(a, 0.01), b), rel=1e-10)
    assert inner(a, apply(a, 0.01)) > 0 < inner(b, apply(b, 0.01))


@pytest.mark.parametrize("apply", [apply_operator, apply_kernel])
def test_a_constant_stays_as_it_is(apply):
    field = torch.full((1, 3, 6, 9, 12), 2.5, dtype=torch.float64)
    torch.testing.assert_close(apply(field, 0.01), field)


@pytest.mark.parametrize("n", [16, 32])
def test_a_wave_is_scaled_by_what_its_length_in_the_unit_cube_says(n):
    """L of one period is 1 + alpha (2 pi)^2, but for what central differences leave: the same on a finer grid."""
    wave = (2 * math.pi * torch.arange(n, dtype=torch.float64) / n).sin().view(1, 1, n, 1, 1).expand(1, 1, n, 8, 6)
    factor = 1 + 0.01 * (2 * math.pi) ** 2
    torch.testing.assert_close(apply_operator(wave, 0.01), factor * wave, rtol=5e-3, atol=1e-12)
    torch.testing.assert_close(apply_kernel(wave, 0.01), wave / factor**2, rtol=1e-2, atol=1e-12)


def test_a_larger_alpha_is_smoother():
    field = random_field(12, 10, 8)
    rough = [float(apply_kernel(field, alpha).diff(dim=2).square().mean()) for alpha in ALPHAS]
    assert rough == sorted(rough) and rough[0] < rough[2] / 4
    assert torch.allclose(apply_kernel(field, 0.0), field, atol=1e-12)


def test_energy_is_the_sum_of_squares_for_each_of_the_batch():
    field = random_field(6, 9, 12)
    torch.testing.assert_close(operator_energy(field, 0.0), field.square().sum(dim=(1, 2, 3, 4)))
    twice = apply_operator(apply_operator(field, 0.01), 0.01)  # |L v|^2 = <v, L* L v>
    torch.testing.assert_close(operator_energy(field, 0.01), (field * twice).sum(dim=(1, 2, 3, 4)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_gradient_of_the_energy_in_its_own_space_is_the_velocity(size, alpha):
    """K grad(weight |L v|^2) = 2 weight v, the second term of eq. 4 of arXiv 2404.04244 after division by 2 weight."""
    svf, weight = random_field(*size).requires_grad_(), 1e-6
    (weight * operator_energy(sobolev_gradient(svf, alpha), alpha).sum()).backward()
    assert (svf.grad - 2 * weight * svf).abs().max() < 1e-12 * weight


def test_sobolev_gradient_keeps_values_and_smooths_what_comes_back():
    svf = random_field(6, 9, 12).requires_grad_()
    upstream = random_field(6, 9, 12, seed=1)
    passed = sobolev_gradient(svf, 0.005)
    assert torch.equal(passed, svf)
    passed.backward(upstream)
    torch.testing.assert_close(svf.grad, apply_kernel(upstream, 0.005))


def test_gradients_of_gradients_pass():
    svf = random_field(4, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: apply_kernel(v, 0.01), svf)
    (grad,) = torch.autograd.grad(sobolev_gradient(svf, 0.01).pow(3).sum(), svf, create_graph=True)
    grad.sum().backward()
    torch.testing.assert_close(svf.grad, apply_kernel(6 * svf, 0.01))  # by the node once more; K 1 = 1


@pytest.mark.parametrize("apply", [apply_operator, apply_kernel])
def test_precision_is_float32_under_autocast_and_for_half_input(apply):
    field = random_field(16, 16, 16).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(apply(field, 0.01), apply(field.double(), 0.01).float(), rtol=1e-4, atol=1e-4)
        assert apply(field.bfloat16(), 0.01).dtype == torch.float32


def test_the_gradient_of_a_half_velocity_is_half():
    svf = random_field(8, 8, 8).bfloat16().requires_grad_()
    sobolev_gradient(svf, 0.01).float().sum().backward()
    assert svf.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("alpha", [-1, -1e-3, math.nan])
@pytest.mark.parametrize("apply", [apply_operator, apply_kernel, operator_energy, sobolev_gradient])
def test_a_negative_alpha_is_refused(apply, alpha):
    with pytest.raises(ValueError, match=f"got {alpha}"):
        apply(random_field(4, 4), alpha)
