import pytest
import torch
from eoir_bundle.loss import EOIRLoss, halve, pad_end
from eoir_bundle.network import EOIR, Levels
from scipy.ndimage import gaussian_filter, zoom

from common.losses import GradientLoss


def identity_levels(size: tuple[int, ...], count: int) -> Levels:
    fields = [torch.zeros(1, len(size), *[n // 2**k for n in size]) for k in range(count)]
    return Levels(fields, [f.clone() for f in fields])


def a_pair(size: tuple[int, ...]) -> dict[str, torch.Tensor]:
    labels = torch.zeros(2, 1, 1, *size, dtype=torch.int32)
    labels[:, ..., 4:12, 4:12] = 1
    return {
        "moving": torch.rand(1, 1, *size),
        "fixed": torch.rand(1, 1, *size),
        "moving_label": labels[0],
        "fixed_label": labels[1],
    }


def test_levels_are_weighted_by_powers_of_one_half():
    """Smoothness alone: fields that rise by one voxel a voxel along one of three axes cost 1/3 at each level."""
    fields = [torch.arange(float(n)).view(1, 1, n, 1, 1).expand(1, 1, n, n, n) for n in (32, 16, 8)]
    fields = [torch.cat([f, 0 * f, 0 * f], dim=1) for f in fields]
    levels = Levels(fields, [0 * f for f in fields])
    loss = EOIRLoss(similarity_weight=0, smooth_weight=1, smooth_norm="l1")(levels, a_pair((32, 32, 32)))
    assert float(GradientLoss("l1")(fields[0])) == pytest.approx(1 / 9)
    assert float(loss) == pytest.approx((1 + 0.5 + 0.25) / 9)


def test_similarity_of_equal_images_is_almost_zero_and_of_others_is_not():
    pair = a_pair((32, 32, 32))
    loss = EOIRLoss(kernel_sizes=(9, 5, 3), smooth_weight=0)
    equal = loss(identity_levels((32, 32, 32), 3), pair | {"moving": pair["fixed"]})
    assert float(equal) < 0.02 < 1 < float(loss(identity_levels((32, 32, 32), 3), pair))


def test_without_windows_the_similarity_is_the_mean_squared_error():
    pair = a_pair((16, 16))
    loss = EOIRLoss(kernel_sizes=None, smooth_weight=0)(identity_levels((16, 16), 1), pair)
    torch.testing.assert_close(loss, (pair["moving"] - pair["fixed"]).square().mean())


def test_windows_shrink_to_coarse_levels_of_small_images():
    pair = a_pair((16, 16))
    levels = identity_levels((16, 16), 4)  # 16, 8, 4 and 2 voxels
    loss = EOIRLoss(kernel_sizes=(9,), smooth_weight=0)(levels, pair)
    assert loss.isfinite() and 0 < float(loss) < 1 + 0.5 + 0.25


def test_dice_of_equal_labels_is_zero_and_of_disjoint_ones_is_not():
    pair = a_pair((16, 16))
    loss = EOIRLoss(similarity_weight=0, smooth_weight=0, dice_weight=1, num_labels=2)
    assert float(loss(identity_levels((16, 16), 1), pair)) == pytest.approx(0, abs=1e-5)
    disjoint = pair | {"moving_label": 1 - pair["moving_label"]}
    assert float(loss(identity_levels((16, 16), 1), disjoint)) == pytest.approx(1, abs=1e-3)


def test_a_label_above_the_count_is_named():
    loss = EOIRLoss(similarity_weight=0, smooth_weight=0, dice_weight=1, num_labels=2)
    pair = a_pair((16, 16))
    with pytest.raises(ValueError, match="moving_label holds 7, num_labels is 2"):
        loss(identity_levels((16, 16), 1), pair | {"moving_label": 7 * pair["moving_label"]})


def test_the_image_is_padded_where_the_network_pads():
    padded = pad_end(torch.ones(1, 1, 3, 5, 7), (4, 8, 8))
    assert padded.shape == (1, 1, 4, 8, 8) and float(padded[0, 0, :3, :5, :7].sum()) == padded.sum() == 105


def test_halving_is_a_gaussian_of_one_voxel_and_linear_resampling():
    """Against scipy, away from the border, where ours continues with zeros."""
    image = torch.from_numpy(gaussian_filter(torch.randn(24, 24).numpy(), 2)).view(1, 1, 24, 24)
    expected = zoom(gaussian_filter(image[0, 0].numpy(), 1.0, truncate=2.0), 0.5, order=1)
    found = halve(image, (12, 12))[0, 0].numpy()
    assert abs(found - expected)[3:-3, 3:-3].max() < 1e-5


def test_a_step_against_the_gradient_lowers_the_loss():
    torch.manual_seed(0)
    network, pair = EOIR(channels=4, levels=3), a_pair((16, 16, 16))
    image = torch.cat([pair["moving"], pair["fixed"]], dim=1)
    loss, optimizer = EOIRLoss((3, 3, 3)), torch.optim.SGD(network.parameters(), lr=1e-2)
    before = loss(network.pyramid(image), pair)
    before.backward()
    optimizer.step()
    assert float(loss(network.pyramid(image), pair)) < float(before)
