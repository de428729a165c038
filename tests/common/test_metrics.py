import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common import metrics
from common.errors import RegInputError
from common.metrics import (
    dice,
    hd95_mm,
    landmark_errors_mm,
    mean_over_labels,
    present_labels,
    tre_mm,
    warp_label,
)
from common.spatial import identity_grid

GOLDEN = Path(__file__).parent.parent / "data" / "golden"
EXPECTED = json.loads((GOLDEN / "metrics.json").read_text())
CASES = list(EXPECTED["cases"])
LABELS = EXPECTED["labels"]
FEW = settings(max_examples=25, derandomize=True, deadline=None)


class Case:
    """One golden case as tensors; ``ddf`` is (1, 3, D, H, W) float64, label maps (1, 1, D, H, W) uint8."""

    def __init__(self, name):
        arrays = np.load(GOLDEN / "metrics.npz")
        read = {key.split("/")[1]: arrays[key] for key in arrays.files if key.startswith(f"{name}/")}
        self.fixed, self.moving, self.warped = (
            torch.from_numpy(read[key])[None, None] for key in ("fixed_seg", "moving_seg", "expected_warped_seg")
        )
        self.ddf = torch.from_numpy(read["disp"].astype(np.float64)).movedim(-1, 0)[None].contiguous()
        self.fixed_keypoints, self.moving_keypoints = (
            torch.from_numpy(read[key])[None] for key in ("fixed_lms", "moving_lms")
        )
        self.spacing_mm = read["spacing"].tolist()
        self.expected = EXPECTED["cases"][name]

    def value(self, key):
        return torch.tensor([[float(v) for v in np.atleast_1d(self.expected[key])]], dtype=torch.float64)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0, equal_nan=True)


def label_map(shape, *boxes):
    """(1, 1, *shape) map with label k + 1 in the k-th box, a tuple of slices."""
    out = torch.zeros(1, 1, *shape, dtype=torch.int64)
    for value, box in enumerate(boxes, start=1):
        out[0, 0][box] = value
    return out


# Stored references: Learn2Reg's evaluation


def test_warped_labels_equal_the_challenge(case):
    assert torch.equal(warp_label(case.moving, case.ddf), case.warped)


def test_float32_fields_warp_labels_alike(case):
    assert torch.equal(warp_label(case.moving, case.ddf.float()), case.warped)


def test_dice_equals_the_challenge(case):
    close(dice(case.warped, case.fixed, LABELS, case.moving), case.value("dice_per_label"), 1e-12)


def test_dice_before_warping_equals_the_challenge(case):
    close(dice(case.moving, case.fixed, LABELS, case.moving), case.value("dice_before_per_label"), 1e-12)


def test_mean_dice_equals_the_challenge(case):
    mean = mean_over_labels(dice(case.warped, case.fixed, LABELS, case.moving))
    close(mean, case.value("dice_mean")[0], 1e-12)


def test_hd95_in_mm_equals_the_challenge(case):
    values = hd95_mm(case.warped, case.fixed, LABELS, case.spacing_mm, case.moving, lost_mm=math.inf)
    close(values, case.value("hd95_mm_per_label"), 1e-6)


def test_hd95_in_voxels_equals_the_challenge(case):
    values = hd95_mm(case.warped, case.fixed, LABELS, (1, 1, 1), case.moving, lost_mm=math.inf)
    close(values, case.value("hd95_voxel_per_label"), 1e-6)
    close(mean_over_labels(values), case.value("hd95_voxel_mean")[0], 1e-6)


def test_hd95_before_warping_equals_the_challenge(case):
    values = hd95_mm(case.moving, case.fixed, LABELS, (1, 1, 1), case.moving, lost_mm=math.inf)
    close(values, case.value("hd95_voxel_before_per_label"), 1e-6)


def test_cubic_landmark_errors_equal_the_challenge(case):
    points = (case.fixed_keypoints, case.moving_keypoints, case.spacing_mm)
    close(landmark_errors_mm(case.ddf, *points, "cubic"), case.value("tre_l2r_per_landmark"), 1e-6)
    close(tre_mm(case.ddf, *points, "cubic"), case.value("tre_l2r_mean")[0], 1e-6)


def test_linear_landmark_errors_equal_the_reference(case):
    errors = landmark_errors_mm(case.ddf, case.fixed_keypoints, case.moving_keypoints, case.spacing_mm)
    close(errors, case.value("tre_linear_per_landmark"), 1e-6)


