import pytest
import torch
from patch_fcn_bundle.network import Flow, PatchFCN
from torch import Tensor, nn
from torch.nn import functional as F

from common.flow import integrate
from common.spatial import compose, identity_grid, warp

SMALL = {"channels": (2, 4, 4), "patch_size": 16, "core_size": 8}


def moving_network(**settings) -> PatchFCN:
    """One whose stages move by voxels and differ, as after training."""
    torch.manual_seed(0)
    network = PatchFCN(**SMALL | settings).eval()
    for stage in network.stages:
        for head in stage.fcn.heads:
            nn.init.normal_(head.weight, std=0.05)
    return network


def smooth_pair(*size: int) -> Tensor:
    """Two different smooth images (1, 2, *size)."""
    x = identity_grid(list(size), torch.zeros(1)) / 5
    return torch.cat([x.sin().mean(dim=1, keepdim=True), x.cos().mean(dim=1, keepdim=True)], dim=1)


class Told(nn.Module):
    """A stage with a velocity of its own, which keeps what it was shown."""

    def __init__(self, svf: Tensor) -> None:
        super().__init__()
        self.svf = svf

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        return self.svf


def told_network(*svfs: Tensor) -> PatchFCN:
    network = PatchFCN(**SMALL, stages=len(svfs), integrate_steps=7, squaring=True)
    network.stages = nn.ModuleList(Told(svf) for svf in svfs)
    return network


def contraction(*size: int) -> Tensor:
    """A velocity toward the middle, and none at the faces."""
    x = identity_grid(list(size), torch.zeros(1)) / (torch.tensor(size).view(1, -1, 1, 1, 1) - 1)
    return -1.5 * (2 * torch.pi * (x - 0.5)).sin() * (torch.pi * x).sin().prod(dim=1, keepdim=True)


def shift(*size: int) -> Tensor:
    """A velocity along the first axis, strongest in the middle."""
    x = identity_grid(list(size), torch.zeros(1)) / (torch.tensor(size).view(1, -1, 1, 1, 1) - 1)
    return 2 * (torch.pi * x).sin().prod(dim=1, keepdim=True) * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1, 1)


def test_three_stages_have_three_times_the_parameters_of_one():
    with torch.device("meta"):
        network = PatchFCN()
    assert sum(p.numel() for p in network.parameters()) == 12_871_053


def test_an_untrained_network_is_the_identity():
    ddf, inverse = PatchFCN(**SMALL).with_inverse(torch.rand(1, 2, 16, 16, 16))
    assert not ddf.any() and not inverse.any()


@pytest.mark.parametrize("size", [(8, 8, 8), (20, 9, 13), (3, 1, 8)])
def test_any_size_gives_a_field_of_that_size(size):
    ddf = moving_network()(torch.rand(2, 2, *size))
    assert ddf.shape == (2, 3, *size) and ddf.isfinite().all() and ddf.dtype == torch.float32


def test_two_dimensional_network_registers_two_dimensional_images():
    assert moving_network(spatial_dims=2)(torch.rand(2, 2, 19, 20)).shape == (2, 2, 19, 20)


def test_a_volume_of_one_patch_is_the_direct_call():
    network, image = moving_network(stages=1), torch.rand(1, 2, 8, 8, 8)
    svf = network.stages[0].fcn(F.pad(image, [4] * 6))[:, :, 4:12, 4:12, 4:12]
    assert svf.abs().max() > 0.1
    torch.testing.assert_close(network(image), network.flow(svf))


def test_a_volume_padded_to_whole_middles_has_the_field_of_the_whole_one():
    network, image = moving_network(), torch.rand(1, 2, 13, 9, 16)
    padded = F.pad(image, [0, 0, 0, 7, 0, 3])
    torch.testing.assert_close(network(padded)[:, :, :13, :9, :16], network(image))


def test_middles_of_padding_on_every_side_change_the_field_at_the_border_alone():
    """There a trajectory leaves the grid, and velocities go on as at its border instead of as the padding's."""
    network, image = moving_network(stages=1), smooth_pair(24, 24, 32)
    field = network(image)
    padded = network(F.pad(image, [8] * 6))[:, :, 8:-8, 8:-8, 8:-8]
    reach = int(field.abs().max()) + 2
    inner = (..., *[slice(reach, -reach)] * 3)
    assert field[inner].abs().max() > 0.3
    torch.testing.assert_close(padded[inner], field[inner], rtol=1e-4, atol=1e-4)


def test_how_many_windows_are_in_flight_does_not_matter():
    image = smooth_pair(16, 8, 24)
    one, many = (moving_network(windows_in_flight=n)(image) for n in (1, 7))
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-4)


