"""Mutual information against a dense histogram with SciPy's B-splines, analytic cases and MONAI."""

import math

import numpy as np
import pytest
import torch
from monai.losses import GlobalMutualInformationLoss
from scipy.interpolate import BSpline

from common.errors import RegInputError
from common.mutual_information import CHUNK, MutualInformationLoss, mutual_information


def random(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def dense_weights(image: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """(N, bins) values of cubic B-splines centered on the bins; low lies at bin 1 and high at bin ``bins - 2``."""
    position = 1 + (np.clip(image, low, high).ravel() - low) / (high - low) * (bins - 3)
    spline = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)
    return np.nan_to_num(spline(position[:, None] - np.arange(bins)))


def dense_information(weights_f: np.ndarray, weights_w: np.ndarray) -> float:
    joint = weights_f.T @ weights_w / len(weights_f)
    product = np.outer(joint.sum(1), joint.sum(0))
    return float(np.sum(joint[joint > 0] * np.log(joint[joint > 0] / product[joint > 0])))


def classes(counts: list[int], order: list[float], seed=0) -> torch.Tensor:
    """(1, 1, N) of values from ``order``, the k-th ``counts[k]`` times, in one shuffled arrangement."""
    values = torch.repeat_interleave(torch.tensor(order, dtype=torch.float64), torch.tensor(counts))
    return values[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))][None, None]


@pytest.mark.parametrize("bins", [5, 16, 32])
@pytest.mark.parametrize("size", [(9, 8, 7), (20, 21)])
def test_the_value_is_that_of_a_dense_histogram(bins, size):
    fixed, noise = random(1, 1, *size), random(1, 1, *size, seed=1)
    warped = (1 - fixed) ** 2 + 0.2 * noise
    images = [image.numpy() for image in (fixed, warped)]
    weights = [dense_weights(image, image.min(), image.max(), bins) for image in images]
    assert float(mutual_information(fixed, warped, bins)) == pytest.approx(dense_information(*weights), abs=1e-12)


def test_given_ranges_hold_what_lies_beyond_at_their_ends():
    fixed, warped = random(1, 1, 400), random(1, 1, 400, seed=1) + random(1, 1, 400)
    weights = dense_weights(fixed.numpy(), 0.2, 0.7, 20), dense_weights(warped.numpy(), -1.0, 1.5, 20)
    found = mutual_information(fixed, warped, 20, fixed_range=(0.2, 0.7), warped_range=(-1.0, 1.5))
    assert float(found) == pytest.approx(dense_information(*weights), abs=1e-12)


def test_more_voxels_than_a_chunk_are_one_histogram():
    fixed = random(1, 1, 3 * CHUNK + 5)
    warped = fixed.sqrt()
    weights = [dense_weights(image.numpy(), image.min().item(), image.max().item(), 32) for image in (fixed, warped)]
    assert float(mutual_information(fixed, warped)) == pytest.approx(dense_information(*weights), abs=1e-10)


@pytest.mark.parametrize("order", [[0.0, 0.5, 1.0], [0.5, 1.0, 0.0], [7.0, -3.0, 2.0]])
def test_of_separate_intensities_it_is_their_entropy_whatever_they_are_mapped_to(order):
    """Windows that do not overlap: the sum is that of the classes' frequencies."""
    counts = [100, 250, 650]
    entropy = -sum(n / 1000 * math.log(n / 1000) for n in counts)
    fixed, warped = classes(counts, [0.0, 0.5, 1.0]), classes(counts, order)
    assert float(mutual_information(fixed, warped)) == pytest.approx(entropy, abs=1e-12)
    assert float(mutual_information(fixed, fixed)) == pytest.approx(entropy, abs=1e-12)


