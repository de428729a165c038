"""LNCC of images whose intensities try float32: the two-pass oracle decides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common import lncc_separable
from common.lncc import lncc, lncc_mean
from tests.lncc_oracle import COMPUTED, OPTIONS, oracle, oracle_gradient, random_pair

HARD = [
    "offset 1000, contrast 0.01",
    "plateaus 0 and 1000, contrast 0.01",
    "CT: -1000 and 40, contrast 5",
    "scale 1e10",
    "scale 1e10 on an offset",
    "scale 1e-10",
    "flat 255",
    "scale 1e38",
    "plateaus of 1e10, texture in a corner",
]


def hard_pair(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 images whose contrast is small beside their intensity."""
    first, second = (image.detach() - 0.5 for image in random_pair(1, 1, 14, 13, 12))
    step = torch.where(torch.arange(13) < 6, 0.0, 1.0).view(1, 1, 1, 13, 1)
    if name == "plateaus of 1e10, texture in a corner":
        corner = 1e10 * (torch.arange(12) > 8)
        return 1.1e10 * step + corner * first + 3e9, 0.7e10 * step + corner * second - 1e9
    offset, contrast = {
        "offset 1000, contrast 0.01": (1000.0, 0.01),
        "plateaus 0 and 1000, contrast 0.01": (1000 * step, 0.01),
        "CT: -1000 and 40, contrast 5": (1040 * step - 1000, 5.0),
        "scale 1e10": (0.0, 1e10),
        "scale 1e10 on an offset": (1e12, 1e10),
        "scale 1e-10": (0.0, 1e-10),
        "flat 255": (255.0, 0.0),
        "scale 1e38": (0.0, 1e38),
    }[name]
    return offset + contrast * first, offset + contrast * second


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("name", HARD)
def test_map_of_hard_images_is_the_oracle(name, backend):
    images = hard_pair(name)
    value = lncc(*images, 5, backend=backend)
    assert value.dtype == torch.float32 and 0 <= float(value.min()) and float(value.max()) <= 1
    torch.testing.assert_close(value.double(), oracle(*images, 5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("name", HARD)
def test_mean_of_hard_images_and_its_gradient_are_the_oracle(name, backend):
    fixed, warped = (image.requires_grad_() for image in hard_pair(name))
    value = lncc_mean(fixed, warped, 5, backend=backend)
    assert float(value.detach()) == pytest.approx(float(oracle(fixed, warped, 5).mean()), abs=1e-4)
    gradient = torch.autograd.grad(value, warped)[0].double()
    expected = oracle_gradient(fixed, warped, 5)
    assert gradient.isfinite().all()
    floor = 1e-9 / (warped.numel() * float(warped.detach().abs().max()))  # 1e-9 of an ordinary gradient at this scale
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-3 * float(expected.abs().max()) + floor)


@pytest.mark.parametrize("backend", ["separable", "cpu"])
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    offsets=st.tuples(*[st.floats(-1e4, 1e4)] * 2),
    log_contrast=st.floats(-3, 3),
    imbalance=st.floats(-2, 2),
    flat=st.booleans(),
)
def test_map_is_the_oracle_at_any_offset_up_to_ten_thousand_contrasts(
    backend, seed, offsets, log_contrast, imbalance, flat
):
    generator = torch.Generator().manual_seed(seed)
    fixed, noise = torch.rand(2, 1, 1, 9, 10, 11, generator=generator)
    if flat:
        fixed[..., :5] = 0.5
    contrast, other = 10**log_contrast, 10 ** (log_contrast + imbalance)
    fixed, warped = contrast * (fixed + offsets[0]), other * (0.5 * fixed + noise + offsets[1])
    value = lncc(fixed, warped, 5, backend=backend)
    assert 0 <= float(value.min()) and float(value.max()) <= 1
    torch.testing.assert_close(value.double(), oracle(fixed, warped, 5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", ["separable", "group_conv"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), log_offset=st.floats(-1, 2.5), imbalance=st.floats(-1, 1))
def test_float32_stays_right_up_to_where_it_gives_way(backend, seed, log_offset, imbalance):
    """Offsets of 0.1 to 300 contrasts straddle the change to float64, where an unsound bound would show."""
    generator = torch.Generator().manual_seed(seed)
    fixed, noise = torch.rand(2, 1, 1, 12, 13, 14, generator=generator)
    fixed, warped = fixed + 10**log_offset, 0.9 * fixed + 0.1 * noise + 10 ** (log_offset + imbalance)
    value = lncc(fixed, warped, 5, backend=backend)
    torch.testing.assert_close(value.double(), oracle(fixed, warped, 5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", ["separable", "cpu"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(levels=st.tuples(*[st.floats(0.1, 1.3)] * 2), log_contrast=st.floats(-7, -1))
def test_covariance_of_nearly_flat_images_keeps_its_sign(backend, levels, log_contrast):
    """Unsquared, a covariance that is all rounding would show to first order."""
    fixed, warped = (image.detach() - 0.5 for image in random_pair(1, 1, 9, 9, 9))
    fixed, warped = levels[0] + 10**log_contrast * fixed, levels[1] - 10**log_contrast * warped
    value = lncc(fixed, warped, 5, squared=False, backend=backend)
    torch.testing.assert_close(value.double(), oracle(fixed, warped, 5, squared=False), rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("factor", [3.0, 7.3, 31.7])
def test_proportional_images_do_not_exceed_one(factor, squared, backend):
    image = 10 * random_pair(1, 1, 16, 16, 16)[0].detach()
    assert float(lncc(image, factor * image, 3, squared=squared, backend=backend).max()) <= 1


def test_ordinary_images_stay_in_float32(monkeypatch):
    dtypes = []
    sweep = lncc_separable.Sweep
    monkeypatch.setattr(
        lncc_separable,
        "Sweep",
        lambda f, w, k, formula, dtype, **out: dtypes.append(dtype) or sweep(f, w, k, formula, dtype, **out),
    )
    images = [image.detach() for image in random_pair(1, 1, 12, 12, 12)]
    lncc(*images, 9, backend="separable")
    assert dtypes == [torch.float32]
    lncc(images[0] + 1000, images[1], 9, backend="separable")
    assert dtypes[1:] == [torch.float32, torch.float64]


@pytest.mark.parametrize("backend", COMPUTED)
def test_tiny_times_huge_is_not_lost_to_underflow(backend):
    fixed, warped = (image.detach() for image in random_pair(1, 1, 9, 9, 9))
    fixed, warped = fixed * 1e-22, warped * 1e18
    expected = oracle(fixed, warped, 5, eps=1e-9)
    torch.testing.assert_close(lncc(fixed, warped, 5, eps=1e-9, backend=backend).double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("level", [0.0, 0.3, 255.0])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradient_of_flat_images_is_finite(options, level, backend):
    fixed = torch.full((1, 1, 9, 9, 9), level, requires_grad=True)
    warped = torch.full((1, 1, 9, 9, 9), level, requires_grad=True)
    gradients = torch.autograd.grad(lncc_mean(fixed, warped, 5, backend=backend, **options), (fixed, warped))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("backend", COMPUTED)
def test_not_a_number_stays_visible(backend):
    fixed, warped = (image.detach() for image in random_pair(1, 1, 9, 9, 9))
    fixed[0, 0, 4, 4, 4] = torch.nan
    assert lncc_mean(fixed, warped, 3, backend=backend).isnan()


def test_unsquared_map_tells_the_sign_of_the_contrast():
    image = random_pair(1, 1, 9, 9, 9)[0].detach()
    value = lncc(image, -image, 3, squared=False)
    assert -1 <= float(value.min()) and float(value.max()) < -0.9
