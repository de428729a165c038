"""Sampling kernels against torch's grid_sample: values, both gradients, and coordinates of every sort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from common import kernels_cpu, warp_cpu
from common.spatial import compose, identity_grid, warp
from common.warp_cpu import PADDINGS, sample_linear, splat
from tests.threads import set_threads

EXTREMES = [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 1e4, -1e4]


def reference(image: torch.Tensor, ddf: torch.Tensor, padding_mode: str) -> torch.Tensor:
    """``image(x + ddf(x))`` by grid_sample, in float64."""
    points = identity_grid(ddf.shape[2:], ddf).double() + ddf.double()
    span = torch.tensor(image.shape[2:]).sub(1).clamp(min=1).double().view(1, 3, 1, 1, 1)
    grid = (2 * points / span - 1).movedim(1, -1).flip(-1)
    return F.grid_sample(image.double(), grid, "bilinear", padding_mode, align_corners=True)


def pair(
    batch: int, channels: int, size: tuple[int, ...], fixed_size: tuple[int, ...], dtype: torch.dtype, reach: float = 3
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image, a ddf that leaves it on all sides, and a gradient to pass back."""
    generator = torch.Generator().manual_seed(channels)
    image = torch.rand(batch, channels, *size, generator=generator, dtype=dtype)
    ddf = reach * torch.randn(batch, 3, *fixed_size, generator=generator, dtype=dtype)
    above = torch.randn(batch, channels, *fixed_size, generator=generator, dtype=dtype)
    return image.requires_grad_(), ddf.requires_grad_(), above


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize(
    ("batch", "channels", "size", "fixed_size"),
    [
        (1, 1, (5, 6, 7), (5, 6, 7)),
        (2, 2, (6, 4, 9), (5, 7, 6)),
        (1, 3, (3, 2, 4), (7, 6, 5)),
        (1, 5, (4, 3, 2), (2, 3, 1)),
    ],
)
def test_value_and_both_gradients_are_those_of_grid_sample(
    batch, channels, size, fixed_size, padding_mode, dtype, tolerance
):
    image, ddf, above = pair(batch, channels, size, fixed_size, dtype)
    found, expected = warp(image, ddf, padding_mode=padding_mode), reference(image, ddf, padding_mode)
    assert found.dtype == dtype and "SampleLinear" in type(found.grad_fn).__name__
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    found = torch.autograd.grad(found, (image, ddf), above)
    expected = torch.autograd.grad(expected, (image, ddf), above.double())
    torch.testing.assert_close(found, expected, rtol=0, atol=20 * tolerance, check_dtype=False)


@pytest.mark.parametrize("which", [0, 1])
def test_gradient_of_one_alone_is_that_of_both(which):
    image, ddf, above = pair(1, 2, (4, 5, 6), (4, 5, 6), torch.float64)
    both = torch.autograd.grad(warp(image, ddf), (image, ddf), above)[which]
    inputs = [tensor.detach() for tensor in (image, ddf)]
    inputs[which].requires_grad_()
    alone = torch.autograd.grad(warp(*inputs), inputs[which], above)[0]
    torch.testing.assert_close(alone, both, rtol=0, atol=0)