def test_each_stage_sees_the_moving_image_as_the_earlier_ones_warp_it():
    size = (16, 16, 16)
    network, image = told_network(contraction(*size), shift(*size), contraction(*size)), smooth_pair(*size)
    network(image)
    moving, fixed = image.chunk(2, dim=1)
    first, second = integrate(contraction(*size)), integrate(shift(*size))
    expected = [moving, warp(moving, first), warp(moving, compose(first, second))]
    for stage, seen in zip(network.stages, expected, strict=True):
        torch.testing.assert_close(stage.seen, torch.cat([seen, fixed], dim=1), rtol=1e-5, atol=1e-5)


def test_stages_are_composed_in_the_order_in_which_they_warp():
    """One warp through the answer is what a warp after the other gives, and not in the other order."""
    size = (24, 24, 24)
    fields, moving = [contraction(*size), shift(*size)], smooth_pair(*size)[:, :1]
    ddf = told_network(*fields)(moving.repeat(1, 2, 1, 1, 1))
    first, second = (integrate(field) for field in fields)
    inner = (..., *[slice(4, -4)] * 3)
    in_order, reversed_order = warp(warp(moving, first), second), warp(warp(moving, second), first)
    warped = warp(moving, ddf)
    assert (warped - in_order)[inner].abs().max() < 0.01 < 0.03 < (warped - reversed_order)[inner].abs().max()


def test_the_inverse_undoes_the_answer():
    size = (32, 32, 32)
    network = told_network(contraction(*size), shift(*size), contraction(*size))
    ddf, inverse = network.with_inverse(smooth_pair(*size))
    assert ddf.abs().max() > 1.5
    assert compose(ddf, inverse).abs().max() < 0.1 and compose(inverse, ddf).abs().max() < 0.1


def test_stages_that_are_not_in_use_say_nothing():
    image = smooth_pair(16, 8, 8)
    network = moving_network(stages_in_use=1)
    alone = moving_network(stages=1)
    alone.stages[0].load_state_dict(network.stages[0].state_dict())
    torch.testing.assert_close(network(image), alone(image))
    network.stages_in_use = 3
    torch.testing.assert_close(network(image), moving_network()(image))
    assert not torch.allclose(network(image), alone(image), atol=1e-3)


@pytest.mark.parametrize("squaring", [False, True])
def test_a_constant_velocity_moves_by_itself(squaring):
    svf = torch.tensor([1.5, -0.5, 0.25]).view(1, 3, 1, 1, 1).expand(1, 3, 6, 7, 8)
    torch.testing.assert_close(Flow(10, 3, squaring)(svf), svf)


def test_both_integrators_follow_the_same_flow():
    svf = contraction(24, 24, 24)
    slow, fast = Flow(10, 3)(svf), Flow(7, squaring=True)(svf)
    assert (slow - fast).abs().max() < 0.02 < (slow - svf).abs().max()


def test_more_iterations_give_truer_trajectories():
    svf = contraction(24, 24, 24)
    flows = [PatchFCN(**SMALL, integrate_steps=2, iterations=n).flow for n in (1, 4)]
    coarse, fine = ((flow(svf) - integrate(svf, 10)).abs().max() for flow in flows)
    assert fine < coarse / 2


@pytest.mark.parametrize("settings", [{}, {"squaring": True, "overlap": True, "stages_in_use": 2}])
def test_forward_can_be_scripted(settings):
    network, image = moving_network(**settings), smooth_pair(9, 12, 8)
    # voxels: scripted, torch samples, by coordinates that went through [-1, 1]; eager, compiled loops by voxels
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"stages_in_use": 4}, "got 4"),
        ({"stages_in_use": 0}, "got 0"),
        ({"core_size": 32}, "got 16, 32"),
        ({"integrate_steps": 0}, "got 0"),
        ({"spatial_dims": 4}, "got 4"),
    ],
)
def test_wrong_settings_name_what_was_found(settings, found):
    with pytest.raises(ValueError, match=found):
        PatchFCN(**SMALL | settings)


def test_the_stages_are_undone_in_the_reverse_order():
    """By two stages that do not commute: the other order is ten times as far from undoing them."""
    size = (24, 24, 24)
    network = told_network(2 * contraction(*size), 2 * shift(*size))
    ddf, inverse = network.with_inverse(torch.zeros(1, 2, *size))
    first, second = (network.flow(-stage.svf) for stage in network.stages)
    residual, wrong = (compose(ddf, back).abs().max() for back in (inverse, compose(first, second)))
    assert residual < wrong / 10
