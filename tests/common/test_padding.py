"""Zero-padding to a stride and back."""

import pytest
import torch

from common.padding import crop_to, pad_to_multiple


@pytest.mark.parametrize("size", [(5, 8, 9), (8, 8, 12), (7, 11)])
def test_padding_appends_zeros_up_to_the_next_multiple(size):
    image = torch.rand(2, 3, *size) + 1
    stride = [4] * len(size)
    padded = pad_to_multiple(image, stride)
    assert [n % 4 for n in padded.shape[2:]] == [0] * len(size)
    assert all(0 <= new - old < 4 for new, old in zip(padded.shape[2:], size, strict=True))
    assert torch.equal(crop_to(padded, list(size)), image)
    assert padded.sum().item() == pytest.approx(image.sum().item(), rel=1e-5)


def test_an_axis_of_stride_one_is_left_alone_and_others_have_the_least_number_of_cells():
    assert pad_to_multiple(torch.ones(1, 1, 3, 1), [2, 1], least=4).shape[2:] == (8, 1)


def test_what_fits_is_returned_itself():
    image = torch.rand(1, 1, 8, 4)
    assert pad_to_multiple(image, [4, 2]) is image


def test_both_are_scriptable():
    image = torch.rand(1, 2, 5, 6, 7)
    padded = torch.jit.script(pad_to_multiple)(image, [4, 4, 4], 1)
    assert torch.equal(torch.jit.script(crop_to)(padded, [5, 6, 7]), image)


class PadAndCrop(torch.nn.Module):
    """What every network does around its own work."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least

    def forward(self, image):
        padded = pad_to_multiple(image, [4, 4, 4], self.least)
        return padded, crop_to(2 * padded, image.shape[2:])


@pytest.mark.parametrize("least", [1, 3])
def test_one_exported_graph_pads_every_size(least):
    """Traced where something is missing, run where nothing is, and the other way round."""
    dynamic = ({axis: torch.export.Dim.DYNAMIC for axis in (2, 3, 4)},)
    sizes = [(5, 6, 11), (12, 16, 20)]
    for traced in sizes:
        program = torch.export.export(PadAndCrop(least), (torch.rand(1, 1, *traced),), dynamic_shapes=dynamic)
        graph = program.module(check_guards=False)  # torch guards layouts in memory, which change no value
        for size in [*sizes, (9, 4, 30)]:
            image = torch.rand(1, 1, *size)
            exported, eager = graph(image), PadAndCrop(least)(image)
            assert torch.equal(exported[0], eager[0]) and torch.equal(exported[1], eager[1])
