import pytest
import torch
from eoir_bundle.loss import EOIRLoss, halve, pad_end
from eoir_bundle.network import EOIR, Levels
from monai.losses import DiceLoss
from scipy.ndimage import gaussian_filter, zoom
from torch.nn import functional as F

from common.losses import GradientLoss
from common.spatial import warp


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


def labelled_case(size: tuple[int, ...], padded: tuple[int, ...], labels: int, batch: int = 2):
    """Fields of three levels on a padded grid, requiring gradients, and a pair with random blobs of labels."""
    torch.manual_seed(0)
    fields = [torch.randn(batch, len(size), *[n // 2**k for n in padded]).requires_grad_() for k in range(3)]
    blobs = F.interpolate(torch.rand(batch, labels, *[4] * len(size)), size).argmax(1, keepdim=True)
    pair = {"moving": torch.rand(batch, 1, *size), "fixed": torch.rand(batch, 1, *size)}
    return Levels([f.detach() for f in fields], fields), pair | {"moving_label": blobs, "fixed_label": blobs.flip(2)}


def published_overlap(levels: Levels, pair: dict[str, torch.Tensor], labels: int) -> torch.Tensor:
    """The one-hot maps of all labels as channels, padded, blurred and halved together."""
    moving, fixed = (F.one_hot(pair[k][:, 0], labels).movedim(-1, 1).float() for k in ("moving_label", "fixed_label"))
    total = torch.zeros(())
    for k, ddf in enumerate(levels.ddf):
        step = pad_end if k == 0 else halve
        moving, fixed = step(moving, ddf.shape[2:]), step(fixed, ddf.shape[2:])
        total = total + 0.5**k * DiceLoss()(warp(moving, ddf, padding_mode="zeros"), fixed)
    return total


@pytest.mark.parametrize(("size", "padded"), [((16, 16), (16, 16)), ((13, 14, 10), (16, 16, 12))])
@pytest.mark.parametrize(("labels", "present"), [(3, 3), (9, 9), (9, 5)])
def test_overlap_by_chunks_is_that_of_all_one_hot_maps(size, padded, labels, present):
    levels, pair = labelled_case(size, padded, present)
    loss = EOIRLoss(similarity_weight=0, smooth_weight=0, dice_weight=1, num_labels=labels)
    found, expected = loss(levels, pair), published_overlap(levels, pair, labels)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    for ours, theirs in zip(*(torch.autograd.grad(x, levels.ddf) for x in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)


def test_landmarks_add_their_weighted_distance_in_mm():
    """One voxel of 2 mm off, with weight 0.5."""
    points = torch.tensor([[[4.0, 5.0]]])
    pair = a_pair((16, 16)) | {"fixed_keypoints": points, "moving_keypoints": points + torch.tensor([1.0, 0.0])}
    loss = EOIRLoss(similarity_weight=0, smooth_weight=0, landmark_weight=0.5, spacing_mm=(2.0, 3.0))
    assert float(loss(identity_levels((16, 16), 2), pair)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("weight", "part"), [("dice_weight", "moving_label"), ("landmark_weight", "moving_keypoints")])
def test_data_without_what_a_weight_needs_are_named(weight, part):
    pair = {key: image for key, image in a_pair((16, 16)).items() if "label" not in key}
    with pytest.raises(ValueError, match=f"a training pair has no {part}"):
        EOIRLoss(**{weight: 1.0})(identity_levels((16, 16), 1), pair)


def kept_bytes(labels: int) -> int:
    """What the loss keeps for its backward pass."""
    levels, pair = labelled_case((16, 16, 16), (16, 16, 16), labels)
    loss = EOIRLoss(similarity_weight=0, smooth_weight=0, dice_weight=1, num_labels=labels)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(levels, pair)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_what_the_loss_keeps_does_not_grow_with_one_hot_maps():
    """A one-hot map of 16 voxels a side and a batch of 2 has 32 KiB; 36 more labels would be 1 MiB at least."""
    assert kept_bytes(40) - kept_bytes(4) < 36 * 2**10
