"""Refinement of a network's answer: what it keeps and what it improves."""

import pytest
import torch
from torch import nn

from common.errors import RegInputError
from common.flow import integrate
from common.metrics import folds
from common.refine import RefinedNetwork
from common.spatial import compose, warp
from tests.common.test_velocity import blobs, smooth_velocity


class Constant(nn.Module):
    """Answers every pair with one ddf; counts what it was shown."""

    def __init__(self, ddf):
        super().__init__()
        self.ddf = ddf
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image):
        return (self.ddf * self.scale).expand(len(image), *self.ddf.shape[1:])


@pytest.fixture(scope="module")
def pair():
    """A moving image, the fixed one that a known flow makes of it, and that flow's ddf."""
    moving = blobs(24, 26, 28)
    truth = integrate(smooth_velocity(24, 26, 28, largest=2.0))
    return moving, warp(moving, truth), truth


def test_no_steps_leave_the_network_alone(pair):
    network = Constant(pair[2])
    assert torch.equal(RefinedNetwork(network)(torch.cat(pair[:2], 1)), network(torch.cat(pair[:2], 1)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_start_halfway_gets_closer_and_does_not_fold(pair, mode):
    moving, fixed, truth = pair
    network = Constant(integrate(smooth_velocity(24, 26, 28, largest=1.0)))
    with mode():
        before = network(torch.cat([moving, fixed], 1))
        after = RefinedNetwork(network, 20, progress=False)(torch.cat([moving, fixed], 1))
    inner = (..., *[slice(4, -4)] * 3)
    errors = [(ddf - truth)[inner].norm(dim=1).mean() for ddf in (before, after)]
    assert errors[1] < 0.6 * errors[0]
    assert int(folds(after).count) == 0
    assert not after.requires_grad and network.scale.grad is None


class Invertible(Constant):
    """Knows the inverse of its answer."""

    def __init__(self, svf):
        super().__init__(integrate(svf))
        self.inverse = integrate(-svf)

    def with_inverse(self, image):
        return self(image), self.inverse.expand(len(image), *self.inverse.shape[1:])


@pytest.mark.parametrize("steps", [0, 10])
def test_the_inverse_undoes_what_was_refined(pair, steps):
    moving, fixed, _ = pair
    network = Invertible(smooth_velocity(24, 26, 28, largest=1.0))
    refined = RefinedNetwork(network, steps, progress=False)
    image = torch.cat([moving, fixed], 1)
    ddf, inverse = refined.with_inverse(image)
    torch.testing.assert_close(ddf, refined(image))
    assert torch.equal(ddf, network(image)) == (steps == 0)
    for first, second in ((ddf, inverse), (inverse, ddf)):
        residual = compose(first, second).norm(dim=1)  # voxels; linear interpolation on this small grid leaves some
        assert residual.mean() < 0.02 and residual.max() < 0.1 < 1 < ddf.norm(dim=1).max()


def test_a_network_without_an_inverse_has_none_refined(pair):
    image = torch.cat(pair[:2], 1)
    ddf, inverse = RefinedNetwork(Constant(pair[2]), 2, progress=False).with_inverse(image)
    assert inverse is None and ddf.shape == pair[2].shape


def test_the_mask_reaches_only_networks_that_take_one(pair):
    seen = []

    class Watching(Constant):
        def forward(self, image):
            seen.append(image.shape[1])
            return super().forward(image)

    image = torch.cat([*pair[:2], torch.ones_like(pair[0])], 1)
    for takes in (False, True):
        RefinedNetwork(Watching(pair[2]), mask_to_network=takes)(image)
    assert seen == [2, 3]


def test_the_pairs_of_a_batch_do_not_touch_each_other(pair):
    moving, fixed, truth = pair
    image = torch.cat([torch.cat([moving, fixed], 1), torch.cat([fixed, moving], 1)])
    refined = RefinedNetwork(Constant(torch.zeros_like(truth)), 3, progress=False)
    torch.testing.assert_close(refined(image), torch.cat([refined(image[:1]), refined(image[1:])]))


@pytest.mark.parametrize("steps", [-1, 1.5])
def test_a_number_of_steps_that_is_none_is_refused(steps):
    with pytest.raises(RegInputError, match="refine_steps"):
        RefinedNetwork(Constant(torch.zeros(1, 3, 8, 8, 8)), steps)
