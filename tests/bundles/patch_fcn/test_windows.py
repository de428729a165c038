import pytest
import torch
from patch_fcn_bundle.windows import StitchedVelocity, corner_of, hann
from torch import Tensor, nn
from torch.nn import functional as F

from tests.bundles.patch_fcn.test_fcn import LIGHT, moving_network

SMALL = {"patch_size": 16, "core_size": 8, "windows_in_flight": 3}


class Local(nn.Module):
    """A network without a view beyond one voxel: stitched, it is itself."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, image[:, :1] * image[:, 1:]], dim=1)


class Smooth(nn.Module):
    """Random smooth weights, zeros around every window: windows differ from each other near their faces."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(3, 2, 9, 9, 9, generator=generator)
        self.register_buffer("weight", F.avg_pool3d(weight, 5, 1, 2))

    def forward(self, image: Tensor) -> Tensor:
        return F.conv3d(image, self.weight, padding=4)


class Average(nn.Module):
    """A network whose answer is one for the whole window."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :1].mean(dim=(2, 3, 4), keepdim=True).expand(-1, 3, *image.shape[2:])


def test_corners_run_through_the_last_axis_first():
    assert [corner_of(i, [1, 2, 3], 8) for i in range(6)] == [
        [0, 0, 0], [0, 0, 8], [0, 0, 16], [0, 8, 0], [0, 8, 8], [0, 8, 16],
    ]  # fmt: skip


@pytest.mark.parametrize("overlap", [False, True])
def test_a_network_that_sees_one_voxel_gives_every_voxel_its_own(overlap):
    """So every window is read and written where it lies, and blended weights sum to 1 up to the faces."""
    image = torch.rand(2, 2, 8, 16, 24)
    stitched = StitchedVelocity(Local(), 3, **SMALL, overlap=overlap)
    torch.testing.assert_close(stitched(image), Local()(image))


def test_two_dimensions_are_stitched_too():
    network = moving_network(2)
    stitched = StitchedVelocity(network, 2, **SMALL)
    assert stitched(torch.rand(1, 2, 16, 24)).shape == (1, 2, 16, 24)


def test_a_volume_of_one_window_is_the_direct_call():
    network, image = moving_network(), torch.rand(1, 2, 8, 8, 8)
    direct = network(F.pad(image, [4] * 6))[:, :, 4:12, 4:12, 4:12]
    torch.testing.assert_close(StitchedVelocity(network, 3, **SMALL)(image), direct)


@pytest.mark.parametrize("overlap", [False, True])
def test_whole_middles_of_padding_around_a_volume_do_not_change_its_velocity(overlap):
    """Windows see zeros beyond the grid already. Other paddings shift the tiles, and with them what a voxel sees."""
    stitched = StitchedVelocity(moving_network(), 3, **SMALL, overlap=overlap)
    image = torch.rand(1, 2, 8, 8, 16)
    whole, padded = stitched(image), stitched(F.pad(image, [8, 8, 0, 8, 8, 0]))
    torch.testing.assert_close(padded[:, :, 8:16, :8, 8:24], whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("overlap", [False, True])
def test_how_many_windows_are_in_flight_does_not_matter(overlap):
    network, image = moving_network(), torch.rand(2, 2, 8, 8, 16)
    one, many = (StitchedVelocity(network, 3, 16, 8, windows_in_flight=n, overlap=overlap)(image) for n in (1, 7))
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("overlap", [False, True])
def test_no_more_windows_than_allowed_pass_the_network_at_once(overlap):
    seen = []
    stitched = StitchedVelocity(Local(), 3, 16, 8, windows_in_flight=5, overlap=overlap)
    stitched.fcn.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    stitched(torch.rand(1, 2, 16, 16, 24))
    windows = 5 * 5 * 7 if overlap else 2 * 2 * 3
    assert sum(shape[0] for shape in seen) == windows and max(shape[0] for shape in seen) == 5
    assert all(shape[1:] == (2, 16, 16, 16) for shape in seen)


def largest_steps(svf: Tensor, step: int) -> tuple[float, float]:
    """The largest difference of neighbors across seams, every ``step`` voxels, and of those within windows."""
    on, inside = [], []
    for axis in (2, 3, 4):
        change = svf.diff(dim=axis).abs().amax(dim=[k for k in range(5) if k != axis])
        seams = torch.arange(len(change)) % step == step - 1
        on += change[seams].tolist()
        inside += change[~seams].tolist()
    return max(on), max(inside)


@pytest.mark.parametrize("overlap", [False, True])
def test_seams_do_not_show(overlap):
    """The largest gradient on seams is at most 1.2 times that inside, for a network that sees 4 voxels around."""
    image = F.avg_pool3d(torch.rand(1, 2, 20, 20, 28, generator=torch.Generator().manual_seed(0)), 5, 1)
    svf = StitchedVelocity(Smooth(), 3, **SMALL, overlap=overlap)(image)
    on, inside = largest_steps(svf, 4 if overlap else 8)
    assert on <= 1.2 * inside


@pytest.mark.parametrize("overlap", [False, True])
def test_seams_of_a_stage_do_not_show(overlap):
    """The light network as drawn, moving by voxels: its answers depend on the whole window, and hardly on its rim."""
    size = (20, 20, 36) if overlap else (36, 36, 36)  # two tiles an axis and more
    image = F.avg_pool3d(torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0)), 5, 1)
    stitched = StitchedVelocity(moving_network(channels=LIGHT), 3, 32, 16, 4, overlap)
    with torch.no_grad():
        on, inside = largest_steps(stitched(image), 8 if overlap else 16)
    assert inside > 0.01 and on <= 1.2 * inside


def test_blending_removes_the_seams_of_a_network_that_sees_its_whole_window():
    """Tiles are constant here and jump where they meet; blended windows do not."""
    image, ratios = torch.rand(1, 2, 16, 16, 24, generator=torch.Generator().manual_seed(0)), []
    for overlap in (False, True):
        on, inside = largest_steps(StitchedVelocity(Average(), 3, **SMALL, overlap=overlap)(image), 4 if overlap else 8)
        ratios.append(on / (inside + 1e-6))
    assert ratios[0] > 100 and ratios[1] <= 1.2


@pytest.mark.parametrize("side", [4, 6, 32])
def test_hann_windows_half_a_side_apart_sum_to_one(side):
    line = hann(side, 1)
    torch.testing.assert_close(line + line.roll(side // 2), torch.ones(side))
    assert hann(side, 3).shape == (side,) * 3


def test_forward_can_be_scripted():
    image = torch.rand(2, 2, 16, 8, 8)
    for overlap in (False, True):
        stitched = StitchedVelocity(moving_network(), 3, **SMALL, overlap=overlap)
        torch.testing.assert_close(torch.jit.script(stitched)(image), stitched(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("patch", "core", "flight"), [(16, 24, 1), (16, 7, 1), (15, 8, 1), (16, 0, 1), (16, 8, 0)])
def test_wrong_settings_name_what_was_found(patch, core, flight):
    with pytest.raises(ValueError, match=f"got {patch}, {core} and {flight}"):
        StitchedVelocity(Local(), 3, patch, core, flight)
