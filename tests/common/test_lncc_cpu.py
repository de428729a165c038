"""LNCC by running sums: what they could keep of voxels that have left the window, threads, and every size of window."""

import pytest
import torch

from common import kernels_cpu
from common.lncc import EPS_MODES, lncc, lncc_mean
from tests.lncc_oracle import OPTIONS, oracle, random_pair
from tests.threads import set_threads


def long_pair(axis: int, offset: float, contrast: float, length: int = 200) -> list[torch.Tensor]:
    """Float32 images: a bright block of strong noise, then a long rest of low contrast on the same offset."""
    rest = torch.arange(length).view(1, 1, length, 1, 1) >= length // 3
    pair = [image.detach() - 0.5 for image in random_pair(1, 1, length, 10, 10, dtype=torch.float64)]
    images = [(offset + torch.where(rest, contrast * image, 1000 + 900 * image)).float() for image in pair]
    return [image.movedim(2, axis + 2).contiguous() for image in images]


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("offset", "contrast"), [(0.0, 1.0), (1000.0, 1.0), (1000.0, 0.02), (-5000.0, 5.0)])
@pytest.mark.parametrize("squared", [True, False])
def test_nothing_of_a_bright_block_stays_in_the_sums(squared, offset, contrast, axis):
    images = long_pair(axis, offset, contrast)
    found = lncc(*images, 5, squared=squared, backend="cpu").double()
    tolerance = 1e-12 * (1000 / contrast) ** 2 + 2e-6  # of a variance, and of the float32 that the map is kept in
    torch.testing.assert_close(found, oracle(*images, 5, squared=squared), rtol=0, atol=tolerance)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("squared", [True, False])
def test_windows_are_flat_again_after_a_bright_block(squared, axis):
    """What rounding leaves is no contrast: the value is 0, and no image has a gradient from it."""
    images = [image.requires_grad_() for image in long_pair(axis, 3.3, 0.0)]
    value = lncc(*images, 5, squared=squared, backend="cpu")
    inside = tuple(slice(80, -4) if k == axis else slice(2, -2) for k in range(3))
    assert not value[(0, 0, *inside)].any()
    deep = tuple(slice(80, -8) if k == axis else slice(4, -4) for k in range(3))
    for gradient in torch.autograd.grad(value.sum(), images):
        assert float(gradient[(0, 0, *deep)].abs().max()) < 1e-5 * float(gradient.abs().max())


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("level", [0.0, 3.3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_flat_background_has_no_gradient_beside_the_head(options, level, scale):
    """Where both images are flat the slopes are the steepest, and cancel."""
    axes = torch.meshgrid(*[torch.arange(14) - 6.5] * 3, indexing="ij")
    head = (sum(axis**2 for axis in axes) < 20).double()
    fixed, warped = (level + scale * head * (0.5 + image.detach()) for image in random_pair(1, 1, 14, 14, 14))
    results = []
    for backend, dtype in (("cpu", torch.float32), ("separable", torch.float64)):
        images = [image.float().to(dtype).requires_grad_() for image in (fixed, warped)]
        results.append(torch.autograd.grad(lncc_mean(*images, 3, backend=backend, **options), images))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_gradient_along_a_long_volume_is_that_of_short_sums(offset):
    images = [image.requires_grad_() for image in long_pair(0, offset, 10.0)]
    results = []
    for backend, dtype in (("cpu", torch.float32), ("separable", torch.float64)):
        value = lncc(*(image.to(dtype) for image in images), 5, backend=backend)
        results.append(torch.autograd.grad(value.sum(), images))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
        block = (..., slice(0, 60), slice(None), slice(None))  # slopes are smaller there by a hundred
        torch.testing.assert_close(
            found[block], expected[block], rtol=0, atol=1e-3 * float(expected[block].abs().max())
        )


@pytest.mark.parametrize("shape", [(1, 1, 15, 17, 16), (1, 1, 16, 15, 15), (1, 2, 15, 31)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 9, 11, 13, 15])
def test_every_window_up_to_the_shortest_side_gives_value_and_gradients_of_short_sums(kernel_size, shape):
    fixed, warped = random_pair(*shape, dtype=torch.float64)
    upstream = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 0.3
    results = []
    for backend in ("cpu", "separable"):
        value = lncc(fixed, warped, kernel_size, backend=backend)
        results.append((value, *torch.autograd.grad(value, (fixed, warped), upstream)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threads", [2, 3, 20])
@pytest.mark.parametrize("shape", [(1, 1, 9, 7, 8), (1, 1, 11, 9)])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_slabs_join_without_a_seam(kernel_size, shape, threads, monkeypatch):
    monkeypatch.setattr(kernels_cpu, "MIN_VOXELS", 1)
    images = random_pair(*shape, dtype=torch.float64)
    results = []
    for count in (1, threads):
        with set_threads(count):
            mean, value = (function(*images, kernel_size, backend="cpu") for function in (lncc_mean, lncc))
            gradients = (torch.autograd.grad(of.mean(), images) for of in (mean, value))
        results.append((mean, value, *(gradient for pair in gradients for gradient in pair)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 4, 5), (5, 1, 4), (4, 5, 1)])
def test_an_axis_of_a_single_voxel_has_windows_of_one(size):
    images = [image.requires_grad_() for image in random_pair(2, 1, *size, dtype=torch.float64)]
    value = lncc(*images, 1, backend="cpu")
    torch.testing.assert_close(value.detach(), torch.zeros_like(value), rtol=0, atol=0)
    assert not any(gradient.any() for gradient in torch.autograd.grad(value.sum(), images))


@pytest.mark.parametrize("place", [(0, 0, 0), (3, 4, 2), (6, 6, 6)])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("eps_mode", EPS_MODES)
def test_what_is_no_number_stays_visible_under_every_formula(eps_mode, value, place):
    fixed, warped = (image.detach() for image in random_pair(1, 1, 7, 7, 7))
    warped[(0, 0, *place)] = value
    assert lncc_mean(fixed, warped, 3, eps_mode=eps_mode, backend="cpu").isnan()
    assert lncc_mean(warped, fixed, 3, eps_mode=eps_mode, backend="cpu").isnan()


@pytest.mark.parametrize("eps", [1, torch.tensor(1.0).numpy(), 1.0])
def test_the_type_of_an_option_compiles_no_other_kernel(eps):
    from common import lncc_cpu

    images = [image.detach() for image in random_pair(1, 1, 5, 5, 5)]
    lncc(*images, 3, eps=1.0, backend="cpu")
    before = len(lncc_cpu.sweep.signatures)
    lncc(*images, 3, eps=eps, squared=1, backend="cpu")
    assert len(lncc_cpu.sweep.signatures) == before
