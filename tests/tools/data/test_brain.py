import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from common.errors import RegInputError
from common.geometry import voxels_to_mm
from tools.data.brain import brain_grid, cut_percent, grow_mm, largest_piece, normalize, outside_fraction, resample

LAS = np.array([[-1.0, 0, 0, 7], [0, 1, 0, -286], [0, 0, 1, -255], [0, 0, 0, 1]])


@pytest.fixture
def mask():
    """A box that is not in the middle of its array: 40 x 60 x 50 mm."""
    box = np.zeros((90, 100, 80), bool)
    box[10:50, 30:90, 5:55] = True
    return box


@pytest.mark.parametrize(("spacing", "size"), [(1.0, (160, 192, 224)), (2.0, (80, 96, 112))])
def test_the_grid_is_lia_and_has_the_brain_in_its_middle(mask, spacing, size):
    grid = brain_grid(mask, LAS, spacing)
    assert grid.size == size
    assert nib.aff2axcodes(grid.affine) == ("L", "I", "A")
    np.testing.assert_allclose(nib.affines.voxel_sizes(grid.affine), spacing)
    middle_of_box = voxels_to_mm([[29.5, 59.5, 29.5]], LAS)
    np.testing.assert_allclose(voxels_to_mm([(np.array(size) - 1) / 2], grid.affine), middle_of_box)


def test_a_brain_that_does_not_fit_is_refused(mask):
    with pytest.raises(
        RegInputError, match=r"measures \[195.0, 245.0, 295.0\] mm .* expected at most \[160, 192, 224\]"
    ):
        brain_grid(mask, LAS @ np.diag([5, 5, 5, 1]), 1.0)


def test_intensities_are_divided_by_a_percentile_of_the_brain_and_clipped():
    """A few bright vessels, and bright skin outside, change nothing."""
    image = np.zeros((30, 30, 30), np.float32)
    mask = image.copy().astype(bool)
    mask[5:25, 5:25, 5:25] = True
    image[mask] = np.linspace(1, 800, mask.sum())
    image[0], image[6, 6, 6:10] = 5000, 9000
    result = normalize(image, mask)
    assert result.dtype == np.float32
    assert result.max() == 1
    assert not result[~mask].any()
    assert result[15, 15, 15] == pytest.approx(image[15, 15, 15] / 800, rel=2e-3)


def test_a_mask_without_signal_is_refused():
    with pytest.raises(RegInputError, match="percentile is 0"):
        normalize(np.zeros((4, 4, 4)), np.ones((4, 4, 4), bool))


def test_an_image_is_sampled_where_the_matrix_leads(mask):
    grid = brain_grid(mask, LAS, 1.0)
    image = np.random.default_rng(0).normal(size=mask.shape)
    turn = np.eye(4)
    turn[:3, :3] = [[0.99, -0.1, 0], [0.1, 0.99, 0], [0, 0.05, 1.02]]
    middle = voxels_to_mm([[29.5, 59.5, 29.5]], LAS)[0]
    turn[:3, 3] = middle - turn[:3, :3] @ middle + [3, -2, 1.5]
    voxels = np.array([[80, 100, 110], [70, 90, 120], [90, 96, 100]])
    at = voxels_to_mm(voxels_to_mm(voxels, grid.affine), np.linalg.inv(LAS) @ turn)
    expected = map_coordinates(image, at.T, order=1, mode="constant")
    assert np.abs(expected).min() > 0
    np.testing.assert_allclose(resample(image, LAS, grid, turn, order=1)[tuple(voxels.T)], expected)


def test_a_coarser_grid_averages_and_an_equal_one_does_not(mask):
    """A pattern that changes sign at every voxel must not turn into another one at 2 mm."""
    stripes = np.indices(mask.shape).sum(0) % 2 * 2.0 - 1
    half = np.eye(4)
    half[:3, 3] = 0.5  # the 2 mm grid lies between voxels, where interpolation alone would average
    fine = resample(stripes, LAS, brain_grid(mask, LAS, 1.0), np.eye(4), order=1)
    coarse, inside = (
        resample(voxels, LAS, brain_grid(mask, LAS, 2.0), half, order=1) for voxels in (stripes, np.ones(mask.shape))
    )
    inside = inside > 0.99
    assert np.abs(coarse[inside]).mean() < 0.1
    assert np.abs(fine).max() == pytest.approx(1)


def test_labels_are_not_mixed(mask):
    labels = np.random.default_rng(0).choice([0, 4, 207], size=mask.shape)
    grid = brain_grid(mask, LAS, 2.0)
    assert set(np.unique(resample(labels, LAS, grid, np.eye(4), order=0))) == {0, 4, 207}


def cut_by_hand(mask, grid, to_native):
    """The raw voxels that no voxel of the prepared grid comes from, by making the whole prepared mask."""
    left = resample(mask.astype(np.uint8), LAS, grid, to_native, order=0).sum()
    return 100 * (1 - left / mask.sum())


def test_the_part_of_a_brain_off_the_grid_is_counted(mask):
    grid = brain_grid(mask, LAS, 1.0)
    assert cut_percent(mask, LAS, grid, np.eye(4)) == 0
    away = np.eye(4)
    away[1, 3] = 82 + 15  # front and back have 82 mm to spare for 60 mm of box, up and down 71 mm for 50 mm
    assert cut_percent(mask, LAS, grid, away) == pytest.approx(25)
    turn = np.eye(4)  # y and z change places about the middle, and 15 mm of that: the direction counts
    turn[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    middle = voxels_to_mm([[29.5, 59.5, 29.5]], LAS)[0]
    turn[:3, 3] = middle - turn[:3, :3] @ middle + [0, 0, 82 + 12]
    assert cut_percent(mask, LAS, grid, turn) == pytest.approx(cut_by_hand(mask, grid, turn))


def test_a_mask_grows_by_millimeters_and_not_by_voxels():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    grown = np.argwhere(grow_mm(mask, np.diag([-1.0, 2, 3, 1]), 3.0))
    np.testing.assert_array_equal([grown.min(axis=0), grown.max(axis=0)], [[1, 3, 3], [7, 5, 5]])


def test_the_largest_piece_is_kept_alone():
    mask = np.zeros((8, 8, 8), bool)
    mask[:3, :3, :3] = mask[6:, 6:, 6:] = True
    kept = largest_piece(mask)
    assert kept.sum() == 27
    assert kept[0, 0, 0]


def test_what_no_label_covers_is_a_share_of_the_nonzero_voxels():
    image, labels = np.zeros((10, 10, 10)), np.zeros((10, 10, 10), int)
    image[:4], labels[:3] = -5, 9
    assert outside_fraction(image, labels) == 0.25
    assert outside_fraction(np.zeros((2, 2, 2)), labels[:2, :2, :2]) == 0
