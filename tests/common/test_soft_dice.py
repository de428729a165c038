"""Against MONAI's Dice of warped one-hot maps, which is what the one pass replaces, and against counted overlaps."""

import pytest
import torch
from monai.losses import DiceLoss
from torch.nn import functional as F

from common import soft_dice
from common.soft_dice import SoftDiceLoss, overlap_sums
from common.spatial import warp

LABELS = 5
SIZES = {2: (9, 7), 3: (6, 7, 5)}


def one_hot(label, count=LABELS):
    return F.one_hot(label[:, 0].long(), count).movedim(-1, 1).double()


def a_case(ndim, seed=0, moving_size=None):
    """Labels of two pairs and a ddf that leaves the grid in places."""
    generator = torch.Generator().manual_seed(seed)
    size = SIZES[ndim]
    moving = torch.randint(LABELS, (2, 1, *(moving_size or size)), generator=generator, dtype=torch.int32)
    fixed = torch.randint(LABELS, (2, 1, *size), generator=generator, dtype=torch.int32)
    ddf = 2 * torch.randn(2, ndim, *size, generator=generator, dtype=torch.float64)
    return ddf.requires_grad_(), moving, fixed


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("padding_mode", ["border", "zeros"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_value_and_gradient_are_those_of_monai_on_one_hot_maps(ndim, padding_mode, background):
    ddf, moving, fixed = a_case(ndim)
    theirs = DiceLoss(include_background=background)(
        warp(one_hot(moving), ddf, padding_mode=padding_mode), one_hot(fixed)
    )
    ours = SoftDiceLoss(LABELS, background, padding_mode)(ddf, moving, fixed)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    expected, found = (torch.autograd.grad(loss, ddf)[0] for loss in (theirs, ours))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_gradient_is_exact(ndim):
    ddf, moving, fixed = (x[:1, ..., :3, :4] for x in a_case(ndim, seed=1))
    loss = SoftDiceLoss(LABELS, padding_mode="zeros")
    field = ddf[..., :2, :, :].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda field: loss(field, moving, fixed[..., :2, :, :]), (field,))


def test_the_moving_map_may_have_another_size():
    ddf, moving, fixed = a_case(3, moving_size=(5, 8, 4))
    theirs = DiceLoss()(warp(one_hot(moving), ddf, padding_mode="zeros"), one_hot(fixed))
    torch.testing.assert_close(SoftDiceLoss(LABELS, padding_mode="zeros")(ddf, moving, fixed), theirs)


def test_blocks_change_nothing(monkeypatch):
    ddf, moving, fixed = a_case(3)
    whole = SoftDiceLoss(LABELS)(ddf, moving, fixed)
    gradient = torch.autograd.grad(whole, ddf)[0]
    monkeypatch.setattr(soft_dice, "BLOCK", 2 * 7 * 5 + 1)
    parts = SoftDiceLoss(LABELS)(ddf, moving, fixed)
    torch.testing.assert_close(parts, whole, rtol=1e-14, atol=0)
    torch.testing.assert_close(torch.autograd.grad(parts, ddf)[0], gradient, rtol=1e-14, atol=1e-18)


def test_a_square_that_moves_by_whole_voxels_overlaps_as_counted():
    """4 x 4 voxels against the same moved by (1, 2): 3 * 2 in common."""
    fixed, moving = torch.zeros(2, 1, 1, 12, 12, dtype=torch.uint8)
    moving[..., 4:8, 4:8] = 1
    fixed[..., 4:8, 4:8] = 1
    ddf = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 12, 12)
    sums = overlap_sums(ddf, moving, fixed, 2)
    assert [float(column[0, 1]) for column in sums] == [6, 16, 16]


def test_half_a_voxel_shares_the_weight():
    label = torch.tensor([0, 0, 1, 1, 0, 0]).view(1, 1, 6, 1)
    ddf = torch.zeros(1, 2, 6, 1)
    ddf[:, 0] = 0.5
    sums = overlap_sums(ddf, label, label, 2)
    assert (float(sums.warped[0, 1]), float(sums.intersection[0, 1])) == (2.0, 1.5)


def test_sums_of_millions_of_voxels_are_exact():
    """Float32 sums of quarters and three quarters, one by one, would round at every step of the second half."""
    label = torch.ones(1, 1, 2**22, 1, dtype=torch.uint8)
    ddf = torch.zeros(1, 2, 2**22, 1)
    ddf[:, 0] = 0.25
    sums = overlap_sums(ddf, label, label, 2)
    assert float(sums.warped[0, 1]) == float(sums.intersection[0, 1]) == 2**22


def test_a_label_that_neither_map_has_counts_as_perfect_or_not_at_all():
    ddf, moving, fixed = a_case(2)
    few, many, skipping = (
        SoftDiceLoss(n, skip_missing=s)(ddf, moving, fixed) for n, s in ((5, False), (10, False), (10, True))
    )
    torch.testing.assert_close(many, few / 2)
    torch.testing.assert_close(skipping, few)


def test_a_label_of_one_map_alone_is_missed_whole():
    fixed, moving = torch.zeros(2, 1, 1, 6, 6, dtype=torch.int64)
    fixed[..., 2:4, 2:4] = 1
    ddf = torch.zeros(1, 2, 6, 6, requires_grad=True)
    loss = SoftDiceLoss(2, include_background=False, skip_missing=True)(ddf, moving, fixed).detach()
    assert float(loss) == pytest.approx(1, abs=1e-4)


def test_negative_values_belong_to_no_label():
    ddf, moving, fixed = a_case(2)
    hidden = [torch.where(label == 0, -1, label) for label in (moving, fixed)]
    without = [one_hot(label) * (torch.arange(LABELS) > 0).view(1, -1, 1, 1) for label in (moving, fixed)]
    theirs = DiceLoss()(warp(without[0], ddf), without[1])
    torch.testing.assert_close(SoftDiceLoss(LABELS)(ddf, *hidden), theirs)


def test_half_precision_fields_are_summed_in_single():
    ddf, moving, fixed = a_case(2)
    low = ddf.detach().bfloat16().requires_grad_()
    loss = SoftDiceLoss(LABELS)(low, moving, fixed)
    loss.backward()
    torch.testing.assert_close(loss, SoftDiceLoss(LABELS)(low.float(), moving, fixed))
    assert loss.dtype == torch.float32 and low.grad.dtype == torch.bfloat16


def test_a_field_that_is_not_finite_gives_a_loss_that_is_not_finite():
    ddf, moving, fixed = a_case(2)
    assert not SoftDiceLoss(LABELS)(torch.full_like(ddf, torch.nan), moving, fixed).isfinite()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_labels": 4}, "holds 4, num_labels is 4"),
        ({"fixed_label": torch.zeros(2, 1, 9, 6, dtype=torch.int64)}, r"fixed_label \[9, 6\]"),
        ({"moving_label": torch.zeros(1, 1, 9, 7, dtype=torch.int64)}, r"labels \(B, 1, \*S\)"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    ddf, moving, fixed = a_case(2)
    with pytest.raises(ValueError, match=message):
        overlap_sums(**{"ddf": ddf, "moving_label": moving, "fixed_label": fixed, "num_labels": LABELS} | change)
