import pytest
import torch
from patch_fcn_bundle.fcn import VelocityFCN, layer
from torch import nn

LIGHT = (8, 16, 32, 64, 128)
SMALL = (4, 6, 8)


def moving_network(spatial_dims: int = 3, channels: tuple[int, ...] = SMALL) -> VelocityFCN:
    """One that moves by voxels, as it would after training."""
    torch.manual_seed(0)
    network = VelocityFCN(spatial_dims, channels)
    for head in network.heads:
        nn.init.normal_(head.weight, std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("channels", "parameters"),
    [
        ((16, 32, 64, 128, 256), 4_290_351),
        (LIGHT, 1_089_823),
        ((16, 32, 64, 64, 64), 1_076_399),
        ((16, 32, 32, 32, 32), 367_727),
    ],
)
def test_number_of_parameters_is_that_of_the_layers_counted_by_hand(channels, parameters):
    with torch.device("meta"):
        network = VelocityFCN(channels=channels)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize(("channels", "giga"), [((16, 32, 64, 128, 256), 9.75), (LIGHT, 2.63)])
def test_multiply_adds_of_a_patch(channels, giga):
    """Of the convolutions, without biases, for 64 voxels a side, on a network without memory."""
    with torch.device("meta"):
        network = VelocityFCN(channels=channels)
    counted = []

    def add(module, inputs, output):
        transposed = isinstance(module, nn.ConvTranspose3d)
        counted.append(module.weight.numel() * (inputs[0] if transposed else output)[0, 0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(add)
    with torch.device("meta"):
        network(torch.empty(1, 2, 64, 64, 64))
    assert sum(counted) / 1e9 == pytest.approx(giga, abs=5e-3)


def test_an_untrained_network_gives_no_velocity():
    assert not VelocityFCN(channels=SMALL)(torch.rand(1, 2, 8, 8, 8)).any()


def test_features_keep_their_size_before_training():
    torch.manual_seed(0)
    network, seen = VelocityFCN(channels=LIGHT), []
    for head in network.heads:
        head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].square().mean().sqrt()))
    network(torch.randn(1, 2, 2, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3).repeat_interleave(16, 4))
    assert len(seen) == 5 and all(0.3 < size < 3 for size in seen)


@pytest.mark.parametrize("size", [(16, 16, 16), (9, 13, 6), (5, 1, 8)])
def test_any_size_gives_a_velocity_of_that_size(size):
    svf = moving_network()(torch.rand(2, 2, *size))
    assert svf.shape == (2, 3, *size) and svf.isfinite().all()


def test_two_dimensional_network_takes_two_dimensional_patches():
    assert moving_network(2)(torch.rand(2, 2, 33, 20)).shape == (2, 2, 33, 20)


def test_the_answer_is_the_sum_of_what_each_resolution_says():
    network, image = moving_network(), torch.rand(1, 2, 16, 16, 16)
    parts = []
    for kept in range(3):
        alone = moving_network()
        for k, head in enumerate(alone.heads):
            if k != kept:
                nn.init.zeros_(head.weight)
        parts.append(alone(image))
        assert parts[-1].abs().max() > 0.01
    torch.testing.assert_close(network(image), sum(parts))


def test_every_resolution_counts_once():
    network = moving_network()
    for head in network.heads:
        head.register_forward_hook(lambda module, inputs, output: torch.ones_like(output))
    assert (network(torch.rand(1, 2, 16, 16, 16)) == len(network.heads)).all()


def test_a_fifth_of_what_is_negative_passes_a_layer():
    convolution = layer(3, 1, 1, 3)
    nn.init.zeros_(convolution[0].weight)
    nn.init.constant_(convolution[0].bias, -1)
    torch.testing.assert_close(convolution(torch.rand(1, 1, 4, 4, 4)), torch.full((1, 1, 4, 4, 4), -0.2))


def test_a_coarse_voxel_answers_for_the_block_that_it_was_made_of():
    """A coarse answer with one voxel set lies, at full scale, around the middle of that voxel's block."""
    network = moving_network()
    for head in network.heads:
        nn.init.zeros_(head.weight)
    coarse = torch.zeros(1, 3, 4, 4, 4)
    coarse[0, 0, 1, 2, 2] = 1
    network.heads[0].register_forward_hook(lambda *_: coarse)
    svf = network(torch.rand(1, 2, 16, 16, 16))[0, 0]
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"))
    center = (grid * svf).sum(dim=(1, 2, 3)) / svf.sum()
    torch.testing.assert_close(center, torch.tensor([5.5, 9.5, 9.5]), rtol=0, atol=0.02)


def test_gradients_reach_every_parameter():
    network = moving_network()
    network(torch.rand(1, 2, 16, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_moving_and_fixed_are_told_apart():
    network, image = moving_network(), torch.rand(1, 2, 16, 16, 16)
    assert not torch.allclose(network(image), network(image.flip(1)), atol=1e-3)


def test_the_velocity_is_float32_under_autocast():
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert moving_network()(torch.rand(1, 2, 16, 16, 16)).dtype == torch.float32


def test_forward_can_be_scripted():
    network, image = moving_network(), torch.rand(1, 2, 9, 16, 12)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{"spatial_dims": 4}, {"channels": (8,)}, {"channels": (8, 0)}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3"):
        VelocityFCN(**settings)
