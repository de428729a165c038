import pytest
import torch
from patch_fcn_bundle.loss import OperatorLoss, PatchFields, end_point_force
from patch_fcn_bundle.network import Flow
from torch import Tensor

from common.lncc import lncc_mean
from common.sobolev import apply_kernel, operator_energy
from common.spatial import identity_grid, warp

SIZE = [10, 12, 8]
INNER = (..., *[slice(1, -1)] * 3)


def blob(*center: float, size: list[int] = SIZE) -> Tensor:
    """A smooth bump (1, 1, *size) in float64."""
    x = identity_grid(size, torch.zeros(1)).double()
    return (-(x - torch.tensor(center).view(1, 3, 1, 1, 1)).square().sum(dim=1, keepdim=True) / 12).exp()


def random_svf(scale: float, count: int = 1) -> Tensor:
    noise = torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smooth = apply_kernel(noise, 0.005)
    return (scale * smooth / smooth.abs().max()).requires_grad_()


def fields_of(svf: Tensor, moving: Tensor, fixed: Tensor, alpha: float = 0.005) -> PatchFields:
    count = len(svf)
    return PatchFields(svf, moving.expand(count, *moving.shape[1:]), fixed.expand(count, *fixed.shape[1:]), alpha)


def gradient(loss: OperatorLoss, fields: PatchFields) -> Tensor:
    return torch.autograd.grad(loss(fields), fields.svf)[0]


@pytest.mark.parametrize("kind", ["exact", "printed"])
def test_the_value_is_similarity_and_lambda_times_the_energy(kind):
    """Recomputed from the parts, per patch: a sum over its voxels."""
    svf, moving, fixed = random_svf(1.0, 2), blob(5, 6, 4), blob(4, 6, 4)
    loss = OperatorLoss(Flow(), kernel_size=5, smooth_weight=3.0, gradient=kind)
    warped = warp(moving.expand(2, -1, -1, -1, -1), Flow()(svf), padding_mode="border")
    similarity = 1 - lncc_mean(fixed.expand(2, -1, -1, -1, -1), warped, 5)
    expected = similarity + 3e-6 * operator_energy(svf, 0.005).mean()
    assert float(loss(fields_of(svf, moving, fixed)).detach()) == pytest.approx(float(expected.detach()), rel=1e-9)


@pytest.mark.parametrize("kind", ["exact", "printed"])
@pytest.mark.parametrize("alpha", [0.01, 0.001])
def test_the_regularizers_gradient_is_the_velocity(kind, alpha):
    """Flat images have no force: what is left of eq. 4, times 2 lambda with lambda = sigma^2, is v, in both forms."""
    svf, flat = random_svf(1.0, 2), torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    found = gradient(OperatorLoss(Flow(), gradient=kind, sigma=0.001), fields_of(svf, flat, flat, alpha))
    torch.testing.assert_close(found, 2 * 0.001**2 * svf / 2, rtol=1e-9, atol=1e-18)


def test_both_gradients_are_one_where_nothing_has_moved_yet():
    """At v = 0 the flow's end point is its start. A ramp's gradient is exact by differences; without K it is local."""
    ramp = (identity_grid(SIZE, torch.zeros(1)).double() * torch.tensor([0.03, -0.02, 0.05]).view(1, 3, 1, 1, 1)).sum(
        dim=1, keepdim=True
    )
    svf = torch.zeros(1, 3, *SIZE, dtype=torch.float64, requires_grad=True)
    fields = fields_of(svf, ramp, blob(5, 6, 4), alpha=0.0)
    exact, printed = (gradient(OperatorLoss(Flow(), 5, gradient=kind), fields) for kind in ("exact", "printed"))
    assert exact[INNER].abs().max() > 1e-5
    torch.testing.assert_close(exact[INNER], printed[INNER], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.001])
def test_both_gradients_point_the_same_way_for_small_smooth_velocities(alpha):
    fields = fields_of(random_svf(0.3), blob(5.5, 6, 4), blob(4.5, 6, 4), alpha)
    exact, printed = (gradient(OperatorLoss(Flow(), 5, gradient=kind), fields) for kind in ("exact", "printed"))
    cosine = (exact * printed).sum() / exact.norm() / printed.norm()
    assert cosine > 0.9 and 0.7 < exact.norm() / printed.norm() < 1.4