def test_of_independent_images_it_is_zero():
    """Every intensity of one meets every intensity of the other once: the histogram is a product."""
    fixed = random(40, 1).expand(40, 50).reshape(1, 1, 40, 50)
    warped = random(1, 50, seed=1).expand(40, 50).reshape(1, 1, 40, 50)
    assert float(mutual_information(fixed, warped)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kernel_type", ["b-spline", "gaussian"])
def test_of_separate_intensities_monai_agrees(kernel_type):
    """Its windows differ (B-spline against none, or Gaussians on both), but they separate these values as well."""
    fixed, warped = classes([300, 200, 500], [0.0, 0.5, 1.0]).float(), classes([300, 200, 500], [1.0, 0.0, 0.5]).float()
    theirs = GlobalMutualInformationLoss(kernel_type=kernel_type, num_bins=32)(warped, fixed)
    assert float(MutualInformationLoss()(warped, fixed)) == pytest.approx(float(theirs), abs=2e-4)


def test_of_correlated_normal_images_it_is_near_the_formula():
    """-log(1 - rho^2) / 2; the windows blur by a third of a bin's square, here two percent of a standard deviation."""
    rho, generator = 0.8, torch.Generator().manual_seed(0)
    fixed, other = torch.randn(2, 1, 1, 400_000, generator=generator)
    warped = rho * fixed + math.sqrt(1 - rho**2) * other
    found = float(mutual_information(fixed, warped, 64, fixed_range=(-4, 4), warped_range=(-4, 4)))
    assert found == pytest.approx(-math.log(1 - rho**2) / 2, rel=0.03)


def test_it_is_symmetric_and_a_batch_is_its_mean():
    fixed, warped = random(2, 1, 6, 5, 4), random(2, 1, 6, 5, 4, seed=1)
    each = [float(mutual_information(fixed[i : i + 1], warped[i : i + 1])) for i in range(2)]
    assert float(mutual_information(fixed, warped)) == pytest.approx(sum(each) / 2)
    assert float(mutual_information(warped, fixed)) == pytest.approx(sum(each) / 2)


@pytest.mark.parametrize("batch", [1, 2])
def test_only_voxels_of_the_mask_count(batch):
    fixed, warped = random(2, 1, 8, 9), random(2, 1, 8, 9, seed=1)
    mask = torch.zeros(batch, 1, 8, 9)
    mask[..., 2:7, 1:6] = 3
    spoilt = torch.where(mask > 0, warped, 100.0).requires_grad_()
    value = mutual_information(fixed, spoilt, 10, mask)
    value.backward()
    expected = mutual_information(fixed[..., 2:7, 1:6], warped[..., 2:7, 1:6], 10)
    assert float(value.detach()) == pytest.approx(float(expected))
    assert ((spoilt.grad != 0) <= (mask > 0)).all() and spoilt.grad.any()


@pytest.mark.parametrize("bins", [5, 12])
def test_both_gradients_are_exact(bins):
    fixed, warped = random(2, 1, 4, 5, 3).requires_grad_(), random(2, 1, 4, 5, 3, seed=1).requires_grad_()
    mask = (random(1, 1, 4, 5, 3, seed=2) > 0.3).double()
    ranges = {"fixed_range": (0.15, 1.1), "warped_range": (-0.2, 0.8)}  # some voxels lie beyond
    assert torch.autograd.gradcheck(lambda f, w: mutual_information(f, w, bins, mask, **ranges), (fixed, warped))


def test_voxels_beyond_the_range_have_no_gradient():
    warped = random(1, 1, 300, seed=1).requires_grad_()
    mutual_information(random(1, 1, 300), warped, warped_range=(0.3, 0.6)).backward()
    beyond = (warped < 0.3) | (warped > 0.6)
    assert (warped.grad[beyond] == 0).all() and (warped.grad[~beyond] != 0).all()


@pytest.mark.parametrize("flat", ["fixed", "warped", "both"])
def test_a_flat_image_gives_zero_and_no_gradient(flat):
    images = {name: random(1, 1, 6, 6, 6, seed=k, dtype=torch.float32) for k, name in enumerate(("fixed", "warped"))}
    for name in images if flat == "both" else [flat]:
        images[name] = torch.full((1, 1, 6, 6, 6), 5.0)
    images = {name: image.requires_grad_() for name, image in images.items()}
    value = mutual_information(**images)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert all(image.grad.abs().max() < 1e-7 for image in images.values())
    assert images["warped" if flat == "both" else flat].grad.count_nonzero() == 0


def test_the_loss_falls_toward_alignment_under_inverted_contrast():
    axis = torch.linspace(-2, 2, 40)
    image = torch.exp(-(axis[:, None] ** 2) - 2 * axis**2)[None, None]
    losses = [float(MutualInformationLoss()(image.roll(shift, 2), 1 - image)) for shift in (6, 3, 1, 0)]
    assert losses == sorted(losses, reverse=True)


def test_autocast_keeps_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mutual_information(random(1, 1, 99).bfloat16(), random(1, 1, 99, seed=1)).dtype == torch.float64
        assert mutual_information(*random(2, 1, 1, 99).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warped": torch.zeros(1, 1, 4, 5)}, "resample one onto the other's grid"),
        ({"fixed": torch.zeros(1, 2, 4, 4), "warped": torch.zeros(1, 2, 4, 4)}, "expected two of the same"),
        ({"bins": 4}, "at least 5"),
        ({"fixed_mask": torch.ones(1, 1, 4, 5)}, "mask of shape"),
        ({"fixed_mask": torch.zeros(1, 1, 4, 4)}, "mask without a voxel"),
        ({"fixed_range": (1, 1)}, "range is 1 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(RegInputError, match=message):
        mutual_information(**{"fixed": random(1, 1, 4, 4), "warped": random(1, 1, 4, 4)} | change)
