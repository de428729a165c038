import numpy as np
import pytest

from tools.data.heads import foreground, why_not_stripped

from .own_scans import GRID, brain


def test_the_foreground_is_what_differs_from_the_corners():
    voxels = np.full((4, 5, 6), -3.0)
    voxels[1:3, 2, 3] = [0.0, 7.0]
    assert np.array_equal(np.argwhere(foreground(voxels)), [[1, 2, 3], [2, 2, 3]])


def test_corners_that_differ_are_no_background():
    voxels = np.zeros((4, 5, 6))
    voxels[-1, -1, -1] = 1e-3
    assert foreground(voxels).all()


@pytest.mark.parametrize("background", [0, -1000])
def test_a_stripped_brain_passes_whatever_its_background(background):
    image, labels = brain()
    assert why_not_stripped(np.where(labels > 0, image, background), GRID, labels) is None


def test_a_head_in_noisy_air_is_noticed():
    assert "no background" in why_not_stripped(brain(head=True)[0], GRID)


def test_a_head_in_air_of_one_value_is_noticed_by_its_volume():
    """600 ml of brain at 6 mm are 3.7 l at 11 mm."""
    image, _ = brain()
    assert "ml (a brain: under 2500)" in why_not_stripped(image, GRID @ np.diag([11 / 6, 11 / 6, 11 / 6, 1]))


def test_a_head_is_noticed_by_labels_that_leave_most_of_it_out():
    image, labels = brain()
    assert "has no label" in why_not_stripped(
        image, GRID, np.where(labels == 3, labels, 0) * (np.indices(labels.shape)[1] < 14)
    )
