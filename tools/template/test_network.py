"""What every network here has to hold; what is true of yours alone goes below. ``test_trained.py`` runs the bundle."""

import pytest
import torch
from template_bundle.network import TemplateNet

from common.spatial import compose, warp
from tests.bundles.trained import smooth_pair

SMALL = {"channels": (4, 8), "integrate_steps": 4}


def moving_network(**settings) -> TemplateNet:
    """One that moves by voxels, as it would after training."""
    torch.manual_seed(0)
    network = TemplateNet(**SMALL | settings).eval()
    torch.nn.init.normal_(network.head.weight, std=0.1)
    return network


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("size", [(16, 16, 16), (9, 13, 6), (5, 1, 8)])
def test_any_size_gives_fields_of_that_size(size, steps):
    network, image = moving_network(integrate_steps=steps), torch.rand(2, 2, *size)
    fields = network.fields(image)
    assert fields.svf.shape == fields.ddf.shape == (2, 3, *size) and fields.ddf.isfinite().all()
    assert torch.equal(fields.ddf, network(image)) and torch.equal(fields.svf, fields.ddf) == (steps == 0)


def test_two_dimensional_network_registers_two_dimensional_images():
    assert moving_network(spatial_dims=2)(torch.rand(2, 2, 33, 20)).shape == (2, 2, 33, 20)


def test_training_starts_at_the_identity():
    assert not TemplateNet()(torch.rand(1, 2, 16, 16, 16)).any()


def test_a_velocity_that_is_the_same_everywhere_moves_by_itself():
    network, shift = moving_network(), torch.tensor([1.5, -0.5, 0.25])
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = shift
    ddf, inverse = network.with_inverse(smooth_pair(16, 16, 16))
    torch.testing.assert_close(ddf[0, :, 8, 8, 8], shift)
    torch.testing.assert_close(inverse[0, :, 8, 8, 8], -shift)


def test_the_inverse_undoes_the_ddf():
    ddf, inverse = moving_network().with_inverse(smooth_pair(24, 24, 24))
    inside = (slice(None), slice(None), *[slice(6, -6)] * 3)
    left = compose(ddf, inverse)[inside].abs().max()
    assert left < 0.1 * ddf[inside].abs().max()


def test_every_parameter_learns():
    network = moving_network()
    network(torch.rand(1, 2, 16, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_scripted_network_gives_the_same_field():
    network, image = moving_network(), torch.rand(1, 2, 12, 16, 9)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_it_learns_a_shift():
    """Of two voxels along the first axis, from one pair."""
    torch.manual_seed(0)
    network = TemplateNet(**SMALL)
    fixed = smooth_pair(16, 16, 16)[:, :1].square()
    moving = fixed.roll(2, dims=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    errors = []
    for _ in range(40):
        error = (warp(moving, network(torch.cat([moving, fixed], dim=1))) - fixed)[:, :, 3:-3].square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.2 * errors[0]
