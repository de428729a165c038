"""NCF on pairs whose deformation is known."""

import math

import pytest
import torch
from monai.transforms import GaussianSmooth
from ncf_bundle.field import CorrespondenceField
from ncf_bundle.network import NCF, halve

from common.errors import RegInputError, RegNumericsError
from common.spatial import identity_grid, warp

QUICK = {"widths": (32, 32), "smooth_channels": 8, "progress": False}


def smooth_noise(size, seed=0):
    """An image (1, 1, *S) in [0, 1] with structures of some voxels."""
    noise = torch.rand(1, *size, generator=torch.Generator().manual_seed(seed))
    image = GaussianSmooth(1.2)(noise).as_subclass(torch.Tensor)[None]
    return (image - image.min()) / (image.max() - image.min())


def known_pair(size):
    """A pair (1, 2, *S) and its true ddf, half waves of 1.5 voxels that vanish on the border."""
    grid = identity_grid(list(size), torch.zeros(()))
    span = torch.tensor(size).sub(1).view(1, -1, *[1] * len(size))
    wave = torch.sin(math.pi * grid / span).prod(dim=1, keepdim=True)
    ddf = 1.5 * wave * torch.tensor([1.0, -1.0, 0.5])[: len(size)].view(1, -1, *[1] * len(size))
    moving = smooth_noise(size)
    return torch.cat([moving, warp(moving, ddf)], dim=1), ddf


def error(found, ddf):
    """Root mean square distance in voxels."""
    return float((found - ddf).square().sum(1).mean().sqrt())


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((33, 28), {"iterations": 150}),
        ((33, 28), {"iterations": 150, "half_resolution_steps": 90}),
        ((33, 28), {"iterations": 150, "residual_smoothing": True}),
        ((33, 28), {"iterations": 150, "activation": "leaky_relu"}),
        ((17, 16, 15), {"iterations": 80, "learning_rate": 3e-3}),
    ],
)
def test_recovers_a_known_deformation(size, settings):
    pair, ddf = known_pair(size)
    network = NCF(**QUICK | settings)
    found = network(pair)
    assert found.shape == ddf.shape and not found.requires_grad
    assert error(found, ddf) < 0.4 * error(torch.zeros_like(ddf), ddf)
    first, last = network.traces[0], network.traces[-1]
    assert set(first.terms) == {"mse", "ssim", "occupancy"} and last.loss[-1] < 0.5 * first.loss[0]


def test_siren_lowers_the_loss():
    pair, _ = known_pair((33, 28))
    network = NCF(**QUICK, activation="siren", omega=5.0, iterations=60)
    network(pair)
    assert network.traces[0].loss[-1] < 0.5 * network.traces[0].loss[0]


def test_the_first_step_sees_the_identity():
    pair = smooth_noise((15, 14)).repeat(1, 2, 1, 1)
    network = NCF(**QUICK, iterations=1)
    network(pair)
    terms = {name: values[0] for name, values in network.traces[0].terms.items()}
    assert terms == pytest.approx({"mse": 0, "ssim": 0, "occupancy": 1e-7}, abs=1e-6)


def test_no_step_is_the_identity():
    assert not NCF(**QUICK, iterations=0)(known_pair((15, 14))[0]).any()


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_are_on_inside_whatever_the_caller_has(off):
    expected = NCF(**QUICK, iterations=3)(known_pair((15, 14))[0])
    with off():
        pair = known_pair((15, 14))[0]  # made in there: an inference tensor
        found = NCF(**QUICK, iterations=3)(pair)
    assert found.any() and torch.equal(found, expected)


def test_the_seed_alone_decides_and_pairs_of_a_batch_do_not_meet():
    pairs = torch.cat([known_pair((15, 14))[0], torch.cat([smooth_noise((15, 14), k) for k in (4, 5)], dim=1)])
    torch.manual_seed(1)
    both = NCF(**QUICK, iterations=4, seed=3)(pairs)
    torch.manual_seed(2)
    network = NCF(**QUICK, iterations=4, seed=3)
    assert torch.equal(network(pairs[1:]), both[1:]) and torch.equal(network(pairs[:1]), both[:1])
    assert not torch.equal(NCF(**QUICK, iterations=4, seed=4)(pairs[:1]), both[:1])


def test_parts_register_alike():
    pair = known_pair((13, 12, 11))[0].double()
    whole, parts = (NCF(**QUICK, iterations=3, chunk=c, slab=s)(pair) for c, s in ((0, 0), (700, 600)))
    assert whole.dtype == torch.float64
    torch.testing.assert_close(parts, whole, atol=1e-9, rtol=1e-7)


