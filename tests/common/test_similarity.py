"""Similarities by name: their values, their masks, and what they refuse."""

import pytest
import torch

from common.errors import RegInputError
from common.mind import mind
from common.mutual_information import mutual_information
from common.similarity import LNCC, MIND, MSE, SIMILARITIES, MutualInformation, make_similarity
from tests.lncc_oracle import oracle, random_pair

CLASSES = {"lncc": LNCC, "mi": MutualInformation, "mind": MIND, "mse": MSE}
SIZE = (9, 10, 11)
REACH = {"lncc": 1, "mi": 0, "mind": 0, "mse": 0}  # voxels beyond the mask that count, of features


def compared(name: str, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of a warped and a fixed image."""
    similarity = make_similarity(name, 3, 1, 2)
    fixed, warped = (similarity.features(image.detach()) for image in random_pair(batch, 1, *SIZE))
    return warped, fixed


def box_mask(margin: int = 0) -> torch.Tensor:
    """A box inside, wider by ``margin``."""
    mask = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    mask[..., 3 - margin : 6 + margin, 4 - margin : 7 + margin, 2 - margin : 7 + margin] = True
    return mask


@pytest.mark.parametrize("name", SIMILARITIES)
def test_every_name_makes_its_class_which_prefers_equal_images(name):
    similarity = make_similarity(name, 3, 1, 2)
    warped, fixed = compared(name)
    assert type(similarity) is CLASSES[name]
    loss, best = similarity(warped, fixed), similarity(fixed, fixed)
    assert loss.shape == () and float(best) < float(loss)
    torch.testing.assert_close(similarity(warped, fixed, torch.ones(1, 1, *SIZE, dtype=torch.bool)), loss)


def test_values_are_those_of_the_definitions():
    fixed, warped = (image.detach() for image in random_pair(2, 1, *SIZE))
    mask = box_mask().expand(2, -1, -1, -1, -1)
    expected = {
        "lncc": 1 - oracle(fixed, warped, 3)[mask].mean(),
        "mi": -mutual_information(fixed, warped, 32, mask),
        "mind": (mind(fixed, 1, 2) - mind(warped, 1, 2)).square().movedim(1, -1)[mask[:, 0]].mean(),
        "mse": (fixed - warped)[mask].square().mean(),
    }
    assert set(expected) == set(SIMILARITIES)
    for name, value in expected.items():
        similarity = make_similarity(name, 3, 1, 2)
        found = similarity(similarity.features(warped), similarity.features(fixed), mask)
        assert float(found) == pytest.approx(float(value), rel=1e-5), name


@pytest.mark.parametrize("name", SIMILARITIES)
def test_what_lies_outside_a_mask_has_no_say_and_no_gradient(name):
    warped, fixed = compared(name)
    outside = ~box_mask(REACH[name]).expand_as(warped)
    other = torch.where(outside, 1 - warped, warped).requires_grad_()
    similarity = make_similarity(name, 3, 1, 2)
    loss = similarity(other, fixed, box_mask())
    torch.testing.assert_close(loss.detach(), similarity(warped, fixed, box_mask()), rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(loss, other)
    assert not gradient[outside].any() and gradient[~outside].any()


def test_lncc_looks_beyond_the_mask_by_its_radius():
    warped, fixed = compared("lncc")
    (gradient,) = torch.autograd.grad(LNCC(5)(warped.requires_grad_(), fixed, box_mask()), warped)
    assert gradient[box_mask(2) & ~box_mask(1)].any() and not gradient[~box_mask(2)].any()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_one_mask_for_a_batch_is_that_mask_for_every_item(name):
    warped, fixed = compared(name, batch=2)
    similarity = make_similarity(name, 3, 1, 2)
    shared = similarity(warped, fixed, box_mask())
    torch.testing.assert_close(shared, similarity(warped, fixed, box_mask().expand(2, -1, -1, -1, -1)))
    alone = [similarity(warped[k : k + 1], fixed[k : k + 1], box_mask()) for k in range(2)]
    torch.testing.assert_close(shared, torch.stack(alone).mean())


@pytest.mark.parametrize(("name", "value"), [("lncc", 1.0), ("mind", 0.0), ("mse", 0.0)])
def test_an_empty_mask_gives_a_loss_without_a_gradient(name, value):
    warped, fixed = compared(name)
    loss = make_similarity(name, 3, 1, 2)(warped.requires_grad_(), fixed, torch.zeros(1, 1, *SIZE))
    (gradient,) = torch.autograd.grad(loss, warped)
    assert float(loss) == value and not gradient.any()


def test_mutual_information_of_an_empty_mask_is_refused():
    with pytest.raises(RegInputError, match="without a voxel above 0"):
        MutualInformation()(*compared("mi"), torch.zeros(1, 1, *SIZE))


def test_half_precision_counts_more_voxels_than_it_can_hold():
    warped = torch.full((1, 1, 41, 41, 41), 0.5, dtype=torch.float16)
    fixed, mask = torch.zeros_like(warped), torch.ones_like(warped)
    assert float(MSE()(warped, fixed, mask)) == 0.25


def test_features_are_the_image_or_its_descriptor():
    image = random_pair(1, 1, *SIZE)[0].detach()
    for name in ("lncc", "mi", "mse"):
        assert make_similarity(name, 3, 1, 2).features(image) is image
    torch.testing.assert_close(make_similarity("mind", 3, 1, 2).features(image), mind(image, 1, 2), rtol=0, atol=0)
    inverted = MIND(radius=2, dilation=1).features(3 - 2 * image)
    torch.testing.assert_close(inverted, mind(image, 2, 1), rtol=1e-4, atol=1e-5)


def test_window_of_lncc_is_passed_on():
    assert make_similarity("lncc", 7).kernel_size == 7 and "kernel_size=7" in repr(make_similarity("lncc", 7))


@pytest.mark.parametrize("name", ["ncc", "", "LNCC"])
def test_unknown_name_is_refused_with_those_known(name):
    with pytest.raises(RegInputError, match=f"similarity is '{name}', expected one of lncc, mi, mind, mse; choose one"):
        make_similarity(name)
