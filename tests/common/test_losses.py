import pytest
import torch
from monai.losses import DiffusionLoss, LocalNormalizedCrossCorrelationLoss

from common.losses import GradientLoss, LNCCLoss


def linear_field(ndim: int, slope: float) -> torch.Tensor:
    """u_k = slope * x_0 for every component."""
    size = (6, 5, 4)[:ndim]
    ramp = slope * torch.arange(6, dtype=torch.float64).view(-1, *[1] * (ndim - 1))
    return ramp.expand(1, ndim, *size)


def test_lncc_loss_is_one_above_monais():
    """MONAI clamps each variance where the published formula adds eps to their product: equal on textured images."""
    a, b = torch.rand(2, 2, 1, 12, 13, 14, dtype=torch.float64)
    expected = 1 + LocalNormalizedCrossCorrelationLoss(kernel_size=9)(a, b)
    torch.testing.assert_close(LNCCLoss(9)(a, b), expected, atol=1e-6, rtol=0)


def test_lncc_loss_of_an_image_with_itself_is_almost_zero_inside_textured_images():
    image = torch.rand(1, 1, 16, 16, 16)
    assert 0 <= float(LNCCLoss(5)(image, image)) < 1e-3


def test_lncc_loss_of_flat_images_has_finite_gradient():
    flat = torch.ones(1, 1, 9, 9, 9, requires_grad=True)
    LNCCLoss(9)(flat, torch.ones(1, 1, 9, 9, 9)).backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("squared", [True, False])
def test_lncc_loss_passes_its_settings_on(squared):
    a, b = torch.rand(1, 1, 10, 10), torch.rand(1, 1, 10, 10)
    assert (float(LNCCLoss(3, squared)(a, -b)) == pytest.approx(float(LNCCLoss(3, squared)(a, b)), abs=1e-5)) == squared


@pytest.mark.parametrize(("norm", "expected"), [("l1", 0.5), ("l2", 0.25)])
@pytest.mark.parametrize("ndim", [2, 3])
def test_gradient_loss_of_a_linear_field_is_its_slope_over_the_axes(norm, expected, ndim):
    assert float(GradientLoss(norm)(linear_field(ndim, -0.5))) == pytest.approx(expected / ndim)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gradient_loss_of_a_translation_is_zero(norm):
    assert float(GradientLoss(norm)(torch.full((1, 3, 4, 5, 6), 7.0))) == 0


def test_gradient_loss_sees_a_checkerboard_that_central_differences_miss():
    checker = (torch.arange(8) % 2).double().view(-1, 1, 1).expand(1, 3, 8, 8, 8)
    assert float(GradientLoss("l2")(checker)) > 0.3
    assert float(DiffusionLoss()(checker)) == 0


def test_gradient_loss_ignores_an_axis_of_one_voxel():
    assert float(GradientLoss("l1")(torch.rand(1, 3, 1, 1, 1))) == 0


@pytest.mark.parametrize("loss", [GradientLoss("l1"), GradientLoss("l2")])
def test_gradient_of_the_gradient_loss_is_exact(loss):
    assert torch.autograd.gradcheck(loss, (torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True),))


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match="got 'l3'"):
        GradientLoss("l3")