def test_a_reduced_precision_around_it_changes_nothing():
    pair = known_pair((15, 14))[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = NCF(**QUICK, iterations=3)(pair)
    assert torch.equal(found, NCF(**QUICK, iterations=3)(pair))


def test_the_learning_rate_falls_by_half_a_cosine_over_both_stages(monkeypatch):
    rates, step = [], torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))
    )
    NCF(**QUICK, iterations=6, half_resolution_steps=3)(known_pair((23, 22))[0])
    expected = [1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert rates == pytest.approx(expected)


def test_the_first_steps_see_half_the_resolution(monkeypatch):
    sizes, forward = [], CorrespondenceField.forward
    monkeypatch.setattr(
        CorrespondenceField, "forward", lambda self, size: (sizes.append(tuple(size)), forward(self, size))[1]
    )
    NCF(**QUICK, iterations=3, half_resolution_steps=2)(known_pair((23, 22))[0])
    assert sizes == [(12, 11)] * 2 + [(23, 22)] * 2  # the last one is the result


def test_halving_keeps_the_first_and_last_voxel_in_place():
    """A ramp that is constant where the blur meets the border keeps its values there, and its slope."""
    ramp = torch.linspace(-1, 2, 41).clamp(0, 1).expand(1, 1, 9, 41)
    found = halve(ramp)
    assert found.shape == (1, 1, 5, 21)
    torch.testing.assert_close(found[0, 0, :, 8:13], ramp[0, 0, ::2, 16:26:2], atol=1e-5, rtol=0)
    assert found[0, 0, :, 0].abs().max() < 1e-6 and (found[0, 0, :, -1] - 1).abs().max() < 1e-6


def test_a_plateau_ends_it_early():
    network = NCF(**QUICK, iterations=500, patience=5, tolerance=0.5)
    network(known_pair((15, 14))[0])
    assert 6 <= len(network.traces[0].loss) < 100


def test_a_weight_of_zero_leaves_its_term_out():
    network = NCF(**QUICK, iterations=1, ssim_weight=0.0)
    network(known_pair((6, 7))[0])  # smaller than the window, which is not asked for
    assert set(network.traces[0].terms) == {"mse", "occupancy"}
    heavy = NCF(**QUICK, iterations=1, mse_weight=3.0)
    pair = known_pair((15, 14))[0]
    heavy(pair)
    assert heavy.traces[0].terms["mse"][0] == pytest.approx(3 * float((pair[:, 0] - pair[:, 1]).square().mean()))


def test_the_bar_shows_the_three_terms(capsys):
    NCF(**QUICK | {"progress": True}, iterations=2)(known_pair((15, 14))[0])
    line = capsys.readouterr().err.split("\r")[-1]
    assert "2/2" in line and all(f"{name}=" in line for name in ("mse", "ssim", "occupancy"))


def test_it_has_no_weights_of_its_own():
    assert not NCF().state_dict() and not list(NCF().parameters())


@pytest.mark.parametrize(
    ("shape", "settings", "sentence"),
    [
        ((1, 2, 10, 30), {}, r"images of size \(10, 30\), .* below 11"),
        ((1, 2, 20, 20, 20), {"half_resolution_steps": 1}, r"size \(20, 20, 20\), optimised at \(10, 10, 10\)"),
        ((1, 3, 20, 20), {}, r"shape \(1, 3, 20, 20\)"),
        ((1, 2, 20), {}, r"shape \(1, 2, 20\)"),
    ],
)
def test_images_that_cannot_be_registered_are_refused(shape, settings, sentence):
    with pytest.raises(RegInputError, match=sentence):
        NCF(**QUICK, iterations=1, **settings)(torch.rand(shape))


def test_images_that_are_not_finite_are_said():
    with pytest.raises(RegNumericsError, match="step 1"):
        NCF(**QUICK, iterations=1)(torch.full((1, 2, 12, 12), math.nan))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"iterations": -1}, "iterations is -1"),
        ({"iterations": 5, "half_resolution_steps": 6}, "half_resolution_steps 6"),
        ({"learning_rate": 1e-7}, "learning_rate is 1e-07"),
        ({"mse_weight": 0.0, "ssim_weight": 0.0}, "the loss has the weights"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_wrong_settings_are_refused_before_a_pair_is_at_hand(settings, sentence):
    with pytest.raises(RegInputError, match=sentence):
        NCF(**settings)
