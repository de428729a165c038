"""Whether a registration worked: rules, limits and sentences."""

import json
import math
import re

import pytest

from common.quality import LIMITS_FILE, RULES, SIGNALS, Limit, read_limits, verdict

LIMITS = {"similarity": Limit(0.5, 0.2), "starts_percent": Limit(4.0, 10.0)}
FINE = {"similarity": 0.7, "starts_percent": 1.0, "starts_mm": 1.5}


def test_signals_within_their_limits_are_ok_and_give_no_reason():
    assert verdict(FINE, LIMITS) == ("ok", ())
    assert verdict({"similarity": 0.5, "starts_percent": 4.0, "starts_mm": 6.0}, LIMITS).state == "ok"  # on the limit


@pytest.mark.parametrize(
    ("signal", "value", "state"),
    [
        ("similarity", 0.49, "check"),
        ("similarity", 0.2, "check"),
        ("similarity", 0.19, "failed"),
        ("starts_percent", 4.1, "check"),
        ("starts_percent", 10.1, "failed"),
    ],
)
def test_each_limit_counts_in_its_own_direction(signal, value, state):
    found = verdict(FINE | {signal: value}, LIMITS)
    assert found.state == state and len(found.reasons) == 1


def test_the_worst_reason_comes_first_and_decides_the_state():
    found = verdict({"similarity": 0.1, "starts_percent": 5.0, "starts_mm": 7.0}, LIMITS)
    assert found.state == "failed" and "local contrast" in found.reasons[0] and "another start" in found.reasons[1]
    found = verdict({"similarity": 0.4, "starts_percent": 11.0, "starts_mm": 16.0}, LIMITS)
    assert found.state == "failed" and "another start" in found.reasons[0]


def test_a_reason_says_what_was_found_and_what_was_expected_with_units():
    (reason,) = verdict(FINE | {"starts_percent": 5.0, "starts_mm": 7.25}, LIMITS).reasons
    assert reason == (
        "from another start 5 % of the anatomy ends 7.2 mm or more elsewhere, 5.0 % of its diameter, expected at most "
        "4.0 %"
    )


def test_numbers_and_percent_signs_have_a_space_between():
    values = dict.fromkeys(SIGNALS, 0.171) | {"folded_percent": 7.0, "volume_factor": 20.0, "starts_percent": 40.0}
    reasons = verdict(values | {"displacement_percent": 50.0, "inverse_percent": 20.0, "dice_change": -0.2}).reasons
    assert len(reasons) > 8 and any("17 %" in reason for reason in reasons)
    assert not any(re.search(r"\d%", reason) for reason in reasons)


def test_what_was_not_measured_is_no_reason():
    assert verdict({"similarity": None}, LIMITS) == ("ok", ()) == verdict({}, LIMITS)


def test_every_rule_has_limits_in_the_file_and_a_failed_result_is_worse_than_a_doubtful_one():
    limits = read_limits()
    assert set(limits) == {rule.signal for rule in RULES} < set(SIGNALS)
    for rule in RULES:
        check, failed = limits[rule.signal]
        assert math.isfinite(check) and rule.worse * (failed - check) >= 0


def test_every_sentence_can_be_said():
    beyond = {rule.signal: read_limits()[rule.signal].check + rule.worse for rule in RULES}
    found = verdict(beyond | {"displacement_mm": 40.0, "starts_mm": 3.0})
    assert len(found.reasons) == len(RULES) and all("expected" in reason for reason in found.reasons)


def test_the_file_of_limits_names_its_csv_and_its_rule():
    content = json.loads(LIMITS_FILE.read_text())
    assert content["from"].startswith("quality-pairs-") and content["from"].endswith(".csv") and content["rule"]