def test_landmark_errors_of_the_zero_field_are_those_before(case):
    points = (case.fixed_keypoints, case.moving_keypoints, case.spacing_mm)
    close(landmark_errors_mm(torch.zeros_like(case.ddf), *points), case.value("tre_before_per_landmark"), 1e-9)


# Dice


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 5)])
def test_dice_of_a_drawn_case(shape):
    """4 x 2 against the same moved by one of four rows: 6 of 8 voxels shared."""
    rest = (slice(0, 1),) * (len(shape) - 2)
    fixed = label_map(shape, (slice(0, 4), slice(1, 3), *rest))
    warped = label_map(shape, (slice(1, 5), slice(1, 3), *rest))
    assert dice(warped, fixed, [1]).tolist() == [[0.75]]


@pytest.mark.parametrize("step", [1, 2**22])
def test_dice_agrees_with_python_sets(step):
    """Values between, below and above those asked for, close together and far apart."""
    maps = step * torch.randint(-2, 5, (2, 2, 1, 5, 6, 7), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    labels = [3 * step, -step, step]
    values = dice(*maps, labels)
    for pair, k in itertools.product(range(2), range(3)):
        a, b = ({tuple(p) for p in (x[pair, 0] == labels[k]).nonzero().tolist()} for x in maps)
        assert values[pair, k].item() == 2 * len(a & b) / (len(a) + len(b))


def test_labels_of_any_size_need_no_more_memory():
    fixed = torch.full((1, 1, 3, 4, 5), 2**31 - 1)
    assert dice(fixed, fixed, [2**31 - 1, -(2**31)]).nan_to_num(-1).tolist() == [[1, -1]]


@pytest.mark.parametrize(
    ("in_fixed", "in_moving", "in_warped", "plain", "challenge"),
    [
        (True, True, True, 1, 1),
        (True, True, False, 0, 0),  # the warp lost it
        (False, True, True, 0, None),
        (True, False, False, 0, None),
        (False, True, False, None, None),
        (False, False, False, None, None),
    ],
)
def test_missing_labels_are_nan_and_lost_ones_zero(in_fixed, in_moving, in_warped, plain, challenge):
    fixed, moving, warped = (torch.full((1, 1, 3, 4, 5), int(here)) for here in (in_fixed, in_moving, in_warped))
    assert dice(warped, fixed, [1]).nan_to_num(-1).item() == (-1 if plain is None else plain)
    assert dice(warped, fixed, [1], moving).nan_to_num(-1).item() == (-1 if challenge is None else challenge)
    distance = {None: math.nan, 0: math.sqrt(36 + 36 + 64), 1: 0.0}
    close(hd95_mm(warped, fixed, [1], (2, 1.5, 1.6)).item(), distance[plain], 1e-12)
    close(hd95_mm(warped, fixed, [1], (2, 1.5, 1.6), moving).item(), distance[challenge], 1e-12)


def test_mean_over_labels_leaves_out_what_the_fixed_map_lacks():
    fixed = label_map((4, 4, 4), (slice(0, 2),))
    warped = label_map((4, 4, 4), (slice(0, 2),), (slice(3, 4),))
    values = dice(warped, fixed, [1, 2, 3])
    assert mean_over_labels(values).tolist() == [0.5]
    assert mean_over_labels(values, present_labels(fixed, [1, 2, 3])).tolist() == [1]


def test_mean_over_no_labels_is_nan():
    assert mean_over_labels(torch.full((2, 3), torch.nan)).isnan().tolist() == [True, True]


def test_present_labels_of_a_batch():
    maps = torch.cat([label_map((3, 3), (slice(0, 1),)), label_map((3, 3), (slice(0, 1),), (slice(1, 2),))])
    assert present_labels(maps, [2, 1, 7]).tolist() == [[False, True, False], [True, True, False]]


@FEW
@given(seed=st.integers(0, 2**16), size=st.tuples(*[st.integers(1, 6)] * 3))
def test_overlap_scores_are_symmetric_and_permute_with_labels_and_axes(seed, size):
    maps = torch.randint(0, 4, (2, 1, 1, *size), generator=torch.Generator().manual_seed(seed))
    spacing = (1.5, 0.7, 2.0)
    axes, labels = [2, 0, 1], [3, 1, 2]
    turned = maps.permute(0, 1, 2, *[3 + k for k in axes])
    for score, args, turned_args in (
        (dice, (), ()),
        (hd95_mm, (spacing,), ([spacing[k] for k in axes],)),
    ):
        values = score(maps[0], maps[1], labels, *args)
        close(score(maps[1], maps[0], labels, *args), values, 0)
        close(score(maps[0], maps[1], sorted(labels), *args), values[:, [1, 2, 0]], 0)
        close(score(turned[0], turned[1], labels, *turned_args), values, 1e-9)
        same = score(maps[0], maps[0], labels, *args)
        assert ((same == (1 if score is dice else 0)) | same.isnan()).all()


# Surface distance


@pytest.mark.parametrize("axis", range(3))
def test_hd95_of_a_shifted_box_is_the_shift_in_mm(axis):
    boxes = [[slice(2, 8), slice(2, 8), slice(2, 8)] for _ in range(2)]
    boxes[1][axis] = slice(5, 11)
    fixed, warped = (label_map((12, 12, 12), tuple(box)) for box in boxes)
    spacing = (2.0, 1.0, 0.5)
    close(hd95_mm(warped, fixed, [1], spacing).item(), 3 * spacing[axis], 1e-12)


def test_hd95_of_a_shifted_square_is_the_shift_in_mm():
    fixed, warped = (label_map((12, 12), (slice(k, k + 6), slice(2, 8))) for k in (2, 5))
    close(hd95_mm(warped, fixed, [1], (2.0, 0.5)).item(), 6.0, 1e-12)


def test_hd95_of_two_single_voxels_is_their_distance():
    fixed, warped = (label_map((4, 5, 9), (slice(1, 2), slice(2, 3), slice(k, k + 1))) for k in (1, 6))
    close(hd95_mm(warped, fixed, [1], (1, 1, 1)).item(), 5.0, 1e-12)


def test_hd95_forgives_one_far_voxel():
    fixed = label_map((20, 20, 20), (slice(2, 12), slice(2, 12), slice(2, 12)))
    warped = fixed.clone()
    warped[..., 19, 19, 19] = 1
    assert hd95_mm(warped, fixed, [1], (1, 1, 1)).item() == 0


def test_hd95_takes_the_larger_direction():
    """Every element of the small box is on the large one's surface or within 4; not the other way round."""
    small = label_map((20, 6, 6), (slice(1, 5), slice(1, 5), slice(1, 5)))
    large = label_map((20, 6, 6), (slice(1, 19), slice(1, 5), slice(1, 5)))
    values = [hd95_mm(a, b, [1], (1, 1, 1)).item() for a, b in ((small, large), (large, small))]
    assert values == [14, 14]


def test_no_hd95_exceeds_the_diagonal_of_a_lost_label():
    far = [label_map((4, 5, 6), tuple(slice(k, k + 1) for k in at)) for at in ((0, 0, 0), (3, 4, 5))]
    lost = hd95_mm(torch.zeros_like(far[0]), far[0], [1], (1, 2, 3)).item()
    assert hd95_mm(*far, [1], (1, 2, 3)).item() < lost == math.sqrt(16 + 100 + 324)


def test_hd95_of_a_batch_is_that_of_its_pairs():
    maps = torch.randint(0, 3, (2, 3, 1, 5, 6, 4), generator=torch.Generator().manual_seed(1))
    together = hd95_mm(maps[0], maps[1], [1, 2], (1, 2, 3))
    apart = [hd95_mm(maps[0, k : k + 1], maps[1, k : k + 1], [1, 2], (1, 2, 3)) for k in range(3)]
    close(together, torch.cat(apart), 0)


# Landmarks


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
@pytest.mark.parametrize("axis", range(3))
def test_landmarks_that_moved_with_the_field_have_no_error(axis, interpolation):
    ddf = torch.zeros(1, 3, 8, 9, 10, dtype=torch.float64)
    ddf[:, axis] = 2
    fixed = torch.tensor([[[2.5, 3.0, 4.25], [1.0, 5.5, 3.0]]], dtype=torch.float64)
    moving = fixed.clone()
    moving[..., axis] += 2
    close(landmark_errors_mm(ddf, fixed, moving, (1, 2, 3), interpolation), torch.zeros(1, 2).double(), 1e-9)
    back = landmark_errors_mm(ddf, moving, fixed, (1, 2, 3), interpolation)
    close(back, torch.full((1, 2), 4.0 * (axis + 1)).double(), 1e-9)


def test_linear_landmark_errors_follow_a_linear_field_exactly():
    grid = identity_grid((6, 7, 8), torch.zeros(1)).double()
    ddf = 0.1 * grid.flip(1)  # u_k = x_(2 - k) / 10
    fixed = torch.tensor([[[1.3, 2.7, 4.1]]], dtype=torch.float64)
    moving = fixed + 0.1 * fixed.flip(2) + torch.tensor([0.0, 3.0, 4.0])
    close(tre_mm(ddf, fixed, moving, (1, 1, 1)), torch.tensor([5.0]).double(), 1e-9)


def test_tre_of_two_voxels_at_one_and_a_half_mm_is_three():
    fixed = torch.full((1, 4, 3), 3.0)
    moving = fixed + torch.tensor([0.0, 2.0, 0.0])
    assert tre_mm(torch.zeros(1, 3, 8, 8, 8), fixed, moving, (1, 1.5, 1)).tolist() == [3.0]


def test_landmark_errors_of_a_batch_read_each_pairs_field_and_2d_works():
    ddf = torch.zeros(2, 2, 5, 6)
    ddf[1, 1] = 3.0
    points = torch.full((2, 3, 2), 2.0)
    expected = torch.tensor([0.0, 1.5]).double().view(2, 1).expand(2, 3)
    close(landmark_errors_mm(ddf, points, points, (1, 0.5)), expected, 1e-6)


def test_beyond_the_grid_the_linear_field_goes_on_and_the_cubic_is_zero():
    ddf = torch.ones(1, 2, 5, 6)
    point = torch.tensor([[[-1.0, 2.0]]])
    assert landmark_errors_mm(ddf, point, point, (1, 1)).item() == pytest.approx(math.sqrt(2))
    assert landmark_errors_mm(ddf, point, point, (1, 1), "cubic").item() == 0


def test_half_precision_fields_have_landmark_errors():
    ddf = torch.full((1, 2, 5, 6), 1.5, dtype=torch.bfloat16)
    points = torch.full((1, 1, 2), 2.0)
    assert tre_mm(ddf, points, points, (1, 1)).item() == pytest.approx(1.5 * math.sqrt(2))


def test_no_landmarks_have_no_error():
    assert tre_mm(torch.zeros(1, 2, 5, 6), torch.zeros(1, 0, 2), torch.zeros(1, 0, 2), (1, 1)).isnan().item()


# Contracts


LABEL = torch.zeros(1, 1, 4, 5, 6, dtype=torch.int64)
FIELD, POINTS = torch.zeros(1, 3, 4, 5, 6), torch.zeros(1, 2, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: dice(LABEL.float(), LABEL, [1]), "torch.float32"),
        (lambda: dice(LABEL[0], LABEL[0], [1]), r"\[1, 4, 5, 6\]"),
        (lambda: dice(LABEL[..., :3], LABEL, [1]), r"\[1, 1, 4, 5, 3\]"),
        (lambda: dice(LABEL, LABEL, [1, 1]), "none twice"),
        (lambda: dice(LABEL, LABEL, []), "at least one"),
        (lambda: hd95_mm(LABEL, LABEL, [1], (1, 1)), "expected 3 positive"),
        (lambda: hd95_mm(LABEL, LABEL, [1], (1, 1, 0)), "expected 3 positive"),
        (lambda: hd95_mm(LABEL, LABEL, [1], (1, 1, math.nan)), "expected 3 positive"),
        (lambda: tre_mm(FIELD, POINTS, POINTS[:, :1], (1, 1, 1)), r"\[1, 1, 3\]"),
        (lambda: tre_mm(FIELD, POINTS[0], POINTS[0], (1, 1, 1)), r"\(B, K, N\)"),
        (lambda: tre_mm(FIELD, POINTS, POINTS, (1, 1)), "expected 3 positive"),
        (lambda: tre_mm(FIELD, POINTS, POINTS, (1, 1, 1), "spline"), '"spline"'),
        (lambda: tre_mm(FIELD, POINTS * torch.nan, POINTS, (1, 1, 1)), "finite"),
    ],
)
def test_errors_say_what_was_found(call, words):
    with pytest.raises(RegInputError, match=words):
        call()


def test_every_public_name_is_there():
    assert all(callable(getattr(metrics, name)) for name in metrics.__all__)