def test_the_printed_gradient_is_the_exact_ones_only_where_lambda_is_sigma_squared():
    """Eq. 4 has sigma in the force and no lambda: times 2 lambda, the force grows with lambda too, eq. 3's does not."""
    fields = fields_of(random_svf(0.3), blob(5.5, 6, 4), blob(4.5, 6, 4))
    velocity = 2 * 0.001**2 * fields.svf.detach()

    def force(kind: str, smooth_weight: float) -> Tensor:
        loss = OperatorLoss(Flow(), 5, sigma=0.001, smooth_weight=smooth_weight, gradient=kind)
        return gradient(loss, fields) - smooth_weight * velocity

    torch.testing.assert_close(force("exact", 3.0), force("exact", 1.0), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(force("printed", 3.0), 3 * force("printed", 1.0), rtol=1e-9, atol=1e-15)
    assert 0.7 < force("exact", 1.0).norm() / force("printed", 1.0).norm() < 1.4


def test_the_gradient_passes_k_once():
    """With the operator's alpha it is K of the gradient without a node, taken by differences along a direction."""
    svf, alpha = random_svf(0.8), 0.005
    fields, loss = fields_of(svf, blob(5.5, 6, 4), blob(4.5, 6, 4), alpha), OperatorLoss(Flow(), 5)
    direction, step = random_svf(1.0).detach().flip(2), 1e-5
    smoothed = apply_kernel(direction, alpha)  # <K g, d> = <g, K d>
    ahead, behind = (loss(fields._replace(svf=svf.detach() + s * smoothed)) for s in (step, -step))
    expected = float(ahead - behind) / (2 * step)
    assert float((gradient(loss, fields) * direction).sum()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["exact", "printed"])
def test_descent_along_the_gradient_brings_the_images_together(kind):
    moving, fixed = blob(5.5, 6, 4), blob(4.2, 6, 4)
    svf, loss = torch.zeros(1, 3, *SIZE, dtype=torch.float64), OperatorLoss(Flow(4, 2), 5, gradient=kind)
    values = []
    for _ in range(12):
        fields = fields_of(svf.requires_grad_(), moving, fixed)
        found = gradient(loss, fields)
        values.append(float(loss(fields).detach()))
        svf = svf.detach() - 0.3 * found / found.abs().max()
    assert values[-1] < values[0] / 8
    assert 0.9 < float(svf[0, 0, 4, 6, 4]) < 1.8  # the bump is 1.3 voxels further on in the moving image


def test_force_is_the_derivative_by_the_image_times_its_gradient():
    """Of a square, whose gradient central differences give exactly."""
    x = identity_grid(SIZE, torch.zeros(1)).double()
    image, by_image = x.square().sum(dim=1, keepdim=True), blob(5, 6, 4)
    torch.testing.assert_close(end_point_force(image, by_image)[INNER], (by_image * 2 * x)[INNER])


def test_the_gradient_norm_replaces_the_operator():
    svf, flat = random_svf(1.0), torch.zeros(1, 1, *SIZE, dtype=torch.float64)
    loss = OperatorLoss(Flow(), regularizer="gradient", smooth_weight=0.5)
    (found,) = torch.autograd.grad(0.5 * loss.roughness(svf), svf)
    torch.testing.assert_close(gradient(loss, fields_of(svf, flat, flat)), found)


def test_two_dimensions_and_small_patches_have_a_loss():
    svf = torch.zeros(2, 2, 4, 6, requires_grad=True)
    for kind in ("exact", "printed"):
        value = OperatorLoss(Flow(), 7, gradient=kind)(PatchFields(svf, *torch.rand(2, 2, 1, 4, 6), 0.01))
        assert torch.autograd.grad(value, svf)[0].isfinite().all()


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"gradient": "other"}, "got 'other'"),
        ({"regularizer": "other"}, "'other'"),
        ({"gradient": "printed", "regularizer": "gradient"}, "'printed' is the operator's"),
    ],
)
def test_wrong_settings_name_what_was_found(settings, found):
    with pytest.raises(ValueError, match=found):
        OperatorLoss(Flow(), **settings)
