"""SYMNet's loss: every term against the same term written out, and what is symmetric in it."""

import pytest
import torch
from monai.networks.blocks import Warp
from symnet_bundle.loss import SymmetricLoss, forward_jacobian, magnitude_difference, orientation_penalty
from symnet_bundle.network import SymmetricFields

from common.errors import RegInputError
from common.objective import Fields, PairLoss
from common.spatial import identity_grid, jacobian_determinant

SIZE = (8, 9, 10)
ALONE = {"similarity_weight": 0.0, "smooth_weight": 0.0, "magnitude_weight": 0.0, "orientation_weight": 0.0}


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    images = {role: torch.rand(2, 1, *SIZE, generator=generator, dtype=torch.float64) for role in ("moving", "fixed")}
    labels = {f"{role}_label": torch.randint(0, 3, (2, 1, *SIZE), generator=generator) for role in images}
    points = {f"{role}_keypoints": 1 + 6 * torch.rand(2, 4, 3, generator=generator) for role in images}
    return images | labels | points


@pytest.fixture
def fields():
    generator = torch.Generator().manual_seed(1)
    return SymmetricFields(*(torch.randn(2, 3, *SIZE, generator=generator, dtype=torch.float64) for _ in range(6)))


def other_way(fields: SymmetricFields, pair: dict) -> tuple[SymmetricFields, dict]:
    """The same pair with moving and fixed exchanged, written out."""
    turned = SymmetricFields(
        fields.fixed_svf, fields.moving_svf, fields.fixed_half, fields.moving_half, fields.inverse, fields.ddf
    )
    names = [("moving", "fixed"), ("moving_label", "fixed_label"), ("moving_keypoints", "fixed_keypoints")]
    return turned, {a: pair[b] for names_of in names for a, b in (names_of, names_of[::-1])}


def squares(first, second):
    return torch.square(first - second).mean()


def test_similarity_is_taken_at_both_ends_and_in_the_middle(pair, fields):
    loss = SymmetricLoss(similarity="mse", **ALONE | {"similarity_weight": 2.0})(fields, pair)
    carry = Warp("bilinear", "zeros")
    moving, fixed = pair["moving"], pair["fixed"]
    middle = squares(carry(moving, fields.moving_half), carry(fixed, fields.fixed_half))
    ends = squares(carry(moving, fields.ddf), fixed) + squares(carry(fixed, fields.inverse), moving)
    torch.testing.assert_close(loss, 2 * (middle + ends))


def test_smoothness_is_that_of_both_velocities(pair, fields):
    loss = SymmetricLoss(**ALONE | {"smooth_weight": 3.0})(fields, pair)
    by_hand = sum(
        svf.diff(dim=axis).square().mean() for svf in (fields.moving_svf, fields.fixed_svf) for axis in (2, 3, 4)
    )
    torch.testing.assert_close(loss, 3 * by_hand / 3)


def test_magnitude_and_orientation_have_their_weights(pair, fields):
    loss = SymmetricLoss(**ALONE | {"magnitude_weight": 0.5, "orientation_weight": 4.0})(fields, pair)
    magnitude = (fields.moving_half.abs().mean() - fields.fixed_half.abs().mean()).abs()
    folds = sum(torch.relu(-forward_jacobian(ddf)).mean() for ddf in (fields.ddf, fields.inverse))
    torch.testing.assert_close(loss, 0.5 * magnitude + 4 * folds)


def test_overlap_and_landmarks_count_in_both_directions(pair, fields):
    weights = {"dice_weight": 0.5, "num_labels": 3, "landmark_weight": 2.0}
    loss = SymmetricLoss(**ALONE | weights)(fields, pair)
    one_way = PairLoss(similarity_weight=0, smooth_weight=0, **weights)
    turned, exchanged = other_way(fields, pair)
    expected = one_way(Fields(fields.moving_svf, fields.ddf), pair) + one_way(
        Fields(turned.moving_svf, turned.ddf), exchanged
    )
    torch.testing.assert_close(loss, expected)


def test_moving_and_fixed_may_be_exchanged(pair, fields):
    loss = SymmetricLoss(kernel_size=5, dice_weight=1, num_labels=3, landmark_weight=1)
    assert loss(*other_way(fields, pair)).item() == pytest.approx(loss(fields, pair).item(), rel=1e-9)


def test_equal_images_and_still_fields_cost_nothing(pair):
    still = SymmetricFields(*[torch.zeros(2, 3, *SIZE, dtype=torch.float64)] * 6)
    assert SymmetricLoss(similarity="mse")(still, {"moving": pair["fixed"], "fixed": pair["fixed"]}).item() == 0


def test_a_pair_without_what_a_weight_needs_is_refused(pair, fields):
    del pair["moving_label"]
    with pytest.raises(RegInputError, match="no moving_label, expected label"):
        SymmetricLoss(dice_weight=1, num_labels=3)(fields, pair)


@pytest.mark.parametrize("size", [(5, 6), (5, 6, 7)])
def test_the_determinant_of_a_linear_map_is_its_matrix_determinant(size):
    n = len(size)
    matrix = torch.randn(n, n, generator=torch.Generator().manual_seed(n))
    x = identity_grid(list(size), torch.zeros(1))
    ddf = torch.einsum("ij,bj...->bi...", matrix - torch.eye(n), x)
    determinant = forward_jacobian(ddf)
    assert determinant.shape == (1, *(side - 1 for side in size))
    torch.testing.assert_close(determinant, torch.linalg.det(matrix).expand(determinant.shape), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("axis", range(3))
def test_a_mirror_costs_what_it_turns_inside_out(axis):
    x = identity_grid([4, 5, 6], torch.zeros(1))
    mirror = torch.zeros_like(x)
    mirror[:, axis] = -2 * x[:, axis]
    assert orientation_penalty(mirror).item() == pytest.approx(1)
    assert orientation_penalty(torch.zeros_like(x)).item() == 0
    assert orientation_penalty(-0.9 * x).item() == 0  # shrinks and does not fold


def test_folds_that_alternate_are_seen():
    """Central differences of a field that alternates from voxel to voxel are 0."""
    ddf = torch.zeros(1, 3, 6, 6, 6)
    ddf[:, 0, ::2] = 1.5
    assert (jacobian_determinant(ddf)[:, 1:-1] > 0).all() and orientation_penalty(ddf) > 0.1


def test_an_axis_of_one_voxel_cannot_fold():
    assert orientation_penalty(torch.rand(1, 3, 1, 5, 6)).item() == 0


def test_magnitude_is_the_difference_of_mean_lengths():
    first, second = torch.full((1, 3, 4, 4, 4), -3.0), torch.full((1, 3, 4, 4, 4), 1.0)
    assert magnitude_difference(first, second).item() == magnitude_difference(second, first).item() == 2
    assert magnitude_difference(first, -first).item() == 0
