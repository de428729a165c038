import pytest
import torch
from monai.bundle import ConfigParser
from symnet_bundle.network import SYMNet
from torch import nn

from common.flow import integrate
from common.metrics import ndv
from common.spatial import compose, identity_grid, warp
from tests.bundles.pairwise import configs
from tests.bundles.trained import smooth_pair

INNER = (slice(None), slice(None), *[slice(6, -6)] * 3)


def moving_network(**settings) -> SYMNet:
    """A small one whose flows go some voxels far, as after training."""
    torch.manual_seed(0)
    network = SYMNet(**{"channels": 2} | settings).eval()
    for head in (network.moving_head, network.fixed_head):
        nn.init.normal_(head.weight, std=0.1)
    return network


def test_the_network_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in SYMNet(channels=7).parameters()) == 862_351


@pytest.fixture
def smooth(monkeypatch) -> SYMNet:
    """A network whose velocities are waves of 24 voxels, two voxels high, other ones for both images."""
    x = identity_grid([24, 24, 24], torch.zeros(1)) * torch.pi / 12
    network = SYMNet(channels=2)
    monkeypatch.setattr(network, "velocities", lambda image: (2 * x.flip(1).sin(), 1.5 * x.roll(1, dims=1).cos()))
    return network


def test_both_images_are_carried_to_the_middle(smooth):
    fields = smooth.fields(smooth_pair(24, 24, 24))
    torch.testing.assert_close(fields.moving_half, integrate(fields.moving_svf, 7, "zeros"))
    torch.testing.assert_close(fields.fixed_half, integrate(fields.fixed_svf, 7, "zeros"))


def test_the_ddf_goes_through_the_middle(smooth):
    """The moving image there, and from there against the fixed one's way, is what the ddf makes."""
    image = smooth_pair(24, 24, 24)
    fields = smooth.fields(image)
    moving = image[:, :1]
    by_two = warp(warp(moving, fields.moving_half), integrate(-fields.fixed_svf, 7, "zeros"))
    by_one = warp(moving, fields.ddf)
    apart = (by_one - moving)[INNER].abs().max()
    assert (by_two - by_one)[INNER].abs().max() < 0.05 * apart and apart > 0.1


def test_equal_velocities_cancel(smooth, monkeypatch):
    """Both images then meet where they are alike: the moving one goes there and back."""
    svf = smooth.velocities(None)[0]
    monkeypatch.setattr(smooth, "velocities", lambda image: (svf, svf))
    fields = smooth.fields(smooth_pair(24, 24, 24))
    assert fields.moving_half[INNER].abs().max() > 1.5
    assert fields.ddf[INNER].abs().max() < 0.05


def test_the_inverse_undoes_the_ddf_and_both_are_those_of_training(smooth):
    image = smooth_pair(24, 24, 24)
    fields = smooth.fields(image)
    ddf, inverse = smooth.with_inverse(image)
    assert torch.equal(ddf, fields.ddf) and torch.equal(inverse, fields.inverse) and torch.equal(ddf, smooth(image))
    assert compose(ddf, inverse)[INNER].abs().max() < 0.1 and ddf[INNER].abs().max() > 2


def test_smooth_velocities_make_no_fold(smooth):
    assert float(ndv(smooth(smooth_pair(24, 24, 24))[INNER])) == 0


def test_a_velocity_stays_below_its_bound():
    network = moving_network(max_velocity=2.0)
    for head in (network.moving_head, network.fixed_head):
        nn.init.normal_(head.weight, std=30)
    fields = network.fields(smooth_pair(16, 16, 16))
    assert 1.5 < fields.moving_svf.abs().max() < 2 and fields.fixed_svf.abs().max() < 2


def test_answers_are_voxels_where_they_are_far_from_the_bound():
    answer = torch.tensor([-300.0, -0.1, 0.01, 100.0]).view(1, 1, 4)
    velocity = SYMNet(channels=1, max_velocity=100.0).bounded(answer, [4])
    torch.testing.assert_close(velocity.flatten(), torch.tensor([-75, -0.1 / 1.001, 0.01 / 1.0001, 50]))


@pytest.mark.parametrize("size", [(16, 16, 16), (9, 13, 6), (5, 1, 8)])
def test_any_size_gives_fields_of_that_size(size):
    fields = moving_network(integrate_steps=2).fields(torch.rand(2, 2, *size))
    assert all(field.shape == (2, 3, *size) and field.isfinite().all() for field in fields)


def test_two_dimensional_network_registers_two_dimensional_images():
    assert SYMNet(2, 2, 3)(torch.rand(2, 2, 33, 20)).shape == (2, 2, 33, 20)


def test_training_starts_near_the_identity():
    ddf = SYMNet()(torch.rand(1, 2, 16, 16, 16))
    assert 0 < ddf.abs().max() < 0.2


def test_features_keep_their_size_before_training():
    torch.manual_seed(0)
    network, seen = SYMNet(), []
    network.moving_head.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0].square().mean().sqrt()))
    network(torch.randn(1, 2, 32, 32, 32))
    assert 0.3 < seen[0] < 3


def test_gradients_reach_every_parameter():
    network = moving_network(integrate_steps=2, channels=4)
    fields = network.fields(torch.rand(1, 2, 32, 32, 32))
    sum(field.square().sum() for field in fields).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_fields_are_float32_under_autocast():
    network, image = moving_network(), smooth_pair(16, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = network.fields(image)
    assert {field.dtype for field in reduced} == {torch.float32}
    expected = network.fields(image).ddf
    assert (reduced.ddf - expected).abs().max() < 0.1 * expected.abs().max()


def test_forward_can_be_scripted():
    network, image = moving_network(integrate_steps=3), smooth_pair(9, 16, 12)
    # voxels: scripted, torch samples, by coordinates that went through [-1, 1]; eager, compiled loops by voxels
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", ["train", "inference"])
def test_configs_make_the_published_network(config):
    parser = ConfigParser()
    parser.read_config(str(configs("symnet") / f"{config}.json"))
    assert sum(p.numel() for p in parser.get_parsed_content("network_def").parameters()) == 862_351


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"spatial_dims": 4}, "got 4"),
        ({"channels": 0}, "got 0, 7 and 100"),
        ({"integrate_steps": 0}, "got 7, 0 and 100"),
        ({"max_velocity": 0.0}, "got 7, 7 and 0"),
    ],
)
def test_wrong_settings_name_what_was_found(settings, found):
    with pytest.raises(ValueError, match=found):
        SYMNet(**settings)
