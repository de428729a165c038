"""Backends with a gradient of their own against finite differences; the separable one's blocks of any size."""

import pytest
import torch

from common import lncc_separable
from common.lncc import lncc, lncc_mean
from tests.lncc_oracle import OPTIONS, random_pair

OWN_GRADIENT = ["separable", "cpu"]


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
        value = lncc_mean(fixed, warped, 5, backend="separable")
        results.append((value, *torch.autograd.grad(value, (fixed, warped))))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("backend", OWN_GRADIENT)
@pytest.mark.parametrize("function", [lncc, lncc_mean])
@pytest.mark.parametrize("shape", [(2, 2, 4, 3, 5), (2, 2, 5, 4)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradient_is_the_finite_difference(options, shape, function, backend, small_blocks):
    images = random_pair(*shape, dtype=torch.float64)
    options = options | {"eps": 1e-2, "backend": backend}
    assert torch.autograd.gradcheck(lambda f, w: function(f, w, 3, **options), images, fast_mode=True)


@pytest.mark.parametrize("backend", OWN_GRADIENT)
def test_every_entry_of_the_jacobian_is_the_finite_difference(backend):
    images = random_pair(2, 2, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, w: lncc(f, w, 3, backend=backend), images)


@pytest.mark.parametrize("backend", OWN_GRADIENT)
def test_floored_variance_is_constant_for_the_gradient(backend):
    images = random_pair(1, 1, 5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, w: lncc(f, w, 3, eps=0.6, eps_mode="floor", backend=backend), images)


@pytest.mark.parametrize("backend", OWN_GRADIENT)
@pytest.mark.parametrize("function", [lncc, lncc_mean])
@pytest.mark.parametrize("which", [0, 1])
def test_gradient_by_one_image_alone_is_that_of_both(which, function, backend):
    images = random_pair(1, 2, 6, 7, 5, dtype=torch.float64)
    both = torch.autograd.grad(function(*images, 3, backend=backend).sum(), images)[which]
    alone = [image.detach() for image in images]
    alone[which].requires_grad_()
    gradient = torch.autograd.grad(function(*alone, 3, backend=backend).sum(), alone[which])[0]
    torch.testing.assert_close(gradient, both, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("backend", OWN_GRADIENT)
def test_only_the_needed_gradient_takes_room(backend):
    fixed, warped = random_pair(1, 1, 6, 7, 5)
    saved = lncc_mean(fixed.detach(), warped, 3, backend=backend).grad_fn.saved_tensors
    assert [gradient is None for gradient in saved] == [True, False]


@pytest.mark.parametrize("backend", OWN_GRADIENT)
@pytest.mark.parametrize("function", [lncc, lncc_mean])
def test_second_derivative_is_refused(function, backend):
    fixed, warped = random_pair(1, 1, 6, 7, 5, dtype=torch.float64)
    value = function(fixed, warped, 3, backend=backend).sum()
    (gradient,) = torch.autograd.grad(value, warped, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        (fixed.sum() + gradient.square().sum()).backward()


@pytest.mark.parametrize("backend", OWN_GRADIENT)
def test_backward_twice_gives_the_gradient_twice(backend):
    fixed, warped = random_pair(1, 1, 6, 7, 5)
    value = lncc_mean(fixed, warped, 3, backend=backend)
    first = torch.autograd.grad(value, warped, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(2 * value, warped)[0], 2 * first)
