"""The correspondence field: its size, its units, and parts that change nothing."""

import pytest
import torch
from ncf_bundle.field import ACTIVATIONS, CorrespondenceField, Sine, coordinates, in_slabs
from torch import nn

from common.errors import RegInputError
from common.spatial import identity_grid

SMALL = {"widths": (8, 8), "smooth_channels": 4}


def random_field(**settings) -> CorrespondenceField:
    """One whose zero layers are not."""
    field = CorrespondenceField(**SMALL | settings).double()
    for layer in (field.smooth[-1], field.coarse[-1]):
        for index, parameter in enumerate(layer.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    return field


def test_has_the_number_of_parameters_that_the_paper_rounds():
    field = CorrespondenceField()
    counts = [sum(p.numel() for p in part.parameters()) for part in (field.coarse, field.smooth)]
    assert counts == [50_435, 10_435] and sum(counts) == 60_870
    assert [layer.out_features for layer in field.coarse if isinstance(layer, nn.Linear)] == [128, 128, 128, 128, 3]


@pytest.mark.parametrize("size", [(5, 6), (3, 4, 5), (1, 4)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_starts_as_the_identity_and_can_leave_it(activation, residual, size):
    field = CorrespondenceField(len(size), activation=activation, residual=residual, **SMALL)
    ddf = field(size)
    assert ddf.shape == (1, len(size), *size) and not ddf.any()
    (ddf + 1).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in field.parameters())


def test_coordinates_are_array_indices_from_minus_one_to_one():
    points = coordinates((3, 5, 4), torch.zeros((), dtype=torch.float64)).view(3, 5, 4, 3)
    index = identity_grid([3, 5, 4], torch.zeros(()))[0].movedim(0, -1).double()
    torch.testing.assert_close(points, 2 * index / torch.tensor([2.0, 4.0, 3.0]).double() - 1)


def test_offsets_are_turned_into_voxels_of_each_axis():
    """An offset of 1 is half the grid: from its center to its end."""
    field = CorrespondenceField(**SMALL)
    with torch.no_grad():
        field.smooth[-1].bias.fill_(1.0)
    ddf = field((3, 5, 9))[0].detach()
    assert [ddf[axis].unique().tolist() for axis in range(3)] == [[1.0], [2.0], [4.0]]


def test_the_coarse_field_is_a_function_of_the_point_alone():
    """The same physical point on a finer grid: voxel 2 k of 9 is voxel k of 5."""
    field = random_field(spatial_dims=2)
    coarse, fine = (field.coarse(coordinates(size, field.coarse[0].weight)).view(*size, 2) for size in ((5, 4), (9, 7)))
    torch.testing.assert_close(fine[::2, ::2], coarse)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("size", "chunk", "slab"), [((7, 6, 5), 11, 30), ((7, 6, 5), 1000, 1), ((7, 6, 5), 50, 90), ((13, 4), 5, 12)]
)
def test_parts_give_the_same_field_and_gradient(size, chunk, slab, residual):
    """In float64, where a halo of one plane too few, or a wrong crop, cannot hide."""
    whole, parts = (
        random_field(spatial_dims=len(size), residual=residual, chunk=c, slab=s) for c, s in ((0, 0), (chunk, slab))
    )
    weight = torch.rand(1, len(size), *size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    fields = [network(size) for network in (whole, parts)]
    for field in fields:
        (weight * field.square()).sum().backward()
    torch.testing.assert_close(fields[1], fields[0], atol=1e-13, rtol=1e-12)
    for expected, found in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-12, rtol=1e-10)


def test_parts_are_as_large_as_asked():
    seen = []
    field = random_field(chunk=50, slab=2 * 30)
    field.coarse.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    field.smooth.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[2]))
    with torch.no_grad():
        field((7, 6, 5))
    assert seen == [50] * 4 + [10] + [4, 6, 5, 3]  # chunks, then slabs of two planes with two more to each side


def test_slabs_of_one_plane_have_a_halo():
    mean = nn.Sequential(*[nn.AvgPool3d(3, stride=1, padding=1) for _ in range(2)])
    image = torch.rand(1, 1, 6, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(in_slabs(mean, image, 1), mean(image))


def test_the_same_seed_gives_the_same_weights():
    first, second, other = (CorrespondenceField(**SMALL, seed=seed).coarse[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_seeding_leaves_torchs_own_random_numbers_alone():
    torch.manual_seed(0)
    field = CorrespondenceField(**SMALL)  # torch's own initialization draws
    state = torch.get_rng_state()
    field.reset(7)
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_start_in_torchs_range_and_those_of_siren_in_its_own():
    relu, siren = (CorrespondenceField(activation=name) for name in ("relu", "siren"))
    bounds = [float(field.coarse[k].weight.detach().abs().max()) for field in (relu, siren) for k in (0, 2)]
    assert bounds == pytest.approx([3**-0.5, 128**-0.5, 1 / 3, (6 / 128) ** 0.5 / 30], rel=0.02)
    assert all(bounds[k] <= limit for k, limit in enumerate([3**-0.5, 128**-0.5, 1 / 3, (6 / 128) ** 0.5 / 30]))


def test_siren_is_a_sine_of_its_frequency():
    torch.testing.assert_close(Sine(30.0)(torch.tensor([0.1])), torch.sin(torch.tensor([3.0])))
    assert isinstance(CorrespondenceField(activation="siren").coarse[1], Sine)
    assert isinstance(CorrespondenceField(activation="siren").smooth[1], nn.ReLU)


@pytest.mark.parametrize(
    "settings", [{"activation": "tanh"}, {"widths": ()}, {"widths": (8, 0)}, {"chunk": -1}, {"slab": -1}]
)
def test_wrong_settings_name_what_was_found(settings):
    with pytest.raises(RegInputError, match=next(iter(settings))):
        CorrespondenceField(**settings)
