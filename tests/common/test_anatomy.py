import numpy as np
import pytest

from common.anatomy import LABELS, anatomy, capsule, ellipsoid, folds

RNG = np.random.default_rng(0)
POINTS = RNG.uniform(-60, 60, (3, 500)).astype(np.float32)


def at(x, y, z):
    """Label at one point, RAS mm: the last structure that holds it."""
    value = 0
    for _, left, right, depth in anatomy(tuple(np.float32([c]) for c in (x, y, z))):
        if depth[0] > 0:
            value = right if x > 0 else left
    return value


def test_depth_in_a_sphere_is_exact():
    center = np.array([3.0, -4, 5])
    expected = 20 - np.linalg.norm(POINTS.T - center, axis=1)
    np.testing.assert_allclose(ellipsoid(*POINTS, center, (20, 20, 20)), expected, atol=0.1)


def test_sign_of_depth_in_an_ellipsoid_is_exact():
    center, radii = np.array([3.0, -4, 5]), np.array([40, 20, 10])
    inside = (((POINTS.T - center) / radii) ** 2).sum(axis=1) < 1
    assert np.array_equal(ellipsoid(*POINTS, center, radii) > 0, inside)


def test_depth_in_a_rod_is_the_distance_to_its_segment():
    start, end = np.array([-10.0, 0, 5]), np.array([20.0, 10, -5])
    along = np.linspace(0, 1, 20_001)[:, None]
    nearest = [np.linalg.norm(start + along * (end - start) - p, axis=1).min() for p in POINTS.T[:50]]
    np.testing.assert_allclose(capsule(*POINTS[:, :50], start, end, (7, 7)), 7 - np.array(nearest), atol=1e-2)


@pytest.mark.parametrize("point, radius", [((0, 0, 0), 4), ((0, 0, 10), 6), ((0, 0, 20), 8)])
def test_radius_of_a_rod_goes_linearly_from_end_to_end(point, radius):
    assert capsule(*np.float32(point), (0, 0, 0), (0, 0, 20), (4, 8)) == pytest.approx(radius)


def test_folds_stay_in_their_range_and_fill_it():
    values = folds(*RNG.uniform(-80, 80, (3, 20_000)).astype(np.float32), 31.0)
    assert -1 <= values.min() < -0.9 and 0.9 < values.max() <= 1


@pytest.mark.parametrize(
    "point, name",
    [
        ((-12, -17, 5), "left thalamus"),
        ((12, -17, 5), "right thalamus"),
        ((16, 19, 8), "right caudate"),
        ((-32, 3, 3), "left putamen"),
        ((22.5, 0, 2), "right pallidum"),
        ((-9, 0, 15), "left lateral ventricle"),
        ((27, -20, -15), "right hippocampus"),
        ((1, -6, 3), "third ventricle"),
        ((1, -22, -45), "brainstem"),
        ((25, -52, -43), "cerebellar white matter"),
        ((50, -52, -43), "cerebellar cortex"),
        ((-25, -10, 25), "left cerebral white matter"),
    ],
)
def test_structures_are_where_they_belong(point, name):
    assert LABELS[at(*point)] == name


@pytest.mark.parametrize("point", [(0, 0, 66), (0, 60, 40), (70, 0, 0), (0, 0, -70), (0, 88, 0)])
def test_fissure_and_outside_have_no_label(point):
    assert at(*point) == 0
