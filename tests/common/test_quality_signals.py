"""Signals of registrations whose faults are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from common.geometry import resample_mm, warp_mm
from common.quality import signals_of
from common.quality_view import coarse_grid, coarse_view, foreground
from common.registration import Grid, Images, fields_of

SIZE = (32, 36, 40)
AFFINE = np.array([[0, -2.0, 0, 30], [2.0, 0, 0, -20], [0, 0, 1.5, 5], [0, 0, 0, 1]])  # axes turned, anisotropic


def ball(radius_mm: float, center: np.ndarray) -> np.ndarray:
    world = np.moveaxis(np.indices(SIZE), 0, -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    return np.linalg.norm(world - center, axis=-1) < radius_mm


def anatomy() -> torch.Tensor:
    """A textured ball of 24 mm radius."""
    texture = gaussian_filter(np.random.default_rng(0).standard_normal(SIZE), 1.5)
    center = (AFFINE @ [*(np.array(SIZE) - 1) / 2, 1])[:3]
    image = np.where(ball(24, center), 100 + 300 * texture, 0)
    return torch.from_numpy(image.astype(np.float32))[None, None]


def view(ddf=None, fixed=None, moving=None, moving_affine=AFFINE, **answer):
    """What the check sees of a displacement in voxels between two images on one grid."""
    fixed = anatomy() if fixed is None else fixed
    moving = fixed if moving is None else moving
    ddf = torch.zeros(3, *SIZE) if ddf is None else ddf
    grid, other = Grid(SIZE, AFFINE), Grid(tuple(moving.shape[2:]), moving_affine)
    fields = fields_of({"ddf": ddf}, AFFINE, grid, other, inverse=False)
    warped = warp_mm(moving, moving_affine, fields.total, AFFINE)
    images = Images(fixed, resample_mm(moving, moving_affine, AFFINE, SIZE), warped, None, None, None)
    return coarse_view(fields, images, {"ddf": ddf, **answer}, AFFINE)


def shift(*voxels: float) -> torch.Tensor:
    return torch.tensor(voxels, dtype=torch.float32).view(3, 1, 1, 1).expand(3, *SIZE).clone()


def test_an_image_explains_itself_wholly_and_there_is_nothing_to_gain():
    found = signals_of(view(), {})
    assert found["similarity"] > 0.98 and found["similarity_gain"] is None
    assert found["overlap"] == 1 and found["inside_percent"] == 100 == found["finite_percent"]
    assert found["displacement_mm"] == found["displacement_percent"] == 0 and found["volume_factor"] == 1


@pytest.mark.parametrize("curve", [lambda x: 500 - x, lambda x: 0.1 * x + 7], ids=["inverted", "scaled"])
def test_a_linear_change_of_gray_values_changes_no_similarity(curve):
    image = anatomy()
    found = signals_of(view(fixed=image, moving=curve(image)), {})
    assert found["similarity"] > 0.9


def test_noise_explains_nothing():
    noise = torch.from_numpy(np.random.default_rng(1).random(SIZE).astype(np.float32))[None, None]
    assert signals_of(view(moving=noise), {})["similarity"] < 0.15


def test_what_brings_the_anatomy_back_gains_similarity_and_what_does_not_loses_it():
    image = anatomy()
    moving = torch.roll(image, (3, 0, 0), (2, 3, 4))
    right, wrong = (signals_of(view(shift(step, 0, 0), image, moving), {}) for step in (3, -3))
    assert right["similarity"] > 0.98 and right["similarity_gain"] > 0.95 and right["overlap"] > 0.99
    assert right["similarity_before"] == pytest.approx(wrong["similarity_before"])
    assert wrong["similarity_gain"] < 0 and wrong["overlap"] < 0.8


def test_displacements_are_lengths_in_mm_and_percent_of_the_ball():
    found = signals_of(view(shift(3, 0, 4)), {})  # 6 mm and 6 mm
    assert found["displacement_mm"] == pytest.approx(72**0.5, rel=1e-4)
    assert found["displacement_percent"] == pytest.approx(100 * 72**0.5 / 48, rel=0.05)


def test_a_map_that_doubles_lengths_along_an_axis_doubles_volumes():
    ddf = torch.zeros(3, *SIZE)
    ddf[1] = torch.arange(36.0).view(1, -1, 1) - 17.5
    assert signals_of(view(ddf), {})["volume_factor"] == pytest.approx(2, rel=1e-3)
    assert signals_of(view(-0.5 * ddf), {})["volume_factor"] == pytest.approx(2, rel=1e-3)


def test_what_comes_from_outside_the_moving_image_is_counted():
    half = anatomy()[:, :, :16]
    found = signals_of(view(moving=half), {})
    assert found["inside_percent"] == pytest.approx(50, abs=2) and found["overlap"] < 0.8  # cut windows count


def test_answers_from_other_starts_count_by_their_distance():
    starts = torch.stack([shift(0, 2, 0), shift(0, 0, 1)])  # 4 mm and 1.5 mm
    found = signals_of(view(starts=starts), {})
    assert found["starts_mm"] == pytest.approx(4, rel=1e-4)
    assert found["starts_percent"] == pytest.approx(400 / 48, rel=0.05)
    assert "starts_mm" not in signals_of(view(), {})


def test_a_field_that_is_not_a_number_and_an_image_that_is_flat_leave_no_signal_but_say_so():
    ddf = shift(1, 0, 0)
    ddf[:, 10:20] = torch.nan
    assert signals_of(view(ddf), {})["finite_percent"] < 90
    flat = signals_of(view(moving=torch.ones(1, 1, *SIZE)), {})
    assert flat["similarity"] < 0.01 and flat["overlap"] == 0
    empty = signals_of(view(fixed=torch.ones(1, 1, *SIZE), moving=anatomy()), {})
    assert empty["similarity"] is None and empty["inside_percent"] == 0


def test_scores_of_the_registration_are_taken_over():
    scores = {"folded_percent": 0.5, "inverse_residual_over_percent": None, "dice_before": 0.5, "dice": 0.4}
    found = signals_of(view(), scores)
    assert found["folded_percent"] == 0.5 and found["inverse_percent"] is None
    assert found["dice_change"] == pytest.approx(-0.1)


def test_an_initial_alignment_counts_by_what_it_does_to_volumes():
    for change in (2.0, 0.5):
        found = signals_of(replace(view(), initial=np.diag([change, 1, 1, 1])), {})
        assert found["initial_factor"] == pytest.approx(2)
    assert signals_of(view(), {})["initial_factor"] is None


@pytest.mark.parametrize("size", [(160, 192, 224), (512, 512, 40), (640, 480)])
def test_the_coarse_grid_covers_the_same_field_of_view_in_cubes(size):
    spacing = np.array([1.0, 1.0, 5.0][: len(size)]) if len(size) == 3 else np.array([0.5, 0.5])
    affine = np.diag([*spacing, 1.0])
    coarse, onto = coarse_grid(size, affine)
    assert 2**17 < np.prod(coarse) < 2**18.3
    corners = [(onto @ [*(np.array(c) * coarse - 0.5), 1])[:-1] for c in (np.zeros(len(size)), np.ones(len(size)))]
    np.testing.assert_allclose(corners[0], -spacing / 2, atol=1e-9)
    np.testing.assert_allclose(corners[1], spacing * (np.array(size) - 0.5), atol=1e-9)


def test_slices_have_signals_too():
    image = anatomy()[:, :, 16]
    size = tuple(image.shape[2:])
    affine = np.diag([2.0, 1.5, 1.0])
    fields = fields_of(torch.zeros(2, *size), affine, Grid(size, affine), Grid(size, affine), inverse=False)
    found = signals_of(coarse_view(fields, Images(image, image, image, None, None, None), fields.ddf, affine), {})
    assert found["similarity"] > 0.95 and found["overlap"] == 1


def test_the_foreground_is_what_otsu_says():
    skimage = pytest.importorskip("skimage.filters")
    image = anatomy()
    values = image[0, 0].numpy()
    inside = foreground(image).numpy()
    threshold = skimage.threshold_otsu(np.clip(values, *np.percentile(values, (0.5, 99.5))))
    assert np.mean(inside != (values > threshold)) < 0.01
