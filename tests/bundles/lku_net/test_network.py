import pytest
import torch
from lku_net_bundle.network import LargeKernelBlock, LKUNet, to_voxels
from torch.nn import functional as F

from common.flow import integrate
from common.spatial import compose, warp
from tests.golden import fill, golden_network, golden_pair

PRESETS = {
    "lku8": {"channels": 8},
    "lku8diff": {"channels": 8, "integrate_steps": 7},
    "lku16": {"channels": 16},
}


def filled(name: str) -> LKUNet:
    network = LKUNet(**PRESETS[name])
    return fill(network, [(network.head[0], 0.5)])


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_field_equals_the_reference_program(name):
    facts, arrays = golden_network(name)
    network, image = filled(name), golden_pair(facts)
    with torch.no_grad():
        ddf = network(image)[0]
        warped = warp(image[:, :1], ddf[None], padding_mode="zeros")[0, 0]
    for key, start in (("grid0", 0), ("grid3", 3)):
        error = (ddf[:, start::4, start::4, start::4] - torch.from_numpy(arrays[key])).abs()
        assert error.max() <= 3e-4 and error.mean() <= 2e-5, key
    assert (warped[::4, ::4, ::4] - torch.from_numpy(arrays["warped0"])).abs().max() <= 1e-4


def test_field_equals_the_reference_program_in_float64():
    facts, arrays = golden_network("lku8diff")
    with torch.no_grad():
        ddf = filled("lku8diff").double()(golden_pair(facts).double())[0]
    assert (ddf[:, ::4, ::4, ::4] - torch.from_numpy(arrays["grid0"])).abs().max() <= 2e-6


@pytest.mark.parametrize(("channels", "parameters"), [(4, 522_302), (8, 2_086_342), (16, 8_339_702), (32, 33_347_542)])
def test_network_has_the_published_number_of_used_parameters(channels, parameters):
    with torch.device("meta"):
        assert count(LKUNet(channels)) == parameters


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_left_out_is_the_second_head(name):
    facts, _ = golden_network(name)
    assert facts["parameters"] - facts["parameters_used"] == count(filled(name).head)


def test_answer_is_in_units_of_half_the_distance_between_the_outer_voxel_centers():
    voxels = to_voxels(torch.ones(2, 3, 5, 9, 17))
    torch.testing.assert_close(voxels, torch.tensor([2.0, 4.0, 8.0]).view(1, 3, 1, 1, 1).expand_as(voxels))


def test_large_kernel_block_is_one_convolution_of_the_summed_kernels():
    block, x = LargeKernelBlock(2).double(), torch.randn(1, 2, 7, 6, 5, dtype=torch.float64)
    three, five, one = block.branches
    kernel = five.weight + F.pad(three.weight, [1] * 6) + F.pad(one.weight, [2] * 6)
    kernel[[0, 1], [0, 1], 2, 2, 2] += 1
    summed = F.conv3d(x, kernel, three.bias + five.bias + one.bias, padding=2)
    torch.testing.assert_close(block(x), F.prelu(summed, block.activation.weight))


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 30, 33), (5, 40, 18)])
@pytest.mark.parametrize("steps", [0, 2])
def test_any_size_gives_fields_of_that_size(size, steps):
    fields = LKUNet(4, integrate_steps=steps).fields(torch.rand(2, 2, *size))
    for field in fields:
        assert field.shape == (2, 3, *size) and field.isfinite().all()


def test_two_dimensional_network_registers_two_dimensional_images():
    assert LKUNet(4, spatial_dims=2)(torch.rand(2, 2, 33, 20)).shape == (2, 2, 33, 20)


def test_training_begins_at_the_identity_with_features_that_keep_their_size():
    torch.manual_seed(0)
    network, seen = LKUNet(4), []
    network.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].square().mean().sqrt()))
    ddf = network(torch.randn(1, 2, 32, 32, 32))
    assert 0.3 < seen[0] < 3
    assert 0 < ddf.abs().max() < 0.1


def test_training_sees_the_field_before_integration():
    network, image = LKUNet(4, integrate_steps=3), torch.rand(1, 2, 16, 16, 16)
    fields = network.fields(image)
    torch.testing.assert_close(integrate(fields.svf, 3), fields.ddf)
    torch.testing.assert_close(network(image), fields.ddf)


def test_inverse_is_the_flow_run_backward():
    network, image = filled("lku8diff"), torch.rand(1, 2, 16, 16, 16)
    with torch.no_grad():
        network.head[0].weight.mul_(0.02)  # noise makes rough velocities: small ones keep the sampling's error small
        ddf, inverse = network.with_inverse(image)
    torch.testing.assert_close(ddf, network(image))
    assert compose(ddf, inverse).abs().mean() < 0.05 * ddf.abs().mean()
    assert LKUNet(4).with_inverse(image)[1] is None


def test_gradients_reach_every_parameter():
    network = LKUNet(4, integrate_steps=2)
    network(torch.rand(1, 2, 32, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", ["lku8", "lku8diff"])
def test_forward_can_be_scripted(name):
    network, image = filled(name), torch.rand(1, 2, 20, 17, 32, generator=torch.Generator().manual_seed(0))
    # voxels: scripted, torch samples, by coordinates that went through [-1, 1]; eager, compiled loops by voxels
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-4)


def test_fields_are_float32_under_autocast():
    network, image = filled("lku8diff"), torch.rand(1, 2, 16, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        fields = network.fields(image)
    assert fields.svf.dtype == fields.ddf.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "found"), [({"spatial_dims": 4}, "got 4 and 0"), ({"integrate_steps": -1}, "got 3 and -1")]
)
def test_wrong_settings_name_what_was_found(settings, found):
    with pytest.raises(ValueError, match=found):
        LKUNet(**settings)
