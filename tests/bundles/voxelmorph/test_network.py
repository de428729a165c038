import pytest
import torch
from torch import nn
from voxelmorph_bundle.network import VoxelMorph

from common.flow import integrate
from common.spatial import compose, identity_grid, warp
from tests.bundles.trained import smooth_pair
from tests.golden import fill, golden_network, golden_pair

SMALL = {"encoder": (4, 8), "decoder": (8, 8, 4)}
GOLDEN = {
    "vxm1": {},
    "vxm2": {"encoder": (16, 32, 32, 32), "decoder": (32, 32, 32, 32, 32, 16, 16)},
}
WIDER = {
    "x2": {"encoder": (32, 64, 64, 64), "decoder": (64, 64, 64, 64, 64, 32, 32)},
    "huge": {"encoder": (14, 28, 144, 320), "decoder": (1152, 1152, 320, 144, 28, 14, 14)},
}
PARAMETERS = {"vxm1": 274_387, "vxm2": 301_411, "x2": 1_197_251, "huge": 63_252_939}


def filled(name: str) -> VoxelMorph:
    network = VoxelMorph(**GOLDEN[name])
    return fill(network, [(network.head, 4.0)])


def moving_network(**settings) -> VoxelMorph:
    """One that moves by voxels, as it would after training."""
    torch.manual_seed(0)
    network = VoxelMorph(**SMALL | settings).eval()
    nn.init.normal_(network.head.weight, std=0.1)
    return network


@pytest.mark.parametrize("name", GOLDEN)
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


@pytest.mark.parametrize("name", ["vxm1", pytest.param("vxm2", marks=pytest.mark.slow)])
def test_field_equals_the_reference_program_in_float64(name):
    facts, arrays = golden_network(name)
    with torch.no_grad():
        ddf = filled(name).double()(golden_pair(facts).double())[0]
    assert (ddf[:, ::4, ::4, ::4] - torch.from_numpy(arrays["grid0"])).abs().max() <= 2e-6


@pytest.mark.parametrize("name", PARAMETERS)
def test_variants_have_the_published_number_of_parameters(name):
    with torch.device("meta"):
        network = VoxelMorph(**(GOLDEN | WIDER)[name])
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "giga"), [("vxm1", 304.05), ("vxm2", 398.81)])
def test_multiply_adds_equal_the_published_ones(name, giga):
    """Of the convolutions, without biases, at 160x192x224, on a network without memory."""
    with torch.device("meta"):
        network = VoxelMorph(**GOLDEN[name])
    total = 0

    def add(module, _, output):
        nonlocal total
        total += module.weight.numel() * output[0, 0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(add)
    with torch.device("meta"):
        network(torch.empty(1, 2, 160, 192, 224))
    assert total / 1e9 == pytest.approx(giga, abs=5e-3)


@pytest.mark.parametrize("settings", [{}, {"integrate_steps": 2}, {"integrate_steps": 2, "half_resolution": True}])
@pytest.mark.parametrize("size", [(16, 16, 16), (9, 13, 6), (5, 1, 8)])
def test_any_size_gives_fields_of_that_size(size, settings):
    network, image = moving_network(**settings), torch.rand(2, 2, *size)
    fields = network.fields(image)
    assert fields.svf.shape == fields.ddf.shape == (2, 3, *size) and fields.ddf.isfinite().all()
    assert torch.equal(fields.ddf, network(image))


def test_two_dimensional_network_registers_two_dimensional_images():
    assert VoxelMorph(2, **SMALL, integrate_steps=3)(torch.rand(2, 2, 33, 20)).shape == (2, 2, 33, 20)


def test_training_starts_near_the_identity():
    ddf = VoxelMorph(integrate_steps=3)(torch.rand(1, 2, 16, 16, 16))
    assert 0 < ddf.abs().max() < 1e-2


def test_features_keep_their_size_before_training():
    torch.manual_seed(0)
    network, seen = VoxelMorph(), []
    network.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].square().mean().sqrt()))
    network(torch.randn(1, 2, 32, 32, 32))
    assert 0.3 < seen[0] < 3


