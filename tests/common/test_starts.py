import pytest
import torch
from torch import Tensor, nn

from common.errors import RegInputError
from common.inference import PairInferer
from common.registration import Grid, fields_of
from common.spatial import identity_grid, jacobian_determinant, warp
from common.starts import answer_from, answers, start_field

SIZES = [(40, 48), (34, 36, 40)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inside(field: Tensor, margin: int = 8) -> Tensor:
    """Without the border, where a displaced image shows nothing of the moving one."""
    return field[(..., *[slice(margin, -margin)] * (field.ndim - 2))]


def ramps(size: tuple[int, ...], axis: int, shift: float) -> Tensor:
    """A pair (1, 2, *S) whose moving intensity is the coordinate along an axis: displaced by ``shift`` it is fixed."""
    moving = identity_grid(list(size), torch.zeros(1))[:, axis : axis + 1]
    return torch.cat([moving, moving + shift], dim=1)


class AlongOneAxis(nn.Module):
    """Finds the displacement along one axis after which a moving ramp is the fixed one, to the last digit."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.seen = None

    def forward(self, image: Tensor) -> Tensor:
        self.seen = image
        moving, fixed = image[:, :1], image[:, 1:2]
        ddf = torch.zeros(len(image), image.ndim - 2, *image.shape[2:])
        slope = torch.diff(fixed, dim=self.axis + 2).median()  # of an intensity a voxel: 2 in an image of half the size
        for _ in range(40):
            ddf[:, self.axis : self.axis + 1] += (fixed - warp(moving, ddf)) / slope
        return ddf


class Still(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.new_zeros(len(image), image.ndim - 2, *image.shape[2:])


@pytest.mark.parametrize("size", SIZES, ids=["2-D", "3-D"])
def test_a_network_that_is_right_gives_the_same_answer_from_every_start(size):
    """What it answers to the displaced image differs by voxels; composed, along its axis, by rounding."""
    for axis in range(len(size)):
        network = AlongOneAxis(axis)
        for start in (start_field(size, generator(seed)) for seed in range(3)):
            found = answer_from(network, ramps(size, axis, 2.5), start)[:, axis]
            assert inside(start[:, axis][None]).abs().max() > 1
            torch.testing.assert_close(
                inside(found[None]), torch.full_like(inside(found[None]), 2.5), atol=1e-3, rtol=0
            )


@pytest.mark.parametrize("size", [(72, 80), (68, 72, 80)], ids=["2-D", "3-D"])
def test_so_it_does_on_images_of_half_the_size(size):
    network = AlongOneAxis(1)
    found = answer_from(network, ramps(size, 1, 2.5), start_field(size, generator()), shrink=2)
    assert network.seen.shape[2:] == tuple(n // 2 for n in size) and found.shape[2:] == size
    error = inside(found[:, 1:2], 14) - 2.5
    assert error.abs().max() < 0.1  # linear interpolation of a field that bends within two voxels


def test_short_axes_are_not_shrunk():
    network = AlongOneAxis(0)
    answer_from(network, ramps((20, 100), 0, 1.0), start_field((20, 100), generator()), shrink=4)
    assert network.seen.shape[2:] == (20, 32)


@pytest.mark.parametrize("size", SIZES, ids=["2-D", "3-D"])
def test_a_network_that_does_nothing_leaves_the_start(size):
    start = start_field(size, generator())
    torch.testing.assert_close(answer_from(Still(), torch.rand(1, 2, *size), start), start)


@pytest.mark.parametrize("shrink", [1, 1.25])
def test_a_mask_stays_where_the_fixed_image_is(shrink):
    image = torch.cat([torch.rand(1, 2, 40, 40), torch.zeros(1, 1, 40, 40)], dim=1)
    image[:, 2, 10:20, 10:20] = 1
    network = AlongOneAxis(0)
    answer_from(network, image, start_field((40, 40), generator()), shrink)
    if shrink == 1:
        assert torch.equal(network.seen[:, 1:], image[:, 1:])
        assert not torch.equal(network.seen[:, :1], image[:, :1])
    inside_mask = network.seen[0, 2].nonzero()
    assert network.seen.shape[1] == 3 and set(network.seen[:, 2].unique().tolist()) == {0, 1}
    assert inside_mask.min() == int(10 / shrink) and abs(int(inside_mask.max()) - 19 / shrink) <= 1


@pytest.mark.parametrize("size", [(16, 16), (200, 240), (1, 64, 64), (16, 20, 24), (48, 48, 64)])
def test_starts_are_of_some_voxels_and_never_fold(size):
    for seed in range(8):
        start = start_field(size, generator(seed))
        assert start.shape == (1, len(size), *size) and start.dtype == torch.float32
        for axis, n in enumerate(size):
            assert start[:, axis].square().mean().sqrt() < min(3.0, 0.05 * n + 0.01)
        if min(size) > 1:
            assert jacobian_determinant(start).min() > 0.3
    assert start.abs().max() > 0.3


def test_the_images_decide_the_starts():
    image, other = torch.rand(1, 2, 24, 24, generator=generator(1)), torch.rand(1, 2, 24, 24, generator=generator(2))
    first, again = list(answers(Still(), image, 3)), list(answers(Still(), image, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=False))
    assert not torch.equal(first[0], first[1])
    both = next(answers(Still(), torch.cat([other, image]), 1))
    assert torch.equal(both[1:], first[0]) and not torch.equal(both[:1], first[0])


def test_the_inferer_keeps_answers_and_takes_their_spread():
    image = torch.rand(2, 2, 24, 20)
    found = PairInferer(check_starts=1, error_starts=3)(image, Still())
    starts = torch.stack(list(answers(Still(), image, 3)), dim=1)
    assert found["starts"].shape == (2, 1, 2, 24, 20) and set(found) == {"ddf", "starts", "spread"}
    assert torch.equal(found["starts"], starts[:, :1])
    torch.testing.assert_close(found["spread"], starts.square().mean(dim=1).sqrt())
    assert set(PairInferer(check_starts=2)(image, Still())) == {"ddf", "starts"}


def test_an_answer_with_starts_and_without_an_inverse_comes_onto_the_users_grid():
    found = PairInferer(check_starts=1)(torch.rand(1, 2, 24, 20), Still())
    grid = Grid((24, 20), torch.eye(3).numpy())
    fields = fields_of({key: value[0] for key, value in found.items()}, grid.affine, grid, grid)
    assert fields.own.shape == (1, 2, 24, 20) and not fields.own.any() and fields.inverse.abs().max() < 1e-6


@pytest.mark.parametrize("settings", [{"check_starts": -1}, {"error_starts": 0.5}, {"start_shrink": 0.5}])
def test_numbers_out_of_range_are_refused(settings):
    with pytest.raises(RegInputError, match=next(iter(settings))):
        PairInferer(**settings)
