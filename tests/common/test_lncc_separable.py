"""The separable backend: blocks of any size, and gradients against finite differences."""

import pytest
import torch

from common import lncc_separable
from common.lncc import lncc, lncc_mean
from tests.lncc_oracle import OPTIONS, random_pair


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one plane, so that every sweep crosses many of their borders."""
    monkeypatch.setitem(lncc_separable.BLOCK_BYTES, "cpu", 1)


@pytest.mark.parametrize("shape", [(1, 1, 40, 9, 8), (1, 2, 33, 9)])
def test_block_size_does_not_matter(shape, monkeypatch):
    fixed, warped = random_pair(*shape, dtype=torch.float64)
    plane = 8 * (shape[3] + 4) * ((shape[4] + 4) if len(shape) == 5 else 1)
    results = []
    for planes in (100, 1, 3, 4, 7):
        monkeypatch.setitem(lncc_separable.BLOCK_BYTES, "cpu", planes * plane)
        value = lncc_mean(fixed, warped, 5)
        results.append((value, *torch.autograd.grad(value, (fixed, warped))))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("function", [lncc, lncc_mean])
@pytest.mark.parametrize("shape", [(2, 2, 4, 3, 5), (2, 2, 5, 4)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradient_is_the_finite_difference(options, shape, function, small_blocks):
    images = random_pair(*shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, w: function(f, w, 3, eps=1e-2, **options), images, fast_mode=True)


def test_every_entry_of_the_jacobian_is_the_finite_difference():
    images = random_pair(2, 2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, w: lncc(f, w, 3), images)


def test_floored_variance_is_constant_for_the_gradient():
    images = random_pair(1, 1, 5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, w: lncc(f, w, 3, eps=0.6, eps_mode="floor"), images)


@pytest.mark.parametrize("function", [lncc, lncc_mean])
@pytest.mark.parametrize("which", [0, 1])
def test_gradient_by_one_image_alone_is_that_of_both(which, function):
    images = random_pair(1, 2, 6, 7, 5, dtype=torch.float64)
    both = torch.autograd.grad(function(*images, 3).sum(), images)[which]
    alone = [image.detach() for image in images]
    alone[which].requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad(function(*alone, 3).sum(), alone[which])[0], both, rtol=1e-12, atol=0
    )


def test_only_the_needed_gradient_takes_room():
    fixed, warped = random_pair(1, 1, 6, 7, 5)
    saved = lncc_mean(fixed.detach(), warped, 3).grad_fn.saved_tensors
    assert [gradient is None for gradient in saved] == [True, False]


@pytest.mark.parametrize("function", [lncc, lncc_mean])
def test_second_derivative_is_refused(function):
    fixed, warped = random_pair(1, 1, 6, 7, 5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(function(fixed, warped, 3).sum(), warped, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (fixed.sum() + gradient.square().sum()).backward()


def test_backward_twice_gives_the_gradient_twice():
    fixed, warped = random_pair(1, 1, 6, 7, 5)
    value = lncc_mean(fixed, warped, 3)
    first = torch.autograd.grad(value, warped, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(2 * value, warped)[0], 2 * first)
