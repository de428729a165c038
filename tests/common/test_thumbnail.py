import numpy as np
import pytest
import torch
from PIL import Image

from common.planes import display_planes, slice_view
from common.report import FIXED_COLOR
from common.thumbnail import GAP, HEIGHT, save_thumbnail, thumbnail

COLOR = [int(FIXED_COLOR[k : k + 2], 16) for k in (1, 3, 5)]


def boxes(shift: int = 0) -> torch.Tensor:
    """A bright box off the middle, on a little noise."""
    image = 0.02 * torch.rand(1, 1, 40, 48, 32, generator=torch.Generator().manual_seed(0))
    image[..., 6 + shift : 20 + shift, 10:36, 8:20] += 1
    return image


def panels(picture: np.ndarray) -> list[np.ndarray]:
    """The three planes of 40 x 48 x 32 mm in RAS: 40, 40 and 48 mm wide, 48 mm being the full height."""
    scale, left, parts = HEIGHT / 48, 0, []
    for width_mm in (40, 40, 48):
        width = round(width_mm * scale)
        parts.append(picture[:, left : left + width])
        left += width + GAP
    assert left - GAP == picture.shape[1]
    return parts


def test_each_plane_shows_the_warped_image_as_reports_do():
    fixed, warped = boxes(), boxes(shift=9)
    axial = panels(thumbnail(fixed, warped, (1, 1, 1)))[0]
    plane = display_planes((40, 48, 32), (1, 1, 1))[0]
    expected = slice_view(warped[0, 0].numpy() > 0.5, plane, (0, 0, 14))
    big = np.asarray(Image.fromarray(expected).resize(axial.shape[1::-1], Image.Resampling.NEAREST))
    orange = (axial == COLOR).all(-1)
    bright = (axial > 200).all(-1)
    assert (bright != big)[~orange].mean() < 0.01


def test_the_outline_is_that_of_the_fixed_image():
    """At the box's rim, inside of it, and nowhere else."""
    fixed = boxes()
    axial = panels(thumbnail(fixed, boxes(shift=9), (1, 1, 1)))[0]
    orange = (axial == COLOR).all(-1)
    rows, columns = np.nonzero(orange)
    scale = HEIGHT / 48
    assert np.allclose([rows.min(), rows.max() + 1], [(48 - 36) * scale, (48 - 10) * scale], atol=1.5)
    assert np.allclose([columns.min(), columns.max() + 1], [(40 - 20) * scale, (40 - 6) * scale], atol=1.5)
    inside = (slice(rows.min() + 1, rows.max()), slice(columns.min() + 1, columns.max()))
    assert not orange[inside].any() and orange.sum() > 100


@pytest.mark.parametrize("size", [(40, 48, 32), (40, 48)])
def test_even_noise_is_a_small_file(tmp_path, size):
    noise = torch.rand(2, 1, 1, *size, generator=torch.Generator().manual_seed(0))
    save_thumbnail(tmp_path / "t.jpg", *noise, [1.0] * len(size))
    assert (tmp_path / "t.jpg").stat().st_size <= 15_000
    assert Image.open(tmp_path / "t.jpg").size[1] == HEIGHT
