"""The loss of networks that answer with one field: every term against the same term written out."""

import pytest
import torch
from monai.losses import DiceLoss, LocalNormalizedCrossCorrelationLoss
from monai.networks.blocks import Warp

from common.errors import RegInputError
from common.objective import Fields, PairLoss


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    images = {
        role: torch.rand(2, 1, 8, 9, 10, generator=generator, dtype=torch.float64) for role in ("moving", "fixed")
    }
    labels = {f"{role}_label": torch.randint(0, 3, (2, 1, 8, 9, 10), generator=generator) for role in images}
    points = {f"{role}_keypoints": 1 + 6 * torch.rand(2, 4, 3, generator=generator) for role in images}
    return images | labels | points


@pytest.fixture
def fields():
    generator = torch.Generator().manual_seed(1)
    svf, ddf = (torch.randn(2, 3, 8, 9, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    return Fields(svf, ddf)


def monai_warp(image, ddf):
    return Warp("bilinear", "zeros")(image, ddf)


def test_similarity_is_that_of_the_image_warped_by_the_ddf(pair, fields):
    warped = monai_warp(pair["moving"], fields.ddf)
    squares = PairLoss("mse", smooth_weight=0, similarity_weight=2)(fields, pair)
    torch.testing.assert_close(squares, 2 * torch.square(warped - pair["fixed"]).mean())
    lncc = PairLoss(kernel_size=5, smooth_weight=0)(fields, pair)
    monai = LocalNormalizedCrossCorrelationLoss(kernel_size=5, smooth_dr=1e-5)(warped, pair["fixed"])
    assert lncc.item() == pytest.approx(1 + monai.item(), abs=1e-6)  # another place for the same eps


def test_smoothness_is_that_of_the_velocity(pair, fields):
    loss = PairLoss(similarity_weight=0, smooth_weight=3, smooth_norm="l1")(fields, pair)
    by_hand = sum(fields.svf.diff(dim=axis).abs().mean() for axis in (2, 3, 4)) / 3
    torch.testing.assert_close(loss, 3 * by_hand)


def test_overlap_is_monais_dice_of_the_warped_one_hot_labels(pair, fields):
    loss = PairLoss(similarity_weight=0, smooth_weight=0, dice_weight=0.5, num_labels=3)(fields, pair)
    one_hot = [torch.cat([pair[f"{role}_label"] == k for k in range(3)], 1).double() for role in ("moving", "fixed")]
    dice = DiceLoss(include_background=True)(monai_warp(one_hot[0], fields.ddf), one_hot[1])
    torch.testing.assert_close(loss, 0.5 * dice, rtol=1e-4, atol=1e-5)


def test_landmarks_are_read_in_mm(pair, fields):
    still = Fields(fields.svf, torch.zeros_like(fields.ddf))
    loss = PairLoss(similarity_weight=0, smooth_weight=0, landmark_weight=2, spacing_mm=(1, 2, 3))(still, pair)
    apart = (pair["fixed_keypoints"] - pair["moving_keypoints"]) * torch.tensor([1.0, 2.0, 3.0])
    assert loss.item() == pytest.approx(2 * apart.norm(dim=-1).mean().item(), abs=3e-3)


@pytest.mark.parametrize("part", ["label", "keypoints"])
def test_a_pair_without_what_a_weight_needs_is_refused(pair, fields, part):
    del pair[f"moving_{part}"]
    loss = PairLoss(dice_weight=float(part == "label"), landmark_weight=float(part == "keypoints"), num_labels=3)
    with pytest.raises(RegInputError, match=f"no moving_{part}, expected {part}"):
        loss(fields, pair)


def test_an_unknown_similarity_is_refused():
    with pytest.raises(ValueError, match="'lncc' or 'mse'"):
        PairLoss("ssd")
