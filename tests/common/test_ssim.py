"""SSIM beside scikit-image and MONAI, by hand-made values and by its properties."""

import numpy as np
import pytest
import torch
from monai.losses import SSIMLoss as MonaiSSIMLoss
from skimage.metrics import structural_similarity

from common.errors import RegInputError
from common.ssim import SSIMLoss, ssim

SIZES = [(19, 23), (13, 15, 17)]


def images(size, channels=1, dtype=torch.float64, batch=1):
    """Two images in [0, 1] that resemble each other."""
    a, b = torch.rand(2, batch, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(3))
    return a, 0.7 * a + 0.3 * b


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("window", "kernel_size"), [("gaussian", 11), ("box", 7)])
def test_map_equals_scikit_image(size, window, kernel_size):
    """Inside; their map goes on to the border, where it mirrors the image."""
    a, b = images(size)
    mean, full = structural_similarity(
        a[0, 0].numpy(),
        b[0, 0].numpy(),
        win_size=kernel_size,
        gaussian_weights=window == "gaussian",
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    value = ssim(a, b, window=window, kernel_size=kernel_size)
    radius = kernel_size // 2
    inner = full[tuple(slice(radius, n - radius) for n in size)]
    np.testing.assert_allclose(value[0, 0].numpy(), inner, atol=1e-10)
    assert float(value.mean()) == pytest.approx(mean, abs=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_loss_and_gradient_equal_monai(size):
    a, b = images(size, channels=2, dtype=torch.float32, batch=2)
    theirs = MonaiSSIMLoss(spatial_dims=len(size), data_range=2.5)
    found, expected = (
        torch.autograd.grad(loss(a, x), x)[0]
        for loss, x in ((SSIMLoss(data_range=2.5), b.clone().requires_grad_()), (theirs, b.clone().requires_grad_()))
    )
    assert float(SSIMLoss(data_range=2.5)(a, b)) == pytest.approx(float(theirs(a, b)), abs=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-3)


def test_constant_images_leave_the_luminance():
    a = torch.full((1, 1, 12, 12), 0.25, dtype=torch.float64)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    torch.testing.assert_close(ssim(a, a + 0.5), torch.full((1, 1, 2, 2), expected, dtype=torch.float64))


@pytest.mark.parametrize("size", SIZES)
def test_equal_images_have_loss_zero(size):
    a, b = images(size)
    assert float(SSIMLoss()(a, a)) == pytest.approx(0, abs=1e-12)
    assert float(SSIMLoss()(a, b)) > 0.01


def test_channels_and_batch_count_apart():
    a, b = images((12, 14), channels=3, batch=2)
    value = ssim(a, b)
    assert value.shape == (2, 3, 2, 4)
    torch.testing.assert_close(value[1:, 2:], ssim(a[1:, 2:], b[1:, 2:]))


@pytest.mark.parametrize("size", [(6, 7), (5, 6, 5)])
@pytest.mark.parametrize("window", ["gaussian", "box"])
def test_gradients(size, window):
    a, b = (image.requires_grad_() for image in images(size))
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, window=window, kernel_size=5, sigma=0.9), (a, b))


def test_scaling_images_and_range_together_changes_nothing():
    a, b = images((15, 16))
    torch.testing.assert_close(ssim(1500 * a, 1500 * b, data_range=1500), ssim(a, b))


def test_reduced_precision_is_computed_in_float32():
    a, b = images((16, 16), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ssim(a, b), ssim(a.double(), b.double()).float(), atol=1e-5, rtol=0)
    assert ssim(a.bfloat16(), b.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("size", "settings", "sentence"),
    [
        ((10, 30), {}, r"window of 11 voxels for images of size \(10, 30\)"),
        ((30, 30), {"kernel_size": 4}, "window of 4 voxels"),
        ((30, 30), {"window": "disk"}, "window 'disk'"),
        ((30, 30), {"data_range": 0.0}, "data_range 0.0"),
        ((30,), {}, "expected two of the same shape"),
    ],
)
def test_what_has_no_value_is_refused(size, settings, sentence):
    image = torch.rand(1, 1, *size)
    with pytest.raises(RegInputError, match=sentence):
        ssim(image, image, **settings)
    with pytest.raises(RegInputError, match="expected two of the same shape"):
        ssim(image, image[:, :, 1:])
