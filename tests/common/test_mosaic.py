import base64
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.mosaic import bit_mosaic, display_size, gray_mosaic, pooled, value_mosaic


def decoded(mosaic) -> np.ndarray:
    """The volume in a mosaic, tile by tile, as its fields are described."""
    content = base64.b64decode(mosaic.src.partition("base64,")[2])
    sheet = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    tile = [n for axis, n in enumerate(mosaic.size) if axis != mosaic.axis]
    tiles = []
    for k in range(1 if mosaic.axis is None else mosaic.size[mosaic.axis]):
        top, left = k // mosaic.columns * mosaic.pitch[0], k % mosaic.columns * mosaic.pitch[1]
        tiles.append(sheet[top : top + tile[0], left : left + tile[1]])
    return tiles[0] if mosaic.axis is None else np.stack(tiles, axis=mosaic.axis)


def waves(*size: int) -> np.ndarray:
    """Slow waves along every axis, none like another, in [0, 1]."""
    phase = sum(np.sin(grid / (3 + axis)) for axis, grid in enumerate(np.indices(size)))
    return (phase - phase.min()) / np.ptp(phase)


@pytest.mark.parametrize("size", [(9, 14, 11), (1, 5, 6), (17, 12)])
def test_labels_come_back_as_they_were(size):
    labels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert np.array_equal(decoded(value_mosaic(labels)), labels)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_masks_come_back_as_they_were(share):
    mask = np.random.default_rng(0).random((9, 14, 11)) < share
    assert np.array_equal(decoded(bit_mosaic(mask)), 255 * mask)


@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (1.0, 5.0, 1.0), (1.0, 1.0, 5.0)])
def test_grays_come_back_nearly_and_are_cut_across_the_thick_axis(spacing):
    volume = waves(13, 30, 21)
    mosaic = gray_mosaic(torch.from_numpy(volume), spacing, 10**6)
    assert mosaic.axis == int(np.argmax(spacing))
    assert np.abs(decoded(mosaic) / 255 - volume).max() < 0.03


def test_an_image_is_one_tile():
    image = waves(30, 21)
    mosaic = gray_mosaic(torch.from_numpy(image), (1.0, 1.0), 10**6)
    assert mosaic.axis is None and mosaic.columns == 1
    assert np.abs(decoded(mosaic) / 255 - image).max() < 0.03


def test_a_bright_slice_does_not_shine_into_its_neighbors():
    """13 x 11 pixels fill no whole blocks: what stands between the tiles must not be black."""
    volume = torch.zeros(9, 13, 11)
    volume[4] = 1
    found = decoded(gray_mosaic(volume, (2.0, 1.0, 1.0), 10**6))
    assert found[4].min() >= 254 and found[[3, 5]].max() <= 1


def test_noise_is_written_worse_until_it_fits():
    noise = torch.rand(40, 40, 40, generator=torch.Generator().manual_seed(0))
    best, tight = (gray_mosaic(noise, (1, 1, 1), limit) for limit in (10**6, 40_000))
    assert len(tight.src) < 40_100 < len(best.src)  # the address's own words come on top
    assert np.corrcoef(decoded(tight).ravel(), noise.ravel())[0, 1] > 0.6


def test_a_grid_is_thinned_to_cubes_and_thick_slices_stay():
    assert display_size((100, 100, 100), (1, 1, 1), 125_000) == (50, 50, 50)
    assert display_size((100, 100, 20), (1, 1, 5), 50_000) == (50, 50, 20)
    assert display_size((60, 50), (1, 1), 3000) == (60, 50)


@given(
    st.lists(st.tuples(st.integers(1, 600), st.floats(0.2, 8)), min_size=2, max_size=3),
    st.integers(1, 10**6),
)
def test_a_display_grid_keeps_within_its_limit_and_uses_most_of_it(axes, limit):
    size, spacing = zip(*axes, strict=True)
    found = display_size(size, spacing, limit)
    assert math.prod(found) <= limit and all(1 <= m <= n for m, n in zip(found, size, strict=True))
    if math.prod(size) > limit >= 1000:  # one voxel more along every axis would be too many
        assert math.prod(min(m + 1, n) for m, n in zip(found, size, strict=True)) > limit


def test_means_and_largest_values_of_what_a_voxel_covers():
    volume = torch.arange(64.0).reshape(4, 4, 4)
    expected = volume.reshape(2, 2, 2, 2, 2, 2)
    assert torch.equal(pooled(volume, (2, 2, 2)), expected.mean((1, 3, 5)))
    assert torch.equal(pooled(volume, (2, 2, 2), largest=True), expected.amax((1, 3, 5)))
    assert pooled(volume, (4, 4, 4)) is volume
