import json

import pytest
import torch
from eoir_bundle.network import EOIR
from torch import nn

from common.spatial import warp
from tests.golden import FOLDER, fill, golden_network, golden_pair, golden_values

PRESETS = {
    "eoir8": {"channels": 8},
    "eoir_oasis8": {
        "channels": 8,
        "levels": 4,
        "large_kernel": True,
        "half_resolution": True,
        "integrate_steps": 0,
    },
    "eoir_acdc8": {"channels": 8, "pyramid_factor": (2, 2, 1), "double_all_axes": True},
}


def filled(name: str) -> EOIR:
    network = EOIR(**PRESETS[name])
    finest_first = list(network.estimators)[::-1]
    return fill(network, [(head[-1], 0.0625 * (1 + i / 4)) for i, head in enumerate(finest_first)])


def test_golden_weights_are_rebuilt_from_their_shapes():
    for check in json.loads((FOLDER / "networks.json").read_text())["weight_check"].items():
        shape, expected = tuple(int(n) for n in check[0].split("x")), check[1]
        values = golden_values(shape).double().flatten()
        assert values[:3].tolist() == pytest.approx(expected["first"], abs=1e-9)
        assert float(values.sum()) == pytest.approx(expected["sum"], abs=1e-6)


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


@pytest.mark.parametrize("name", PRESETS)
def test_field_equals_the_reference_program_in_float64(name):
    facts, arrays = golden_network(name)
    with torch.no_grad():
        ddf = filled(name).double()(golden_pair(facts).double())[0]
    assert (ddf[:, ::4, ::4, ::4] - torch.from_numpy(arrays["grid0"])).abs().max() <= 2e-6


@pytest.mark.parametrize("name", PRESETS)
def test_levels_equal_the_reference_program(name):
    facts, _ = golden_network(name)
    expected = facts["levels_finest_first"]
    levels = filled(name).pyramid(golden_pair(facts))
    for kind, fields in (("pre_integration", levels.svf), ("composed", levels.ddf)):
        assert [list(f.shape[2:]) for f in fields] == expected[f"{kind}_shape"][: len(fields)]
        means = [float(f.detach().abs().mean()) for f in fields]
        assert means == pytest.approx(expected[f"{kind}_mean_abs"][: len(fields)], rel=1e-4)


@pytest.mark.parametrize(("channels", "parameters"), [(8, 111_208), (16, 294_272), (32, 909_232), (64, 3_134_480)])
def test_base_network_has_the_published_number_of_parameters(channels, parameters):
    assert count(EOIR(channels=channels)) == parameters


@pytest.mark.parametrize(("channels", "parameters"), [(8, 258_772), (16, 914_172), (32, 3_441_484)])
def test_oasis_network_has_the_published_number_of_used_parameters(channels, parameters):
    assert count(EOIR(**PRESETS["eoir_oasis8"] | {"channels": channels})) == parameters


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("preset", "channels", "size", "giga"),
    [
        ("eoir_acdc8", 8, (128, 128, 16), 11.020),
        ("eoir_acdc8", 32, (128, 128, 16), 114.207),
        ("eoir8", 8, (96, 80, 128), 37.5),
        ("eoir8", 16, (96, 80, 128), 115.1),
        ("eoir8", 32, (96, 80, 128), 398.6),
        ("eoir8", 32, (160, 224, 192), 2790.2),
        ("eoir_oasis8", 32, (160, 192, 224), 10_823),
    ],
)
def test_multiply_adds_equal_the_published_ones(preset, channels, size, giga):
    """Counted as torchinfo does (a bias adds one), on a network without memory."""
    with torch.device("meta"):
        network = EOIR(**PRESETS[preset] | {"channels": channels})
    total = 0

    def add(module, _, output):
        nonlocal total
        total += sum(p.numel() for p in module.parameters()) * output[0, 0].numel() * len(output)

    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(add)
    with torch.device("meta"):
        network(torch.empty(1, 2, *size))
    assert total / 1e9 == pytest.approx(giga, rel=2e-3)


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 30, 33), (5, 40, 18)])
@pytest.mark.parametrize("name", PRESETS)
def test_any_size_gives_a_field_of_that_size(name, size):
    ddf = EOIR(**PRESETS[name])(torch.rand(2, 2, *size))
    assert ddf.shape == (2, 3, *size) and ddf.isfinite().all()


@pytest.mark.parametrize("depth", range(7))
def test_encoder_depth_is_a_setting(depth):
    network = EOIR(channels=4, encoder_depth=depth)
    assert sum(isinstance(m, nn.PReLU) for m in network.encoder.modules()) == depth
    assert network(torch.rand(1, 2, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_estimator_radius_sets_the_bottleneck():
    assert EOIR(channels=4, estimator_radius=2).estimators[0][-1].in_channels == 125


def test_two_dimensional_network_registers_two_dimensional_images():
    assert EOIR(spatial_dims=2, channels=4, levels=3)(torch.rand(2, 2, 33, 20)).shape == (2, 2, 33, 20)


def test_equal_images_swapped_give_the_same_field():
    """f - m vanishes and f + m is the same: only the order moving, fixed may tell them apart."""
    network, image = EOIR(channels=4), torch.rand(1, 1, 16, 16, 16)
    a, b = torch.rand(2, 1, 1, 16, 16, 16)
    torch.testing.assert_close(network(torch.cat([image, image], 1)), network(torch.cat([image, image], 1).flip(1)))
    assert not torch.allclose(network(torch.cat([a, b], 1)), network(torch.cat([b, a], 1)), atol=1e-3)


def test_gradients_reach_every_parameter():
    network = EOIR(channels=4)
    levels = network.pyramid(torch.rand(1, 2, 32, 32, 32))
    sum(ddf.square().sum() for ddf in levels.ddf).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_forward_can_be_scripted(name):
    network, image = filled(name), torch.rand(1, 2, 20, 32, 32, generator=torch.Generator().manual_seed(0))
    # voxels: scripted, torch samples, by coordinates that went through [-1, 1]; eager, compiled loops by voxels
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "found"),
    [({"spatial_dims": 4}, "got 4"), ({"pyramid_factor": (2, 2)}, r"\(2, 2\)"), ({"encoder_depth": 7}, "got 7")],
)
def test_wrong_settings_name_what_was_found(settings, found):
    with pytest.raises(ValueError, match=found):
        EOIR(**settings)
