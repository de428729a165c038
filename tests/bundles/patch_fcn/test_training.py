import pytest
import torch
from ignite.engine import Engine
from patch_fcn_bundle.network import PatchFCN
from patch_fcn_bundle.training import PatchView, PrepareStage, StageByStage, draw_patches
from torch import Tensor

from common.engine import StartEpoch
from common.errors import RegInputError
from common.spatial import warp
from tests.bundles.patch_fcn.test_network import SMALL, moving_network, smooth_pair


class Epochs:
    """A data set that is told the epoch."""

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def batch_of(image: Tensor) -> dict[str, Tensor]:
    return {"moving": image[:, :1], "fixed": image[:, 1:]}


def count_calls(network: PatchFCN) -> list[int]:
    """Stages that were asked, in order, from now on."""
    asked: list[int] = []
    for k, stage in enumerate(network.stages):
        stage.register_forward_hook(lambda *_, k=k: asked.append(k))
    return asked


def test_every_stage_has_its_epochs_and_the_last_one_what_is_left():
    network, seen = PatchFCN(**SMALL), []
    engine = Engine(lambda *_: seen.append(network.stages_in_use))
    StageByStage(network, 2).attach(engine)
    engine.run([0], max_epochs=8)
    assert seen == [1, 1, 2, 2, 3, 3, 3, 3]


def test_no_epochs_for_a_stage_are_refused():
    with pytest.raises(RegInputError, match="stage_epochs is 0"):
        StageByStage(PatchFCN(**SMALL), 0)


def test_the_first_stage_sees_the_images_as_they_are():
    network, image = moving_network(stages_in_use=1), smooth_pair(8, 8, 8)
    asked = count_calls(network)
    found, pair = PrepareStage(network)(batch_of(image))
    assert torch.equal(found, image) and torch.equal(pair["fixed"], image[:, 1:]) and not asked


@pytest.mark.parametrize("stage", [2, 3])
def test_a_later_stage_sees_the_moving_image_as_the_earlier_ones_warp_it(stage):
    network, image = moving_network(stages_in_use=stage), torch.cat([smooth_pair(8, 8, 12), torch.rand(1, 2, 8, 8, 12)])
    found, pair = PrepareStage(network)(batch_of(image))
    network.stages_in_use = stage - 1
    with torch.no_grad():
        expected = warp(image[:, :1], network(image))
    torch.testing.assert_close(found, torch.cat([expected, image[:, 1:]], dim=1), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, image, atol=1e-3) and torch.equal(pair["moving"], image[:, :1])


def test_each_pair_is_warped_once_for_a_stage():
    network, image = moving_network(stages_in_use=2), torch.rand(2, 2, 8, 8, 8)
    asked, prepare = count_calls(network), PrepareStage(network)
    first, again = prepare(batch_of(image))[0], prepare(batch_of(image.flip(0)))[0]
    assert asked == [0, 0] and torch.equal(first, again.flip(0))
    prepare(batch_of(image.flip(1)))
    assert asked == [0] * 4  # the other way round they are other pairs
    network.stages_in_use = 3
    later = prepare(batch_of(image))[0]
    assert asked[4:] == [0, 1, 0, 1] and not torch.equal(later, first)


def test_without_room_in_the_cache_every_pair_is_warped_anew():
    network, image = moving_network(stages_in_use=2), torch.rand(2, 2, 8, 8, 8)
    asked, prepare = count_calls(network), PrepareStage(network, cache_limit_mib=8**3 * 4 / 2**20)  # of one image
    first, again = prepare(batch_of(image))[0], prepare(batch_of(image))[0]
    assert asked == [0, 0, 0] and torch.equal(first, again)


def test_only_the_stage_in_training_has_a_gradient():
    network = moving_network(stages_in_use=2)
    fields = PatchView(network, patches=2)(torch.rand(1, 2, 8, 8, 8))
    assert fields.svf.shape == (2, 3, 16, 16, 16) and fields.alpha == 0.005
    fields.svf.square().sum().backward()
    assert all(p.grad is not None for p in network.stages[1].parameters())
    assert all(p.grad is None for k in (0, 2) for p in network.stages[k].parameters())


def test_patches_of_both_images_are_from_the_same_place():
    image = torch.rand(2, 1, 20, 9, 30) + 1
    patches = draw_patches(torch.cat([-image, image], dim=1), 8, 16, 8)
    assert patches.shape == (16, 2, 16, 16, 16) and torch.equal(patches[:, 0], -patches[:, 1])


def test_the_voxel_that_was_drawn_is_the_middle_of_its_patch():
    torch.manual_seed(0)
    image = torch.zeros(1, 2, 6, 6, 6)
    image[0, 1, 3, 2, 4] = 1
    (patch,) = draw_patches(image, 1, 8, 4)
    assert patch[1].nonzero().tolist() == [[4, 4, 4]]


def test_half_of_the_patches_are_around_the_foreground():
    """A foreground of a hundredth of the volume: centers drawn anywhere would almost never meet it."""
    image = torch.zeros(1, 2, 48, 48, 48)
    image[:, :, 20:30, 20:30, 20:30] = 1
    torch.manual_seed(0)
    centers = draw_patches(image, 40, 16, 16)[:, 1, 8, 8, 8]
    assert centers[::2].all() and centers[1::2].sum() <= 1  # an outer center may be moved inside, hardly that far


def test_patches_reach_as_far_beyond_the_image_as_windows_do():
    image = torch.ones(1, 2, 24, 24, 24)
    torch.manual_seed(0)
    patches = draw_patches(image, 60, 16, 8)  # windows begin 4 voxels before the image and end 4 behind it
    shares = patches[:, 1].mean(dim=(1, 2, 3))
    outside = 16 - (patches[:, 1].amax(dim=(2, 3)) > 0).sum(dim=1)
    assert shares.min() >= (12 / 16) ** 3 and outside.max() == 4 and outside.min() == 0


@pytest.mark.parametrize("size", [(3, 5, 16), (8, 40)])
def test_images_smaller_than_a_patch_have_patches(size):
    patches = draw_patches(torch.rand(1, 2, *size), 3, 16, 8)
    assert patches.shape == (3, 2, *[16] * len(size)) and patches.abs().amax() > 0


def test_patches_are_a_function_of_seed_and_epoch():
    image, drawn = torch.rand(1, 2, 32, 32, 32), []
    for _ in range(2):
        engine = Engine(lambda *_: drawn.append(draw_patches(image, 2, 16, 8)))
        StartEpoch(Epochs(), seed=3).attach(engine)
        engine.run([0], max_epochs=2)
    first, second, again, last = drawn
    assert torch.equal(first, again) and torch.equal(second, last) and not torch.equal(first, second)


def test_an_alpha_is_needed_for_each_stage():
    with pytest.raises(RegInputError, match="got 2 alphas and 16 patches a pair for a network of 3 stages"):
        PatchView(PatchFCN(**SMALL), alphas=[0.01, 0.005])