@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_on_a_voxel_the_value_is_the_voxel_and_the_slope_the_one_towards_the_next(padding_mode):
    """On the border the clamped position has no slope; past the last voxel zeros follow."""
    image, _, above = pair(1, 2, (4, 5, 6), (4, 5, 6), torch.float64)
    ddf = torch.zeros(1, 3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    warped = warp(image, ddf, padding_mode=padding_mode)
    torch.testing.assert_close(warped, image, rtol=0, atol=0)
    by_image, by_ddf = torch.autograd.grad(warped, (image, ddf), above)
    torch.testing.assert_close(by_image, above, rtol=0, atol=0)
    for axis in range(3):
        beyond = torch.zeros_like(image.narrow(axis + 2, 0, 1))
        slope = torch.diff(image.detach(), dim=axis + 2, append=beyond)
        if padding_mode == "border":
            slope.narrow(axis + 2, 0, 1).zero_()
            slope.narrow(axis + 2, image.shape[axis + 2] - 1, 1).zero_()
        torch.testing.assert_close(by_ddf[:, axis], (slope * above).sum(1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("shift", [-9.0, -1.5, -1.0, -0.5, 0.0, 0.5, 3.0, 3.5, 4.0, 4.5, 5.0, 99.0])
@pytest.mark.parametrize("axis", range(3))
def test_shift_across_every_border_is_numpys_interpolation(axis, shift, padding_mode):
    line = torch.tensor([3.0, -1.0, 4.0, 1.5, 2.0], dtype=torch.float64)
    shape = [1, 1, 1, 1, 1]
    shape[axis + 2] = 5
    image = line.view(shape).expand(1, 1, *[5 if k == axis else 3 for k in range(3)])
    ddf = torch.zeros(1, 3, *image.shape[2:], dtype=torch.float64)
    ddf[:, axis] = shift
    outside = dict(left=0, right=0) if padding_mode == "zeros" else {}
    places = np.arange(-1, 6) if padding_mode == "zeros" else np.arange(5)
    values = np.pad(line.numpy(), 1) if padding_mode == "zeros" else line.numpy()
    expected = torch.from_numpy(np.interp(np.arange(5) + shift, places, values, **outside)).view(shape)
    found = warp(image, ddf, padding_mode=padding_mode)
    torch.testing.assert_close(found, expected.expand_as(image), rtol=0, atol=1e-14)


@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_a_coordinate_that_is_not_finite_gives_nan_there_and_nowhere_else(padding_mode):
    image, ddf, above = (tensor.detach() for tensor in pair(1, 2, (4, 5, 6), (4, 5, 6), torch.float64))
    places = torch.zeros(4, 5, 6, dtype=torch.bool)
    for k, value in enumerate([np.nan, np.inf, -np.inf]):
        for axis in range(3):
            place = (axis, k + 1, 2 * k)
            ddf[(0, axis, *place)] = value
            places[place] = True
    ddf.requires_grad_()
    warped = warp(image, ddf, padding_mode=padding_mode)
    (gradient,) = torch.autograd.grad(warped, ddf, above)
    sound = ddf.detach().nan_to_num(0, 0, 0).requires_grad_()
    expected = reference(image, sound, padding_mode)
    (expected_gradient,) = torch.autograd.grad(expected, sound, above)
    for found, wanted in ((warped, expected), (gradient, expected_gradient)):
        assert found[..., places].isnan().all()
        torch.testing.assert_close(found[..., ~places], wanted[..., ~places], rtol=0, atol=1e-11)


def test_huge_displacements_read_the_border_or_nothing():
    image = torch.rand(1, 1, 3, 4, 5)
    for sign, corner in ((1, image[..., -1:, -1:, -1:]), (-1, image[..., :1, :1, :1])):
        ddf = sign * torch.full((1, 3, 3, 4, 5), 1e30)
        torch.testing.assert_close(warp(image, ddf), corner.expand_as(image), rtol=0, atol=0)
        torch.testing.assert_close(warp(image, ddf, padding_mode="zeros"), torch.zeros_like(image), rtol=0, atol=0)


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("size", [(1, 4, 5), (4, 1, 5), (4, 5, 1), (1, 1, 1)])
def test_an_axis_of_a_single_voxel_is_read_as_by_grid_sample(size, padding_mode):
    image, ddf, above = pair(1, 2, size, (2, 3, 4), torch.float64)
    found, expected = warp(image, ddf, padding_mode=padding_mode), reference(image, ddf, padding_mode)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(found, (image, ddf), above),
        torch.autograd.grad(expected, (image, ddf), above),
        rtol=0,
        atol=1e-11,
    )


def test_strides_do_not_matter():
    image, ddf, above = (tensor.detach() for tensor in pair(2, 3, (4, 5, 6), (4, 5, 6), torch.float64))

    def results(*tensors: torch.Tensor) -> list[torch.Tensor]:
        image, ddf, above = tensors
        image, ddf = image.requires_grad_(), ddf.requires_grad_()
        warped = warp(image, ddf)
        return [warped, *torch.autograd.grad(warped, (image, ddf), above)]

    turned = [tensor.transpose(1, 4).contiguous().transpose(1, 4) for tensor in (image, ddf, above)]
    assert not any(tensor.is_contiguous() for tensor in turned)
    torch.testing.assert_close(results(*turned), results(image, ddf, above), rtol=0, atol=0)


def test_expanded_tensors_are_read_right():
    image, ddf, _ = (tensor.detach() for tensor in pair(1, 1, (4, 5, 6), (4, 5, 6), torch.float64))
    many = ddf.expand(3, -1, -1, -1, -1).requires_grad_()
    warped = warp(image.expand(3, 2, -1, -1, -1), many)
    torch.testing.assert_close(warped, warp(image, ddf).expand(3, 2, -1, -1, -1), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(warped.sum(), many)
    once = ddf.clone().requires_grad_()
    (expected,) = torch.autograd.grad(2 * warp(image, once).sum(), once)
    torch.testing.assert_close(gradient, expected.expand(3, -1, -1, -1, -1), rtol=0, atol=1e-14)


def test_an_empty_grid_is_no_trouble():
    image = torch.rand(1, 2, 3, 4, 5, requires_grad=True)
    ddf = torch.zeros(1, 3, 2, 0, 4, requires_grad=True)
    warped = warp(image, ddf)
    assert warped.shape == (1, 2, 2, 0, 4)
    by_image, by_ddf = torch.autograd.grad(warped.sum(), (image, ddf))
    assert by_ddf.shape == ddf.shape and not by_image.any()


def test_composition_with_nothing_changes_nothing_and_shifts_add_up():
    ddf = pair(1, 1, (1, 1, 1), (4, 5, 6), torch.float64)[1].detach()
    nothing = torch.zeros_like(ddf)
    torch.testing.assert_close(compose(ddf, nothing), ddf, rtol=0, atol=0)
    torch.testing.assert_close(compose(nothing, ddf), ddf, rtol=0, atol=0)
    first, second = (torch.tensor(s, dtype=torch.float64).view(1, 3, 1, 1, 1) for s in ([1.5, -2, 0.25], [-0.5, 3, 7]))
    found = compose(nothing + first, nothing + second)
    torch.testing.assert_close(found, nothing + first + second, rtol=0, atol=1e-14)


@pytest.mark.parametrize("padding_mode", PADDINGS)
def test_composition_and_its_gradients_are_those_of_grid_sample(padding_mode):
    _, second, above = pair(2, 3, (1, 1, 1), (4, 5, 6), torch.float64, reach=2)
    first = pair(2, 1, (1, 1, 1), (4, 5, 6), torch.float64, reach=2)[1]
    found = compose(first, second, padding_mode)
    expected = second + reference(first, second, padding_mode)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(found, (first, second), above),
        torch.autograd.grad(expected, (first, second), above),
        rtol=0,
        atol=1e-11,
    )
    (itself,) = torch.autograd.grad(compose(first, first, padding_mode), first, above)
    (expected,) = torch.autograd.grad(first + reference(first, first, padding_mode), first, above)
    torch.testing.assert_close(itself, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("padding_mode", PADDINGS)
@pytest.mark.parametrize("add_ddf", [False, True])
def test_gradients_are_the_finite_differences(add_ddf, padding_mode):
    """Positions keep 0.1 voxels off the grid, where the slope jumps; some lie outside."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 3, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    cells = torch.randint(-3, 3, (1, 3, 3, 2, 2), generator=generator)
    ddf = (cells + 0.1 + 0.8 * torch.rand(cells.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, u: sample_linear(m, u, padding_mode, add_ddf), (image, ddf))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=st.tuples(*[st.integers(1, 5)] * 3),
    fixed_size=st.tuples(*[st.integers(1, 5)] * 3),
    channels=st.integers(1, 3),
    seed=st.integers(0, 2**16),
    padding_mode=st.sampled_from(PADDINGS),
)
def test_splat_is_the_adjoint_of_sampling(size, fixed_size, channels, seed, padding_mode):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(1, channels, *size, generator=generator, dtype=torch.float64)
    values = torch.randn(1, channels, *fixed_size, generator=generator, dtype=torch.float64)
    ddf = 2 * torch.randn(1, 3, *fixed_size, generator=generator, dtype=torch.float64)
    ddf = torch.where(torch.rand(ddf.shape, generator=generator) < 0.3, ddf.round(), ddf)
    sampled = sample_linear(image, ddf, padding_mode, False)
    spread = splat(ddf, values, size, padding_mode == "zeros")
    assert float((sampled * values).sum()) == pytest.approx(float((image * spread).sum()), rel=1e-12, abs=1e-12)
    if padding_mode == "border":  # the weights of a sample sum to one
        torch.testing.assert_close(spread.sum((2, 3, 4)), values.sum((2, 3, 4)), rtol=0, atol=1e-11)


def check_between_guards(size: tuple[int, ...], field: np.ndarray, zeros: bool) -> None:
    """Run the kernels on a grid between guards: what is written there shows, be its weight 0; what is read is NaN."""
    shape, numbers = field.shape[1:], warp_cpu.ticks(size, field)
    count, guard = int(np.prod(size)), 64
    room = np.zeros(count + 2 * guard)
    grid = room[guard : guard + count].reshape(1, count)
    warp_cpu.splat_planes(0, shape[0], grid, size, numbers, field, np.full((1, *shape), np.inf), zeros)
    assert not room[:guard].any() and not room[guard + count :].any()
    room[:] = np.nan
    grid[:] = 1
    out, slope = np.empty((1, *shape)), np.empty_like(field)
    warp_cpu.sample_planes(0, shape[0], grid, size, numbers, field, out, zeros, False)
    warp_cpu.slope_planes(0, shape[0], grid, size, numbers, field, np.ones((1, *shape)), slope, zeros, False)
    finite = np.isfinite(field).all(0)
    assert np.isfinite(out[0][finite]).all() and np.isfinite(slope[:, finite]).all()
    assert np.isnan(out[0][~finite]).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=st.tuples(*[st.integers(1, 4)] * 3),
    displacements=st.lists(st.one_of(st.sampled_from(EXTREMES), st.floats(-6, 6)), min_size=12, max_size=12),
    zeros=st.booleans(),
)
def test_nothing_outside_the_grid_is_read_or_written(size, displacements, zeros):
    check_between_guards(size, np.array(displacements).reshape(3, 2, 1, 2), zeros)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("step", [-1.0, -0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("axis", range(3))
def test_on_and_beside_the_border_nothing_outside_the_grid_is_read_or_written(axis, step, zeros):
    field = np.zeros((3, 3, 4, 2))
    field[axis] = step
    check_between_guards((3, 4, 2), field, zeros)


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_threads_that_write_to_the_same_voxels_lose_nothing(threads, monkeypatch):
    monkeypatch.setattr(kernels_cpu, "MIN_VOXELS", 1)
    image, ddf, above = pair(2, 2, (3, 3, 3), (6, 5, 4), torch.float64)
    expected = torch.autograd.grad(reference(image, ddf, "border"), (image, ddf), above)
    with set_threads(threads):
        found = torch.autograd.grad(warp(image, ddf), (image, ddf), above)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("operator", [warp, compose])
def test_second_derivative_is_refused(operator):
    image, ddf, _ = pair(1, 3, (3, 3, 3), (3, 3, 3), torch.float64)
    (gradient,) = torch.autograd.grad(operator(image, ddf).sum(), ddf, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (gradient.square().sum() + ddf.sum()).backward()


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_composition_wants_as_many_components_twice(channels):
    with pytest.raises(ValueError, match="two ddfs of one grid"):
        compose(torch.zeros(1, channels, 3, 3, 3), torch.zeros(1, 3, 3, 3, 3))


@pytest.mark.parametrize(
    ("image", "ddf", "add_ddf"),
    [
        ((1, 1, 3, 3), (1, 3, 3, 3), False),
        ((2, 1, 3, 3, 3), (1, 3, 3, 3, 3), False),
        ((1, 1, 3, 3, 3), (1, 2, 3, 3, 3), False),
        ((1, 1, 3, 0, 3), (1, 3, 3, 3, 3), False),
        ((1, 4, 3, 3, 3), (1, 3, 3, 3, 3), True),
    ],
)
def test_shapes_that_the_loops_would_leave_are_refused(image, ddf, add_ddf):
    with pytest.raises(ValueError, match=r"ddf|components"):
        sample_linear(torch.zeros(image), torch.zeros(ddf), "border", add_ddf)
