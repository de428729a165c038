import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter, map_coordinates

from common.flow import integrate, integrate_semi_lagrangian, invert
from common.spatial import compose, identity_grid
from tests.common.test_spatial import affine_field

GENERATOR = np.array([[0.05, 0.12, -0.03], [-0.1, 0.02, 0.06], [0.04, -0.05, 0.06]])  # |u| up to 2.6 voxels at 33^3
INTEGRATORS = {"squaring": integrate, "semi_lagrangian": lambda v: integrate_semi_lagrangian(v, 10, 5)}


def smooth_velocity(size: tuple[int, ...], largest: float, seed: int = 0) -> torch.Tensor:
    """Random smooth svf (1, N, *size), float64, at most ``largest`` voxels, at rest near the faces."""
    rng = np.random.default_rng(seed)
    window = np.ones(size)
    for axis, n in enumerate(size):
        shape = [1] * len(size)
        shape[axis] = n
        window = window * np.sin(np.pi * (np.arange(n) + 0.5) / n).reshape(shape) ** 2
    noise = np.stack([gaussian_filter(rng.standard_normal(size), 3) * window for _ in size])
    return torch.from_numpy(largest * noise / np.abs(noise).max())[None]


def interior(field: torch.Tensor, margin: int) -> torch.Tensor:
    return field[(slice(None), slice(None), *[slice(margin, -margin)] * (field.ndim - 2))]


@pytest.mark.parametrize("name", INTEGRATORS)
@pytest.mark.parametrize("size", [(9, 9), (9, 9, 9)])
def test_zero_velocity_stays_where_it_is(name, size):
    svf = torch.zeros(1, len(size), *size)
    torch.testing.assert_close(INTEGRATORS[name](svf), svf)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_constant_velocity_is_a_translation(name):
    svf = torch.tensor([0.7, -1.3, 0.2]).view(1, 3, 1, 1, 1).expand(1, 3, 8, 9, 10)
    torch.testing.assert_close(INTEGRATORS[name](svf), svf.clone(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_linear_velocity_flows_to_the_matrix_exponential(name):
    exact = affine_field(expm(GENERATOR) - np.eye(3), (33, 33, 33))
    error = interior(INTEGRATORS[name](affine_field(GENERATOR, (33, 33, 33))) - exact, 5).abs().max()
    assert error <= 5e-3


def test_squaring_is_first_order_in_the_number_of_steps():
    exact = affine_field(expm(GENERATOR) - np.eye(3), (33, 33, 33))
    svf = affine_field(GENERATOR, (33, 33, 33))
    errors = [float(interior(integrate(svf, n) - exact, 5).abs().max()) for n in (4, 5, 6, 7)]
    assert all(1.9 < a / b < 2.1 for a, b in pairwise(errors)), errors


def test_seven_squarings_are_made_unless_told():
    svf = affine_field(GENERATOR, (9, 9, 9))
    assert torch.equal(integrate(svf), integrate(svf, 7)) and not torch.equal(integrate(svf), integrate(svf, 6))


def test_semi_lagrangian_is_second_order_in_the_time_step():
    exact = affine_field(expm(GENERATOR) - np.eye(3), (33, 33, 33))
    svf = affine_field(GENERATOR, (33, 33, 33))
    errors = [float(interior(integrate_semi_lagrangian(svf, n, 6) - exact, 9).abs().max()) for n in (2, 4, 8)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(1.8 < order < 2.2 for order in orders), orders


@pytest.mark.parametrize("name", INTEGRATORS)
def test_smooth_velocity_follows_the_trajectories_of_an_adaptive_ode_solver(name):
    size = (24, 24, 24)
    svf = smooth_velocity(size, largest=3)
    starts = identity_grid(size, svf)[0, :, 4:-4:3, 4:-4:3, 4:-4:3].reshape(3, -1).double().numpy()

    def velocity(_, points):
        points = points.reshape(3, -1)
        return np.concatenate([map_coordinates(v.numpy(), points, order=1, mode="nearest") for v in svf[0]])

    ends = solve_ivp(velocity, (0, 1), starts.ravel(), rtol=1e-6, atol=1e-6).y[:, -1].reshape(3, -1)
    ddf = INTEGRATORS[name](svf)[0, :, 4:-4:3, 4:-4:3, 4:-4:3].reshape(3, -1).numpy()
    error = np.abs(ddf - (ends - starts))
    assert error.max() <= 0.15 and error.mean() <= 0.03, (error.max(), error.mean())


@pytest.mark.parametrize("name", INTEGRATORS)
def test_reversed_velocity_gives_the_inverse(name):
    svf = smooth_velocity((24, 24, 24), largest=3)
    residual = interior(compose(INTEGRATORS[name](svf), INTEGRATORS[name](-svf)), 3)
    assert residual.abs().max() <= 0.2 and residual.abs().mean() <= 0.02


def test_one_turn_of_a_rotation_returns_to_the_start():
    generator = 2 * math.pi * np.array([[0, 1], [-1, 0]])
    ddf = integrate_semi_lagrangian(affine_field(generator, (41, 41)), steps=200, iterations=5)
    assert interior(ddf, 16).abs().max() <= 0.02  # farther out the border's clipped velocity comes in


@pytest.mark.parametrize("size", [(24, 24), (24, 24, 24)])
def test_inverse_undoes_a_smooth_field_in_both_orders(size):
    """The order that is solved for is exact to the tolerance; the other one shows the linear interpolation."""
    ddf = integrate(smooth_velocity(size, largest=1.5))
    inverse = invert(ddf, tolerance=1e-4)
    assert interior(compose(ddf, inverse), 3).abs().max() <= 1e-3
    other = interior(compose(inverse, ddf), 3).abs()
    assert other.max() <= 0.15 and other.mean() <= 0.01


def test_inverse_of_a_translation_is_exact():
    ddf = torch.tensor([0.5, -1.25]).view(1, 2, 1, 1).expand(1, 2, 6, 6).clone()
    torch.testing.assert_close(invert(ddf), -ddf)


@pytest.mark.parametrize("integrator", [lambda v: integrate(v, 3), lambda v: integrate_semi_lagrangian(v, 2, 2)])
def test_gradient_of_the_integral_is_exact(integrator):
    svf = (0.3 + 0.2 * torch.rand(1, 2, 4, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(integrator, (svf,))


def test_zeros_padding_ends_the_field_with_the_image():
    svf = torch.full((1, 1 + 1, 8, 8), 2.0)
    assert float(integrate(svf, 4, "border")[0, 0, -1, -1]) == pytest.approx(2)
    assert float(integrate(svf, 4, "zeros")[0, 0, -1, -1]) < 1


@pytest.mark.parametrize("integrator", [integrate, integrate_semi_lagrangian, invert])
def test_a_half_precision_field_is_integrated_in_float32(integrator):
    svf = (0.8 * torch.rand(1, 2, 12, 12)).bfloat16()
    found = integrator(svf)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, integrator(svf.float()), rtol=0, atol=0)
