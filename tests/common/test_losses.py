import pytest
import torch
from monai.losses import DiffusionLoss, LocalNormalizedCrossCorrelationLoss

from common.collate import collate_pairs
from common.losses import GradientLoss, LandmarkLoss, LNCCLoss


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


@pytest.mark.parametrize(("spacing_mm", "expected"), [(None, 5.0), ((2.0, 1.0, 0.5), (6**2 + 4**2) ** 0.5)])
def test_landmark_loss_of_a_translation_is_its_length(spacing_mm, expected):
    """A shift by (3, 4, 0) voxels that the ddf does not know."""
    fixed = torch.tensor([[[1.0, 2.0, 3.0], [4.5, 2.5, 3.25]]])
    loss = LandmarkLoss(spacing_mm)(torch.zeros(1, 3, 6, 5, 4), fixed, fixed + torch.tensor([3.0, 4.0, 0.0]))
    assert float(loss) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_landmarks_follow_an_affine_field_exactly_between_voxels(ndim):
    """u = A x + b is linear, so its interpolation has no error; A mixes the axes."""
    generator = torch.Generator().manual_seed(0)
    size = (7, 6, 5)[:ndim]
    matrix, shift = torch.randn(ndim, ndim, generator=generator), torch.randn(ndim, generator=generator)
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij")
    ddf = (torch.stack(axes, -1) @ matrix.T + shift).movedim(-1, 0)[None].double()
    fixed = (torch.rand(1, 9, ndim, generator=generator) * torch.tensor(size).sub(1)).double()
    moving = fixed + fixed @ matrix.T.double() + shift
    assert float(LandmarkLoss()(ddf, fixed, moving)) == pytest.approx(0, abs=1e-6)
    assert float(LandmarkLoss()(ddf, fixed, moving + 1)) == pytest.approx(ndim**0.5, abs=2e-3)


def test_landmark_loss_is_smooth_at_zero():
    ddf = torch.zeros(1, 2, 4, 4, requires_grad=True)
    points = torch.ones(1, 3, 2)
    LandmarkLoss()(ddf, points, points).backward()
    assert float(ddf.grad.abs().max()) == 0


def test_gradient_of_the_landmark_loss_is_exact():
    ddf = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    fixed = 0.25 + 2.5 * torch.rand(2, 3, 2, dtype=torch.float64)
    fixed[1, 2] = torch.nan
    loss = LandmarkLoss((2.0, 1.0))
    assert torch.autograd.gradcheck(lambda field: loss(field, fixed, torch.flip(fixed, (1,)) + 0.3), (ddf,))


@pytest.mark.parametrize("outside", [[-0.6, 1.0], [1.0, 4.6], [torch.nan, 1.0], [torch.inf, 1.0]])
def test_landmarks_without_a_displacement_do_not_count(outside):
    ddf = torch.zeros(1, 2, 4, 5, requires_grad=True)
    fixed = torch.tensor([[[1.0, 1.0], outside]])
    moving = torch.tensor([[[1.0, 3.0], [9.0, 9.0]]])
    loss = LandmarkLoss()(ddf, fixed, moving)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2, abs=2e-3) and ddf.grad.isfinite().all()


def test_a_batch_without_landmarks_costs_nothing_and_keeps_a_gradient():
    ddf = torch.zeros(1, 2, 4, 4, requires_grad=True)
    none = torch.full((1, 2, 2), torch.nan)
    loss = LandmarkLoss()(ddf, none, none)
    loss.backward()
    assert float(loss.detach()) == 0 and float(ddf.grad.abs().max()) == 0


def test_a_batch_counts_each_landmark_once_whatever_the_padding():
    """Three landmarks 1 voxel off and one 5 voxels off: 2 on average."""
    points = [torch.ones(3, 2), 2 * torch.ones(1, 2)]
    shifts = [torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0])]
    items = [{"fixed_keypoints": p, "moving_keypoints": p + s} for p, s in zip(points, shifts, strict=True)]
    batch = collate_pairs(items)
    loss = LandmarkLoss()(torch.zeros(2, 2, 8, 8), batch["fixed_keypoints"], batch["moving_keypoints"])
    assert batch["fixed_keypoints"].shape == (2, 3, 2) and float(loss) == pytest.approx(2, abs=2e-3)


def test_keypoints_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"expected keypoints \(1, K, 2\)"):
        LandmarkLoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 3), torch.zeros(1, 3, 3))
