"""MIND-SSC against the paper's formula written out, pair by pair and voxel by voxel of the patch."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from common.errors import RegInputError
from common.mind import CHANNELS, mind

SIZES = [(9, 7, 8), (11, 9)]


def written_out(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """(K, *S) of one image: neighbors whose distance is sqrt(2) dilations, in any order of the pairs."""
    ndim, margin = image.ndim, radius + dilation
    padded = np.pad(image.astype(np.float64), margin, mode="edge")

    def moved(offset):
        return padded[tuple(slice(margin + o, margin + o + n) for o, n in zip(offset, image.shape, strict=True))]

    neighbors = [sign * dilation * np.eye(ndim, dtype=int)[axis] for axis in range(ndim) for sign in (1, -1)]
    pairs = [(a, b) for a, b in combinations(neighbors, 2) if ((a - b) ** 2).sum() == 2 * dilation**2]
    patch = [np.array(offset) for offset in product(range(-radius, radius + 1), repeat=ndim)]
    distances = np.stack([np.mean([(moved(a + o) - moved(b + o)) ** 2 for o in patch], axis=0) for a, b in pairs])
    distances -= distances.min(axis=0)
    noise = distances.mean(axis=0)
    return np.exp(-distances / np.clip(noise, 1e-3 * noise.mean(), 1e3 * noise.mean()))


def sorted_channels(descriptor) -> np.ndarray:
    """The channels of every voxel in ascending order: their own order is nobody's convention."""
    return np.sort(np.asarray(descriptor), axis=0)


def rough(size, seed=0, dtype=torch.float64):
    return torch.rand(1, 1, *size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def half_quiet(size) -> torch.Tensor:
    """One half has a hundredth of the contrast, so its noise is below a thousandth of the mean."""
    image = rough(size)
    image[..., : size[-1] // 2] *= 0.005
    return image


def spike() -> torch.Tensor:
    """One bright voxel in a large flat image: the noise around it exceeds a thousand times the mean."""
    image = torch.zeros(1, 1, 24, 24, 24, dtype=torch.float64)
    image[..., 12, 11, 10] = 1
    return image


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("radius", "dilation"), [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3)])
def test_every_channel_is_the_papers_formula(size, radius, dilation):
    image = rough(size)
    found, expected = mind(image, radius, dilation)[0], written_out(image[0, 0].numpy(), radius, dilation)
    assert found.shape == expected.shape == (CHANNELS[len(size)], *size)
    np.testing.assert_allclose(sorted_channels(found), sorted_channels(expected), atol=1e-12)


@pytest.mark.parametrize("image", [half_quiet((10, 9, 12)), spike()])
def test_the_noise_is_held_within_its_range(image):
    found, expected = mind(image, 0, 1)[0], written_out(image[0, 0].numpy(), 0, 1)
    np.testing.assert_allclose(sorted_channels(found), sorted_channels(expected), atol=1e-12)


def test_channels_are_in_one_order_everywhere():
    """A ramp along one axis is described alike at all inner voxels, by three values."""
    image = torch.arange(12.0).view(1, 1, -1, 1, 1).expand(1, 1, 12, 10, 10)
    inner = mind(image, 1, 1)[0, :, 3:-3, 3:-3, 3:-3].flatten(1)
    assert (inner == inner[:, :1]).all()
    assert sorted(inner[:, 0].tolist()) == pytest.approx([float(np.exp(-1.5))] * 8 + [1.0] * 4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [3.0, -1.0, -250.0])
def test_an_affine_map_of_intensities_changes_nothing_not_even_an_inversion(size, scale):
    image = rough(size)
    torch.testing.assert_close(mind(scale * image + 7), mind(image), atol=1e-9, rtol=0)


def test_float32_holds_at_a_large_offset():
    image = rough((12, 12, 12), dtype=torch.float32)
    torch.testing.assert_close(mind(image + 1000), mind(image.double()).float(), atol=5e-3, rtol=0)


def test_items_of_a_batch_do_not_see_each_other():
    images = torch.cat([half_quiet((8, 9, 10)), 50 * rough((8, 9, 10), 1)])
    torch.testing.assert_close(mind(images, 1, 2), torch.cat([mind(image[None], 1, 2) for image in images]))


def test_mirrored_images_have_mirrored_descriptors():
    image = rough((9, 8, 7))
    found = mind(image.flip(2))[0].flip(1)
    np.testing.assert_allclose(sorted_channels(found), sorted_channels(mind(image)[0]), atol=1e-12)


@pytest.mark.parametrize("size", [(5, 4, 3), (5, 4)])
def test_a_flat_image_is_one_everywhere_and_has_no_gradient(size):
    image = torch.full((1, 1, *size), 3.0, requires_grad=True)
    descriptor = mind(image)
    descriptor.sum().backward()
    assert (descriptor == 1).all() and (image.grad == 0).all()


@pytest.mark.parametrize(
    "image", [rough((5, 6, 4)), rough((6, 7)), half_quiet((4, 4, 8)), torch.cat([half_quiet((6, 9)), rough((6, 9))])]
)
@pytest.mark.parametrize(("radius", "dilation"), [(0, 1), (1, 2)])
def test_the_gradient_is_exact(image, radius, dilation):
    weight = torch.linspace(-1, 1, image.numel() * CHANNELS[image.ndim - 2], dtype=torch.float64)

    def value(image):
        return (mind(image, radius, dilation).flatten() * weight).sum()

    assert torch.autograd.gradcheck(value, (image.clone().requires_grad_(),))


def test_the_gradient_through_the_upper_bound_of_the_noise_is_exact():
    image = spike() + 1e-5 * rough((24, 24, 24))
    weight = torch.rand(1, 12, 24, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = torch.zeros_like(image)
    step[..., 12, 11, 10] = 1  # of the spike itself: no distance overtakes another
    image.requires_grad_()
    (mind(image, 0, 1) * weight).sum().backward()
    values = [float((mind(image.detach() + t * step, 0, 1) * weight).sum()) for t in (1e-6, -1e-6)]
    assert float((image.grad * step).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


def test_autocast_keeps_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mind(rough((6, 6, 6)).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 2, 6, 6, 6), {}, "one channel at a time"),
        ((1, 1, 6), {}, "expected \\(B, 1, H, W\\)"),
        ((1, 1, 6, 6), {"dilation": 0}, "dilation 0"),
        ((1, 1, 6, 6), {"radius": -1}, "radius -1"),
    ],
)
def test_what_cannot_be_described_is_refused(shape, options, message):
    with pytest.raises(RegInputError, match=message):
        mind(torch.zeros(shape), **options)
