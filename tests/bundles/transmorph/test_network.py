import pytest
import torch
from transmorph_bundle.network import VARIANTS, TransMorph

from common.spatial import warp
from tests.golden import fill, golden_network, golden_pair


def tiny(**settings) -> TransMorph:
    """The smallest network with a head large enough to be seen."""
    torch.manual_seed(0)
    network = TransMorph("tiny", **settings).eval()
    torch.nn.init.normal_(network.head.weight, std=0.1)
    return network


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_field_equals_the_reference_program():
    facts, arrays = golden_network("transmorph")
    network, image = TransMorph(), golden_pair(facts)
    fill(network, [(network.head, facts["flow_head_factor"])])
    with torch.no_grad():
        ddf = network(image)[0]
        warped = warp(image[:, :1], ddf[None], padding_mode="zeros")[0, 0]
    for key, start in (("grid0", 0), ("grid3", 3)):
        error = (ddf[:, start::4, start::4, start::4] - torch.from_numpy(arrays[key])).abs()
        assert error.max() <= 3e-4 and error.mean() <= 2e-5, key
    assert (warped[::4, ::4, ::4] - torch.from_numpy(arrays["warped0"])).abs().max() <= 1e-4


def test_base_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert count(TransMorph()) == 46_771_251


@pytest.mark.parametrize(("variant", "millions"), [("tiny", 0.2445), ("small", 11.76), ("large", 108.34)])
def test_variants_have_the_published_millions_of_parameters(variant, millions):
    """To the published digits."""
    with torch.device("meta"):
        total = count(TransMorph(variant)) / 1e6
    assert f"{total:.{len(str(millions).partition('.')[2])}f}" == str(millions)


@pytest.mark.parametrize("variant", VARIANTS)
def test_heads_divide_the_features(variant):
    embed_dim, depths, heads = VARIANTS[variant]
    assert len(depths) == len(heads) == 4 and all(embed_dim * 2**k % n == 0 for k, n in enumerate(heads))


@pytest.mark.parametrize("size", [(32, 32, 32), (17, 30, 33), (5, 40, 18)])
def test_any_size_gives_fields_of_that_size(size):
    for field in tiny().fields(torch.rand(2, 2, *size)):
        assert field.shape == (2, 3, *size) and field.isfinite().all()


def test_two_dimensional_network_registers_two_dimensional_images():
    assert tiny(spatial_dims=2)(torch.rand(2, 2, 33, 50)).shape == (2, 2, 33, 50)


def test_training_starts_near_the_identity():
    assert 0 < TransMorph("tiny")(torch.rand(1, 2, 32, 32, 32)).abs().max() < 1e-2


def test_the_order_of_the_images_matters():
    network, image = tiny(), torch.rand(1, 2, 32, 32, 32)
    assert not torch.allclose(network(image), network(image.flip(1)), atol=1e-3)


def test_samples_of_a_batch_do_not_see_each_other():
    network, image = tiny(), torch.rand(2, 2, 32, 32, 64)
    torch.testing.assert_close(network(image)[1:], network(image[1:]), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter():
    """In evaluation mode: training leaves out blocks at random."""
    network = tiny()
    network(torch.rand(1, 2, 32, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_forward_can_be_scripted(dims):
    network, image = tiny(spatial_dims=dims), torch.rand(1, 2, *(20, 33, 40)[-dims:])
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-5)


def test_fields_are_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny().fields(torch.rand(1, 2, 32, 32, 32)).ddf.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "found"),
    [({"variant": "huge"}, "tiny, small, base, large, got 'huge'"), ({"window": (5, 6)}, r"got 3 and \[5, 6\]")],
)
def test_wrong_settings_name_what_was_found(settings, found):
    with pytest.raises(ValueError, match=found):
        TransMorph(**settings)
