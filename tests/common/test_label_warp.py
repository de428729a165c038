import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn import functional as F

from common.errors import RegInputError
from common.label_warp import warp_label, warp_label_linear
from common.spatial import identity_grid, warp

WARPS = [warp_label, warp_label_linear]


# Nearest label warp


@pytest.mark.parametrize("axis", range(3))
def test_a_half_voxel_shift_reads_the_upper_neighbor_along_each_axis(axis):
    moving = torch.arange(1, 5 * 6 * 7 + 1).view(1, 1, 5, 6, 7)
    ddf = torch.zeros(1, 3, 5, 6, 7)
    ddf[:, axis] = 0.5
    expected = torch.roll(moving, -1, dims=axis + 2)
    expected.select(axis + 2, -1).zero_()  # half a voxel beyond the last centers lies outside
    assert torch.equal(warp_label(moving, ddf), expected)


def test_just_below_half_stays_even_in_float32():
    moving = torch.tensor([[[[1, 2, 3]]]])
    ddf = torch.zeros(1, 2, 1, 3)
    ddf[:, 1, 0, 0] = 0.49999997  # + 0.5 rounds to 1 in float32
    assert warp_label(moving, ddf)[0, 0, 0, 0] == 1


def test_positions_beyond_the_outer_centers_are_background():
    moving = torch.ones(1, 1, 3, 3, dtype=torch.uint8)
    for axis, amount in ((0, -1e-6), (1, -1e-6), (0, 1e-6), (1, 1e-6)):
        ddf = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
        ddf[:, axis] = amount
        assert warp_label(moving, ddf).sum() == 6


def test_positions_that_are_not_numbers_are_background():
    ddf = torch.zeros(1, 2, 2, 2)
    ddf[0, 0, 0, 0], ddf[0, 1, 0, 1] = torch.nan, torch.inf
    assert warp_label(torch.ones(1, 1, 2, 2), ddf)[0, 0].tolist() == [[0, 0], [1, 1]]


def test_warp_label_agrees_with_scipy_on_another_grid_and_a_batch():
    generator = torch.Generator().manual_seed(0)
    moving = torch.randint(1, 9, (2, 1, 6, 9, 4), generator=generator)
    ddf = 2 * torch.randn(2, 3, 7, 5, 6, dtype=torch.float64, generator=generator)
    for pair, warped in enumerate(warp_label(moving, ddf)):
        points = (identity_grid((7, 5, 6), ddf) + ddf[pair])[0].numpy()
        expected = map_coordinates(moving[pair, 0].numpy(), points, order=0, mode="constant")
        assert np.array_equal(warped[0].numpy(), expected)


def test_warp_label_agrees_with_the_nearest_warp_away_from_ties_and_faces():
    generator = torch.Generator().manual_seed(0)
    moving = torch.randint(0, 9, (1, 1, 8, 9, 7), generator=generator)
    ddf = 0.9 * torch.rand(1, 3, 8, 9, 7, generator=generator) - 0.45
    inner = (..., *[slice(1, -1)] * 3)
    assert torch.equal(warp_label(moving, ddf)[inner], warp(moving, ddf, mode="nearest")[inner])


# The label of the largest linear weight


def one_hot_argmax(moving: torch.Tensor, ddf: torch.Tensor) -> torch.Tensor:
    """The published way: every value's indicator warped linearly, zero outside, the first of the largest."""
    channels = F.one_hot(moving[:, 0], int(moving.max()) + 1).movedim(-1, 1).double()
    return warp(channels, ddf, padding_mode="zeros").argmax(1, keepdim=True)


@pytest.mark.parametrize("size", [(7, 9), (6, 9, 5)])
@pytest.mark.parametrize("spread", [0.4, 3.0])
def test_linear_labels_equal_the_largest_of_warped_one_hot_maps(size, spread):
    generator = torch.Generator().manual_seed(0)
    moving = torch.randint(0, 5, (2, 1, *size), generator=generator)
    ddf = spread * torch.randn(2, len(size), *[n + 1 for n in size], dtype=torch.float64, generator=generator)
    assert torch.equal(warp_label_linear(moving, ddf), one_hot_argmax(moving, ddf))


@pytest.mark.parametrize("tile", [1, 40])
def test_linear_labels_do_not_depend_on_the_tiles(tile, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    moving = torch.randint(0, 5, (1, 1, 7, 6, 5), generator=generator)
    ddf = torch.randn(1, 3, 7, 6, 5, generator=generator)
    whole = warp_label_linear(moving, ddf)
    monkeypatch.setattr("common.label_warp.TILE_VOXELS", tile)
    assert torch.equal(warp_label_linear(moving, ddf), whole)


def test_corners_of_one_label_add_up():
    """At (0.45, 0.45) label 9 has 0.3025 of one corner; label 4 has 0.2475 of each of two and wins together."""
    moving = torch.tensor([[[[9, 4], [4, 7]]]])
    ddf = torch.zeros(1, 2, 2, 2)
    ddf[..., 0, 0] = 0.45
    assert warp_label_linear(moving, ddf)[0, 0, 0, 0] == 4


@pytest.mark.parametrize(("pair", "expected"), [((3, 5), 3), ((5, 3), 3), ((0, 5), 0), ((5, 0), 0)])
def test_of_equal_weights_the_smallest_value_wins(pair, expected):
    ddf = torch.zeros(1, 2, 1, 2)
    ddf[:, 1] = 0.5
    assert warp_label_linear(torch.tensor([[[pair]]]), ddf)[0, 0, 0, 0] == expected


def test_outside_has_no_weight_but_wins_where_nothing_else_is():
    moving = torch.full((1, 1, 2, 2), 6)
    ddf = torch.zeros(1, 2, 2, 2)
    ddf[0, 0] = torch.tensor([[-0.9, -1.0], [0.9, torch.nan]])
    assert warp_label_linear(moving, ddf)[0, 0].tolist() == [[6, 0], [6, 0]]


@pytest.mark.parametrize("function", WARPS)
def test_the_zero_field_keeps_labels_and_their_dtype(function):
    moving = torch.randint(0, 2**31 - 1, (1, 1, 4, 5, 3), dtype=torch.int32)
    warped = function(moving, torch.zeros(1, 3, 4, 5, 3))
    assert torch.equal(warped, moving) and warped.dtype == torch.int32


@pytest.mark.parametrize("function", WARPS)
@pytest.mark.parametrize(
    ("label", "field", "words"),
    [
        ((1, 1, 4, 5, 6), (1, 2, 4, 5, 6), r"\(B, 3, \*S\)"),
        ((1, 1, 4, 5, 6), (1, 3, 4, 6), r"\(B, 3, \*S\)"),
        ((2, 1, 4, 5, 6), (1, 3, 4, 5, 6), r"\[2, 1, 4, 5, 6\]"),
    ],
)
def test_errors_say_what_was_found(function, label, field, words):
    with pytest.raises(RegInputError, match=words):
        function(torch.zeros(label, dtype=torch.int64), torch.zeros(field))
