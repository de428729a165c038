import numpy as np
import pytest

from common.planes import display_planes, foreground_center, slice_view, windowed

SIZE, SPACING = (12, 10, 9), (1.0, 1.5, 2.5)
CENTER = (5, 4, 3)


@pytest.mark.parametrize("orientation", ["RAS", "LIA", "PSR", "LPS"])
def test_slices_look_alike_in_every_orientation(orientation):
    """One brain stored in two orientations gives the same picture."""
    volume = np.random.default_rng(0).random(SIZE)
    turned, spacing = volume, list(SPACING)
    order = ["LR".find, "PA".find, "IS".find]
    axes = [next(k for k, find in enumerate(order) if find(letter) >= 0) for letter in orientation]
    turned = volume.transpose(axes)[tuple(slice(None, None, 1 if o in "RAS" else -1) for o in orientation)]
    center = [CENTER[k] if o in "RAS" else SIZE[k] - 1 - CENTER[k] for k, o in zip(axes, orientation, strict=True)]
    planes = display_planes(turned.shape, [spacing[k] for k in axes], orientation)
    for plane, reference in zip(planes, display_planes(SIZE, SPACING, "RAS"), strict=True):
        assert plane.name == reference.name
        assert np.array_equal(slice_view(turned, plane, center), slice_view(volume, reference, CENTER))
        assert [spacing[axes[k]] for k in (plane.rows, plane.columns)] == [
            spacing[k] for k in (reference.rows, reference.columns)
        ]


def test_the_center_is_that_of_what_is_bright():
    image = np.zeros((9, 8, 7))
    image[2:5, 6, 1:3] = 5
    assert foreground_center(image) == [3, 6, 2]
    assert foreground_center(np.ones((9, 8))) == [4, 4]


def test_the_warped_image_is_seen_in_the_window_of_the_moving_one():
    """Values 0 to 100 in a window from the 1st to the 99th percentile, whatever the warped image holds."""
    fixed = np.arange(101.0).reshape(101, 1)
    gray = windowed([fixed, 10 * fixed, np.full((101, 1), 500.0)])
    expected = np.clip((fixed - 1) / 98, 0, 1)
    assert np.allclose(gray[0], expected) and np.allclose(gray[1], expected) and np.allclose(gray[2], 0.5)
