import math

import pytest

from common.quality import RULES
from tools.report.columns import KNOWN, columns_of, label, number, worst_first


def test_what_is_better_of_a_signal_is_what_the_self_check_holds():
    known = {column.key: column.better for column in KNOWN}
    assert RULES and all(known[rule.signal] == {1: "low", -1: "high"}[rule.worse] for rule in RULES)


def test_columns_are_those_with_a_value_known_ones_first():
    found = columns_of([{"seconds": 1.0, "z_signal": 2.0}, {"dice": 0.5, "similarity_gain": 0.1}])
    assert [column.key for column in found] == ["dice", "seconds", "similarity_gain", "z_signal"]
    assert [column.label for column in found][2:] == ["Similarity gain", "Z signal"]
    assert {column.key: column.better for column in found} == {
        "dice": "high", "seconds": "low", "similarity_gain": "high", "z_signal": ""
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "expected"),
    [("shift_mm", "Shift (mm)"), ("overlap_percent", "Overlap (%)"), ("gain", "Gain"), ("", ""), ("_mm", " (mm)")],
)
def test_a_signals_unit_stands_in_brackets(key, expected):
    assert label(key) == expected


def test_failed_pairs_come_first_then_check_then_unjudged_then_ok():
    assert worst_first(["ok", None, "failed", "check"], [{}] * 4) == [2, 3, 1, 0]


def test_among_one_verdict_the_smaller_dice_is_worse():
    assert worst_first(["ok"] * 3, [{"dice": 0.8}, {"dice": 0.2}, {"dice": 0.5}]) == [1, 2, 0]


def test_a_pair_without_dice_stands_by_its_similarity_gain_among_all():
    """Pairs 0 to 3 have Dice of the ranks 3, 2, 1, 0; pair 4 has the second smallest gain of five."""
    numbers = [{"dice": 0.9 - k / 10, "similarity_gain": gain} for k, gain in enumerate((0.1, 0.3, 0.4, 0.5))]
    order = worst_first(["ok"] * 5, [*numbers, {"similarity_gain": 0.2}])
    # of four Dice the standings are 3/4, 2/4, 1/4 and 0; the second of five gains is at 1/5
    assert order == [3, 4, 2, 1, 0]


def test_pairs_of_which_nothing_is_known_come_last_as_given():
    assert worst_first([None] * 3, [{}, {"dice": 0.9}, {}]) == [1, 0, 2]


def test_an_infinite_value_is_the_largest():
    assert worst_first(["ok", "ok"], [{"dice": math.inf}, {"dice": 0.9}]) == [1, 0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("0.25", 0.25), (math.inf, math.inf), (True, None), (None, None), ("", None), ("x", None), ([1], None)],
)
def test_a_number_is_what_json_or_csv_has_as_one(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize("value", [math.nan, "nan", 10**400])
def test_what_no_number_can_hold_is_missing(value):
    assert number(value) is None
