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
