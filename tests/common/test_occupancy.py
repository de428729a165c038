"""Occupancy: the adjoint of the sampler, known masses, and a loss whose values were derived elsewhere."""

import pytest
import torch

from common.errors import RegInputError
from common.occupancy import OccupancyLoss, occupancy
from common.spatial import identity_grid, warp

SIZE = (12, 13, 14)
GRIDS = [((9, 8), (9, 8)), ((9, 8), (6, 11)), ((5, 6, 7), (5, 6, 7)), ((5, 6, 7), (8, 4, 6))]


def field(size, scale=2.0, batch=2, dtype=torch.float64):
    """Displacements that also leave the grid."""
    return scale * torch.randn(batch, len(size), *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def contraction(size):
    """Half the distance to the center."""
    center = torch.tensor([(n - 1) / 2 for n in size]).view(1, -1, *[1] * len(size))
    return -0.5 * (identity_grid(list(size), torch.zeros(())) - center).double()


def shift(size, axis, distance):
    ddf = torch.zeros(1, len(size), *size, dtype=torch.float64)
    ddf[:, axis] = distance
    return ddf


@pytest.mark.parametrize(("fixed_size", "moving_size"), GRIDS)
def test_is_the_adjoint_of_the_sampler(fixed_size, moving_size):
    """<warp(m, ddf), 1> = <m, occupancy(ddf)>, by an implementation that shares no line with it."""
    ddf, moving = field(fixed_size), torch.rand(2, 1, *moving_size, dtype=torch.float64)
    sampled = warp(moving, ddf, padding_mode="zeros").flatten(1).sum(1)
    torch.testing.assert_close((moving * occupancy(ddf, moving_size)).flatten(1).sum(1), sampled)


@pytest.mark.parametrize(("fixed_size", "moving_size"), GRIDS)
def test_gradient_is_a_sampling_of_the_upstream_gradient(fixed_size, moving_size):
    ddf, upstream = field(fixed_size).requires_grad_(), torch.rand(2, 1, *moving_size, dtype=torch.float64)
    found = torch.autograd.grad((upstream * occupancy(ddf, moving_size)).sum(), ddf)[0]
    expected = torch.autograd.grad(warp(upstream, ddf, padding_mode="zeros").sum(), ddf)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 3)])
def test_gradcheck(size):
    ddf = field(size, scale=1.2).requires_grad_()
    assert torch.autograd.gradcheck(occupancy, (ddf,))
    assert torch.autograd.gradcheck(OccupancyLoss(), (ddf,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_visits_every_voxel_once(dtype):
    ddf = torch.zeros(1, 3, *SIZE, dtype=dtype, requires_grad=True)
    assert torch.equal(occupancy(ddf), torch.ones(1, 1, *SIZE, dtype=dtype))
    loss = OccupancyLoss()(ddf)
    loss.backward()
    assert float(loss) == pytest.approx(1e-6, rel=1e-5) and not ddf.grad.any()


def test_half_a_voxel_loses_half_a_face():
    """2106 of 2184 and a loss of 0.080, as derived for this size."""
    ddf = shift(SIZE, 2, 0.5)
    assert float(occupancy(ddf).sum()) == 2106
    assert float(OccupancyLoss()(ddf)) == pytest.approx(0.080, abs=5e-4)


def test_a_contraction_by_half_crowds_eight_voxels_into_one():
    """Largest mass 8 and a loss of 1.158, as derived for this size."""
    ddf = contraction(SIZE)
    assert float(occupancy(ddf).max()) == pytest.approx(8) and float(occupancy(ddf).sum()) == pytest.approx(2184)
    assert float(OccupancyLoss()(ddf)) == pytest.approx(1.158, abs=5e-4)


@pytest.mark.parametrize("axis", range(3))
def test_a_shift_by_whole_voxels_empties_the_planes_that_it_leaves(axis):
    mass = occupancy(shift((4, 5, 6), axis, 2.0))[0, 0].movedim(axis, 0)
    assert (mass[:2] == 0).all() and (mass[2:] == 1).all()


@pytest.mark.parametrize("distance", [100.0, -100.0, 1e9, -1e30])
def test_what_lands_outside_is_dropped(distance):
    ddf = shift((4, 5), 1, distance).requires_grad_()
    mass = occupancy(ddf)
    mass.sum().backward()
    assert not mass.any() and not ddf.grad.any()


def test_a_field_that_is_not_finite_is_seen():
    assert OccupancyLoss()(shift((4, 5), 1, float("nan"))).isnan()


def test_gradients_of_folding_fields_are_finite():
    ddf = field(SIZE, scale=6.0, batch=1, dtype=torch.float32).requires_grad_()
    OccupancyLoss()(ddf).backward()
    assert ddf.grad.isfinite().all() and ddf.grad.any()


def test_descent_spreads_a_crowd():
    """The loss has a use: its steps undo a contraction."""
    ddf = (0.4 * contraction((8, 8))).requires_grad_()
    optimizer = torch.optim.Adam([ddf], lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(OccupancyLoss()(ddf))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("deterministic", [False, True])
def test_it_passes_where_torch_asks_for_deterministic_algorithms(deterministic):
    ddf = field((6, 7, 8), dtype=torch.float32).requires_grad_()
    before = occupancy(ddf)
    torch.use_deterministic_algorithms(True)
    try:
        after = occupancy(ddf, deterministic=deterministic)
        OccupancyLoss(deterministic)(ddf).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(before, after)


@pytest.mark.gpu
def test_a_fixed_order_gives_the_same_bits_on_a_gpu():
    ddf = (0.5 * contraction((64, 64, 64))).float().cuda()
    first = occupancy(ddf, deterministic=True)
    assert all(torch.equal(first, occupancy(ddf, deterministic=True)) for _ in range(5))
    torch.testing.assert_close(first.cpu(), occupancy(ddf.cpu()), atol=1e-4, rtol=1e-5)


def test_reduced_precision_is_computed_in_float32():
    assert occupancy(torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_one_voxel_along_an_axis_has_no_differences():
    assert float(OccupancyLoss()(shift((1, 6), 1, 0.5))) == pytest.approx((0.25 / 5 / 2) ** 0.5)


@pytest.mark.parametrize(
    ("shape", "moving_size"), [((1, 2, 4, 4, 4), None), ((1, 3, 4, 4, 4), (4, 4)), ((1, 1, 4), None), ((2, 3, 4), None)]
)
def test_wrong_shapes_name_what_was_found(shape, moving_size):
    with pytest.raises(RegInputError, match=r"got a ddf of shape .* expected \(B, 2, H, W\)"):
        occupancy(torch.zeros(shape), moving_size)