def test_a_displacement_is_what_the_regularizer_sees():
    fields = moving_network().fields(smooth_pair(8, 8, 8))
    assert torch.equal(fields.svf, fields.ddf) and fields.ddf.abs().max() > 0.1


def test_a_velocity_is_integrated():
    fields = moving_network(integrate_steps=7).fields(smooth_pair(12, 12, 12))
    torch.testing.assert_close(fields.ddf, integrate(fields.svf, 7, "zeros"))
    assert not torch.allclose(fields.ddf, fields.svf, atol=1e-2)


@pytest.mark.parametrize("half_resolution", [False, True])
def test_the_inverse_undoes_the_flow(monkeypatch, half_resolution):
    svf = 2 * (identity_grid([24, 24, 24], torch.zeros(1)).flip(1) * torch.pi / 12).sin()
    network = VoxelMorph(**SMALL, integrate_steps=7, half_resolution=half_resolution)
    monkeypatch.setattr(network, "estimate", lambda image: svf)
    ddf, inverse = network.with_inverse(smooth_pair(24, 24, 24))
    inner = (slice(None), slice(None), *[slice(5, -5)] * 3)
    assert ddf[inner].abs().max() > 1.5
    assert compose(ddf, inverse)[inner].abs().max() < (0.1 if half_resolution else 0.05)


def test_a_displacement_has_no_inverse_to_give():
    ddf, inverse = moving_network().with_inverse(smooth_pair(8, 8, 8))
    assert inverse is None and ddf.shape == (1, 3, 8, 8, 8)


@pytest.mark.parametrize("size", [(16, 12, 20), (15, 9, 21)])
def test_half_resolution_is_exact_for_a_contraction(size):
    """v = -a (x - center) is linear, which both resolutions hold exactly, and its flow stays inside."""
    grid = identity_grid(list(size), torch.zeros(1, dtype=torch.float64)).double()
    center = (torch.tensor(size, dtype=torch.float64) - 1).view(1, 3, 1, 1, 1) / 2
    rate = 0.7
    network = VoxelMorph(**SMALL, integrate_steps=7, half_resolution=True)
    expected = ((1 - rate / 2**7) ** (2**7) - 1) * (grid - center)
    torch.testing.assert_close(network.displace(-rate * (grid - center)), expected, rtol=1e-9, atol=1e-9)


def test_gradients_reach_every_parameter():
    network = moving_network(integrate_steps=2)
    fields = network.fields(torch.rand(1, 2, 16, 16, 16))
    fields.ddf.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_moving_and_fixed_are_told_apart():
    network, image = moving_network(), torch.rand(1, 2, 16, 16, 16)
    assert not torch.allclose(network(image), network(image.flip(1)), atol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"integrate_steps": 2}])
def test_fields_are_float32_under_autocast(settings):
    network, image = moving_network(**settings), smooth_pair(16, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = network.fields(image)
    assert reduced.svf.dtype == reduced.ddf.dtype == torch.float32
    expected = network.fields(image).ddf
    assert (reduced.ddf - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("settings", [{}, {"integrate_steps": 3}, {"integrate_steps": 3, "half_resolution": True}])
def test_forward_can_be_scripted(settings):
    network, image = moving_network(**settings), smooth_pair(9, 16, 12)
    # voxels: scripted, torch samples, by coordinates that went through [-1, 1]; eager, compiled loops by voxels
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"spatial_dims": 4}, "got 4"),
        ({"encoder": (8, 8), "decoder": (8, 8)}, "got 2 and 2"),
        ({"encoder": ()}, "got 7 and 0"),
        ({"integrate_steps": -1}, "got -1"),
        ({"half_resolution": True}, "got 0 and True"),
    ],
)
def test_wrong_settings_name_what_was_found(settings, found):
    with pytest.raises(ValueError, match=found):
        VoxelMorph(**settings)
