"""The optimisation of a velocity: its force against finite differences, what it finds, what it keeps."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from common.errors import RegInputError, RegNumericsError
from common.flow import integrate
from common.instance import Plateau
from common.losses import GradientLoss
from common.metrics import folds
from common.similarity import LNCC, MSE, make_similarity
from common.smooth import gaussian_smooth
from common.spatial import compose, identity_grid, warp
from common.velocity import (
    SmoothedMomentum,
    VelocityRegistration,
    displacement,
    force,
    lower_divergence,
    resized,
    restricted,
    warp_by_velocity,
    warp_exactly,
)

LEVELS = [(4, 4, 20), (2, 2, 20), (2, 1, 10)]


def blobs(*size, seed=0):
    """A smooth image (1, 1, *size) in [0, 1] with structure everywhere."""
    noise = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed))
    image = gaussian_smooth(noise, 1.5)
    return (image - image.min()) / (image.max() - image.min())


def smooth_velocity(*size, largest=1.0, seed=1):
    """A velocity (1, N, *size), zero at the border, of ``largest`` voxels at most."""
    noise = torch.randn(1, len(size), *size, generator=torch.Generator().manual_seed(seed))
    window = torch.ones(1, 1, *size)
    for axis, n in enumerate(size):
        ramp = torch.sin(torch.linspace(0, torch.pi, n)).view([-1 if k == axis else 1 for k in range(len(size))])
        window = window * ramp
    field = gaussian_smooth(noise, 4.0) * window
    return largest * field / field.abs().max()


def test_force_is_the_derivative_by_a_displacement_of_the_warped_image():
    warped = blobs(12, 13, 14).double()
    fixed = blobs(12, 13, 14, seed=2).double()
    upstream = 2 * (warped - fixed)  # of the sum of squares
    direction = smooth_velocity(12, 13, 14).double()
    predicted = (force(warped, upstream) * direction).sum()
    step = 1e-6
    sides = [((warp(warped, sign * step * direction) - fixed) ** 2).sum() for sign in (1, -1)]
    # linear interpolation has the mean of both one-sided slopes at a voxel: central differences
    assert float(predicted) == pytest.approx(float(sides[0] - sides[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("size", [(9, 11), (8, 9, 10)])
def test_force_of_a_ramp_is_its_slope(size):
    grid = identity_grid(list(size), torch.zeros(1))
    slopes = torch.arange(2.0, 2.0 + len(size))
    image = (grid * slopes.view(1, -1, *[1] * len(size))).sum(1, keepdim=True)
    expected = slopes.view(1, -1, *[1] * len(size)).expand(1, -1, *size)
    torch.testing.assert_close(force(image, torch.ones_like(image)), expected)
    both = force(torch.cat([image, 2 * image], 1), torch.ones(1, 2, *size))  # channels add up
    torch.testing.assert_close(both, 3 * expected)


def test_gradient_by_the_velocity_points_where_the_true_one_does():
    """Up to the slope at a voxel: that of one side for interpolation, the mean of both for the force."""
    moving, fixed = blobs(20, 20, 20).double(), warp(blobs(20, 20, 20), smooth_velocity(20, 20, 20)).double()
    svf = (0.02 * smooth_velocity(20, 20, 20, seed=5)).double().requires_grad_()
    gradients = []
    for warped in (warp_by_velocity(moving, svf), warp_exactly(moving, svf)):
        gradients += torch.autograd.grad(MSE()(warped, fixed), svf)
    cosine = F.cosine_similarity(*(gaussian_smooth(g, 1.0).flatten() for g in gradients), dim=0)
    assert float(cosine) > 0.95


def test_forces_on_a_coarser_grid_do_the_same_work():
    """Virtual work: a smooth displacement of the coarse grid meets the same force on either grid."""
    fine = smooth_velocity(24, 24, 24)
    coarse = restricted(fine, [12, 12, 12])
    direction = smooth_velocity(12, 12, 12, seed=7)
    work = [(fine * resized(direction, [24, 24, 24])).sum(), 8 * (coarse * direction).sum()]
    assert float(work[1]) == pytest.approx(float(work[0]), rel=0.05)


def test_forces_that_grow_linearly_do_so_on_a_grid_whose_cells_hold_no_whole_voxels():
    """27 voxels are averaged to 9, and 10 sampled of these: from the first to the last, without an end that is flat."""
    ramp = restricted(identity_grid([27, 27, 27], torch.zeros(1)), [10, 10, 10])
    for axis in range(3):
        slope = ramp[:, axis].diff(dim=1 + axis)
        torch.testing.assert_close(slope, torch.full_like(slope, 24 / 9 * 26 / 9))


@pytest.mark.parametrize("size", [(24, 26, 28), (40, 44)])
def test_a_known_deformation_is_found(size):
    moving = blobs(*size)
    truth = integrate(smooth_velocity(*size, largest=2.5))
    svf = VelocityRegistration(LNCC(5), LEVELS).velocity(moving, warp(moving, truth))
    found = displacement(svf, list(size))
    inner = (..., *[slice(4, -4)] * len(size))
    error = (found - truth)[inner].norm(dim=1).mean()
    assert float(error) < 0.25 * float(truth[inner].norm(dim=1).mean())
    assert int(folds(found).count) == 0


def test_the_flow_backward_is_the_inverse():
    svf = smooth_velocity(12, 12, 12, largest=0.75)
    there, back = displacement(svf, [24, 24, 24]), displacement(-svf, [24, 24, 24])
    inner = (..., *[slice(3, -3)] * 3)
    assert float(compose(there, back)[inner].abs().max()) < 0.1 * float(there.abs().max())


def test_equal_images_stay_where_they_are():
    image = blobs(20, 20, 20)
    for name in ("lncc", "mse", "mind", "mi"):
        svf = VelocityRegistration(make_similarity(name), [(2, 2, 4), (2, 1, 2)]).velocity(image, image)
        assert float(displacement(svf, [20, 20, 20]).abs().max()) < 0.5


def test_flat_images_have_no_force():
    flat = torch.ones(1, 1, 16, 16, 16)
    for name in ("lncc", "mse", "mind", "mi"):
        svf = VelocityRegistration(make_similarity(name), [(2, 1, 3)]).velocity(flat, flat)
        assert float(svf.abs().max()) == 0


@pytest.mark.parametrize("name", ["mi", "mind"])
def test_an_inverted_image_is_registered_across_contrasts(name):
    size = (28, 30, 32)
    moving = blobs(*size)
    truth = integrate(smooth_velocity(*size, largest=2.0))
    fixed = 1 - warp(moving, truth)
    svf = VelocityRegistration(make_similarity(name), LEVELS).velocity(moving, fixed)
    inner = (..., *[slice(5, -5)] * 3)
    error = (displacement(svf, list(size)) - truth)[inner].norm(dim=1).mean()
    assert float(error) < 0.5 * float(truth[inner].norm(dim=1).mean())


def test_what_lies_outside_the_mask_does_not_count():
    moving, size = blobs(20, 20, 20), (20, 20, 20)
    fixed = warp(moving, integrate(smooth_velocity(*size, largest=2.0)))
    mask = torch.zeros(1, 1, *size)
    mask[..., :8] = 1
    noise = torch.where(mask > 0, fixed, torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(3)))
    registration = VelocityRegistration(MSE(), [(1, 1, 10)])
    torch.testing.assert_close(
        registration.velocity(moving, fixed, mask=mask), registration.velocity(moving, noise, mask=mask)
    )


def test_a_start_is_kept_and_completed():
    moving, size = blobs(20, 22, 24), (20, 22, 24)
    start = integrate(smooth_velocity(*size, largest=1.5))
    svf = VelocityRegistration(LNCC(5), [(2, 1, 6)]).velocity(moving, warp(moving, start), start=start)
    rest = displacement(svf, list(size))
    assert float(rest[..., 4:-4, 4:-4, 4:-4].norm(dim=1).mean()) < 0.2
    torch.testing.assert_close(displacement(svf, list(size), start), compose(start, rest))


def test_the_result_does_not_depend_on_gradient_modes():
    pair = blobs(16, 16, 16), blobs(16, 16, 16, seed=4)
    registration = VelocityRegistration(LNCC(3), [(2, 1, 3)])
    expected = registration.velocity(*pair)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            svf = registration.velocity(*(image.clone() for image in pair))
        torch.testing.assert_close(svf.clone(), expected)
        assert not svf.requires_grad


def test_a_plateau_ends_a_level_and_steps_are_reported():
    image, seen = blobs(16, 16, 16), []
    registration = VelocityRegistration(MSE(), [(2, 2, 50), (2, 1, 50)], stop=Plateau(3))
    registration.velocity(image, image, report=lambda step, values: seen.append(step))
    assert seen == [1, 2, 3, 1, 2, 3]


def test_a_regularizer_is_descended_too():
    moving, fixed = blobs(20, 20, 20), blobs(20, 20, 20, seed=4)
    plain = VelocityRegistration(LNCC(5), [(2, 1, 20)]).velocity(moving, fixed)
    smooth = VelocityRegistration(LNCC(5), [(2, 1, 20)], regularizer=GradientLoss()).velocity(moving, fixed)
    assert float(GradientLoss()(smooth)) < 0.8 * float(GradientLoss()(plain))


def test_a_step_has_the_length_that_was_asked_for():
    field = torch.zeros(1, 3, 10, 10, 10, requires_grad=True)
    optimizer = SmoothedMomentum([field], lr=0.25, momentum=0.5, force_sigma=0, sigma=0, divergence_weight=0)
    for scale in (1.0, 1e6):
        field.data.zero_()
        optimizer.state.clear()
        field.grad = scale * torch.randn(field.shape, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        assert float(field.detach().square().mean().sqrt()) == pytest.approx(0.25, rel=1e-5)
        torch.testing.assert_close(
            field.detach() / field.detach().norm(), -field.grad / field.grad.norm(), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("size", [(6, 7), (5, 6, 7)])
def test_lowering_the_divergence_is_a_step_down_its_square(size):
    field = smooth_velocity(*size).double().requires_grad_()

    def divergence(f):  # written anew: padded with zeros, neighbors' half difference
        padded = F.pad(f, [1, 1] * len(size))
        inner = [slice(1, -1)] * len(size)
        total = 0
        for k in range(len(size)):
            upper, lower = ([*inner[:k], part, *inner[k + 1 :]] for part in (slice(2, None), slice(None, -2)))
            total = total + (padded[:, k][(slice(None), *upper)] - padded[:, k][(slice(None), *lower)]) / 2
        return total

    (gradient,) = torch.autograd.grad(divergence(field).square().sum() / 2, field)
    torch.testing.assert_close(lower_divergence(field.detach(), 0.3), field.detach() - 0.3 * gradient)
    squares = [float(divergence(lower_divergence(field.detach(), weight)).square().sum()) for weight in (0, 0.4, 2)]
    assert squares[0] > squares[1] > squares[2]


def test_a_rotation_has_no_divergence_to_lower():
    y, x = identity_grid([12, 12], torch.zeros(1))[0]
    rotation = torch.stack([x - 5.5, 5.5 - y])[None]
    torch.testing.assert_close(lower_divergence(rotation, 0.3)[..., 2:-2, 2:-2], rotation[..., 2:-2, 2:-2])


def test_momentum_is_the_average_of_the_gradients():
    field = torch.zeros(1, 2, 4, 4, requires_grad=True)
    optimizer = SmoothedMomentum([field], lr=1.0, momentum=0.5, force_sigma=0, sigma=0, divergence_weight=0, decay=0.0)
    positions = []
    for gradient in (1.0, 3.0):
        field.grad = torch.full(field.shape, gradient)
        optimizer.step()
        positions.append(float(field.detach().mean()))
    # means 0.5 and 1.75, their bias 1/2 and 3/4, mean squares 1 and 9
    assert positions == pytest.approx([-1, -1 - (1.75 / 0.75) / 3])


@pytest.mark.parametrize("levels", [[], [(2, 1)], [(0.5, 1, 3)], [(2, 0, 3)], [(2, 1, -1)], [(2, 1, 2.5)]], ids=str)
def test_a_schedule_that_is_none_is_refused(levels):
    with pytest.raises(RegInputError, match="velocity shrink, image shrink, steps"):
        VelocityRegistration(MSE(), levels)


@pytest.mark.parametrize(
    "setting", [{"learning_rate": 0}, {"momentum": 1}, {"force_sigma": -1}, {"velocity_sigma": -1}]
)
def test_numbers_out_of_range_are_refused(setting):
    with pytest.raises(RegInputError, match=next(iter(setting))):
        VelocityRegistration(MSE(), LEVELS, **setting)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fixed": torch.ones(1, 1, 8, 8, 9)}, "same|twice"),
        ({"fixed": torch.ones(2, 1, 8, 8, 8), "moving": torch.ones(2, 1, 8, 8, 8)}, "twice"),
        ({"start": torch.zeros(1, 3, 4, 4, 4)}, r"start has shape \[1, 3, 4, 4, 4\], expected \[1, 3, 8, 8, 8\]"),
        ({"mask": torch.zeros(1, 1, 8, 8, 8)}, "0 voxels inside"),
        ({"mask": torch.ones(1, 1, 4, 4, 4)}, "mask"),
    ],
    ids=str,
)
def test_what_is_no_pair_is_refused(change, message):
    pair = {"moving": torch.ones(1, 1, 8, 8, 8), "fixed": torch.ones(1, 1, 8, 8, 8)}
    with pytest.raises(RegInputError, match=message):
        VelocityRegistration(MSE(), LEVELS).velocity(**pair | change)


def test_an_image_that_is_not_finite_is_told():
    image = blobs(16, 16, 16)
    with pytest.raises(RegNumericsError, match="loss"):
        VelocityRegistration(MSE(), [(2, 1, 3)]).velocity(image, image * torch.nan)


def test_thin_volumes_keep_their_slices():
    pair = blobs(32, 32, 6), blobs(32, 32, 6, seed=4)
    svf = VelocityRegistration(LNCC(3), [(8, 8, 2), (2, 1, 2)]).velocity(*pair)
    assert list(svf.shape[2:]) == [16, 16, 6]


def test_shifts_along_each_axis_are_found_along_it():
    for axis, sign in itertools.product(range(3), (1, -1)):
        moving = blobs(24, 24, 24)
        fixed = moving.roll(-2 * sign, dims=2 + axis)  # fixed(x) = moving(x + 2 sign)
        svf = VelocityRegistration(LNCC(5), [(4, 4, 20), (2, 2, 20)]).velocity(moving, fixed)
        middle = displacement(svf, [24, 24, 24])[0, :, 8:-8, 8:-8, 8:-8].mean((1, 2, 3))
        expected = torch.zeros(3)
        expected[axis] = 2 * sign
        torch.testing.assert_close(middle, expected, rtol=0, atol=0.4)
