import itertools
import math

import numpy as np
import pytest

from common.surface import element_areas, percentile_distance, surface_distances
from tests.common.test_metrics import CASES, LABELS, Case


def weighted_mean(distances, areas):
    return (distances * areas).sum() / areas.sum()


def code_of(*corners):
    order = list(itertools.product((0, 1), repeat=len(corners[0])))
    return sum(1 << order.index(corner) for corner in corners)


@pytest.mark.parametrize("name", CASES)
def test_average_surface_distances_equal_the_reference(name):
    """Averages weigh every element, so they hold every one of the areas in use to the reference's."""
    case = Case(name)
    for k, value in enumerate(LABELS):
        fixed, warped = ((x[0, 0] == value).numpy() for x in (case.fixed, case.warped))
        if not (fixed.any() and warped.any()):
            continue
        found = surface_distances(fixed, warped, case.spacing_mm)
        both = [weighted_mean(*found[:2]), weighted_mean(*found[2:])]
        assert both == pytest.approx(case.expected["average_surface_distance_mm_per_label"][k], abs=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_surface_dice_equals_the_reference(name):
    case = Case(name)
    for k, value in enumerate(LABELS):
        fixed, warped = ((x[0, 0] == value).numpy() for x in (case.fixed, case.warped))
        if not (fixed.any() and warped.any()):
            continue
        d1, a1, d2, a2 = surface_distances(fixed, warped, case.spacing_mm)
        value = (a1[d1 <= 1].sum() + a2[d2 <= 1].sum()) / (a1.sum() + a2.sum())
        assert value == pytest.approx(case.expected["surface_dice_1mm_per_label"][k], abs=1e-9)


@pytest.mark.parametrize(
    ("corners", "area"),
    [
        ([(0, 0, 0)], math.sqrt(3) / 8),
        ([(0, 0, 0), (0, 0, 1)], math.sqrt(0.5)),
        ([(0, 0, 0), (0, 1, 1)], math.sqrt(3) / 4),  # two triangles, not a bridge
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)], 1.0),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0)], 0.5 + 3 * math.sqrt(3) / 8),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)], 3 * math.sqrt(3) / 4),  # a regular hexagon
    ],
)
def test_element_areas_of_drawn_cases(corners, area):
    assert element_areas((1, 1, 1))[code_of(*corners)] == pytest.approx(area, abs=1e-12)


def test_the_table_of_areas_that_all_calls_share_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        element_areas((1, 1, 1))[0] = 1


def test_element_areas_scale_with_the_voxel():
    areas = element_areas((2.0, 3.0, 5.0))
    for axis, area in enumerate((15, 10, 6)):
        half = [c for c in itertools.product((0, 1), repeat=3) if c[axis] == 0]
        assert areas[code_of(*half)] == pytest.approx(area)
    assert areas[1] == pytest.approx(math.sqrt(15**2 + 10**2 + 6**2) / 8)


def test_a_code_and_its_complement_have_one_area():
    areas = element_areas((1.0, 1.7, 0.6))
    assert np.array_equal(areas, areas[::-1])
    assert (areas[1:-1] > 0).all() and areas[0] == areas[-1] == 0


def test_unit_areas_do_not_change_when_the_cube_turns():
    areas, order = element_areas((1, 1, 1)), list(itertools.product((0, 1), repeat=3))
    for turn in itertools.permutations(range(3)):
        place = [order.index(tuple(corner[k] for k in turn)) for corner in order]
        turned = [sum(1 << place[bit] for bit in range(8) if code >> bit & 1) for code in range(256)]
        assert areas[turned] == pytest.approx(areas)


def test_contour_lengths_in_two_dimensions():
    lengths = element_areas((3.0, 4.0))
    assert lengths[code_of((0, 0))] == 2.5
    assert lengths[code_of((0, 0), (1, 1))] == 5
    assert lengths[code_of((0, 0), (0, 1))] == 4
    assert lengths[code_of((0, 0), (1, 0))] == 3


def test_the_elements_of_a_box_are_its_corners_edges_and_faces():
    mask = np.zeros((6, 7, 8), dtype=bool)
    mask[1:3, 2:5, 3:7] = True
    areas = surface_distances(mask, mask, (1, 1, 1)).first_areas
    inner = {2: 1, 3: 2, 4: 3}  # elements between the two of an edge's ends
    edges = 4 * sum(inner.values())
    faces = 2 * (inner[2] * inner[3] + inner[2] * inner[4] + inner[3] * inner[4])
    assert areas.sum() == pytest.approx(8 * math.sqrt(3) / 8 + edges * math.sqrt(0.5) + faces)


def test_a_mask_on_the_edge_of_the_array_is_closed_there():
    inside = np.zeros((5, 5, 5), dtype=bool)
    inside[1:4, 1:4, 1:4] = True
    full = np.ones((3, 3, 3), dtype=bool)
    areas = [surface_distances(x, x, (1, 2, 3)).first_areas for x in (inside, full)]
    assert np.array_equal(*areas)


def test_the_distance_to_an_empty_mask_is_infinite():
    mask = np.ones((2, 2, 2), dtype=bool)
    found = surface_distances(mask, ~mask, (1, 1, 1))
    assert np.isinf(found.first_to_second).all() and found.first_to_second.size == 26
    assert found.second_to_first.size == found.second_areas.size == 0


def test_two_empty_masks_have_no_elements():
    empty = np.zeros((3, 3, 3), dtype=bool)
    assert all(values.size == 0 for values in surface_distances(empty, empty, (1, 1, 1)))


@pytest.mark.parametrize(("percent", "expected"), [(50, 1.0), (50.1, 2.0), (60, 2.0), (95, 7.0), (100, 7.0)])
def test_the_percentile_counts_area(percent, expected):
    """Areas 5, 1, 4 at 1, 2, 7 mm: half the area lies within 1 mm, 60 % within 2 mm."""
    found = percentile_distance(np.array([7.0, 1.0, 2.0]), np.array([4.0, 5.0, 1.0]), percent)
    assert found == expected


def test_all_of_the_surface_lies_within_the_largest_distance_despite_rounding():
    """Adding 0.1 a thousand times ends below their sum, so no share reaches 1."""
    assert percentile_distance(np.arange(1000.0), np.full(1000, 0.1), 100) == 999
