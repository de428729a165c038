"""Persons under two names: the numbers are counted against what the challenge and OASIS say of themselves."""

import re

import pytest

from tools.data.leakage import excluded_from_oasis, persons_of, second_scans, shared, untold
from tools.data.malc_layout import SPLIT

TRAINING = (*SPLIT["training"], *SPLIT["validation"])


def test_malc_shows_30_persons_15_in_each_of_its_official_sets():
    reasons = excluded_from_oasis()
    assert len(reasons) == 30 and list(reasons) == sorted(reasons)
    assert all(re.fullmatch(r"OAS1_0[0-4]\d\d", person) for person in reasons)
    for part in ("training", "testing"):
        assert sum(text.startswith(f"MALC {part}") for text in reasons.values()) == 15


def test_every_scan_of_malc_is_placed_in_the_set_that_the_challenge_put_it_in():
    reasons = excluded_from_oasis()
    for names, part in ((TRAINING, "training"), (SPLIT["testing"], "testing")):
        persons = frozenset().union(*(persons_of("malc", name) for name in names))
        assert len(persons) == 15 and all(reasons[person].startswith(f"MALC {part}") for person in persons)


def test_malcs_20_testing_scans_are_of_15_persons_five_of_them_scanned_twice():
    again = second_scans()
    assert len(again) == 5 and set(again) | set(again.values()) <= set(SPLIT["testing"])
    assert len({persons_of("malc", name) for name in SPLIT["testing"]}) == 15
    for second, first in again.items():
        assert persons_of("malc", second) == persons_of("malc", first)
        assert int(second) == int(first) + 20  # how the challenge numbered the second visit


def test_who_is_in_mindboggle_is_in_malc_too():
    both = {person for person, reason in excluded_from_oasis().items() if "Mindboggle" in reason}
    assert persons_of("mindboggle", "OASIS-TRT-20-7") == both and len(both) == 13  # of 20: the others are not sourced


@pytest.mark.parametrize("subject", ["OASIS_OAS1_0061_MR1", "OAS1_0061", "oas1_0061_mr2"])
def test_an_oasis_scan_is_known_by_its_number(subject):
    assert persons_of("oasis", subject) == {"OAS1_0061"}


def test_a_number_of_another_data_set_is_no_number_of_malc():
    assert persons_of("mine", "1003") == {"mine 1003"} and persons_of("malc", "1999") == {"malc 1999"}


def test_training_on_a_person_who_is_tested_elsewhere_is_found():
    oasis = {"training": ["OASIS_OAS1_0001_MR1", "OASIS_OAS1_0101_MR1"], "validation": ["OASIS_OAS1_0091_MR1"]}
    found = shared(oasis, {"testing": ["1023", "1104"]}, ("oasis", "malc"))
    assert [tuple(overlap) for overlap in found] == [("oasis training", "malc testing", ("OAS1_0101",))]


def test_sets_without_a_common_person_share_nothing():
    assert shared({"training": ["OAS1_0001"]}, {"testing": ["1003"]}, ("oasis", "malc")) == []
    assert shared({"training": ["a"]}, {"testing": ["a"]}, ("mine", "yours")) == []


def test_the_collections_split_of_malc_shares_nobody_within():
    found = shared(SPLIT, SPLIT, ("malc", "malc"))
    assert [overlap for overlap in found if overlap.first != overlap.second] == []


def test_a_persons_second_scan_on_the_other_side_of_a_split_is_found():
    split = {"training": ["1000", "1003"], "testing": ["1023"]}
    found = [tuple(o) for o in shared(split, split, ("malc", "malc")) if o.first != o.second]
    assert ("malc training", "malc testing", ("1003",)) in found


def test_a_patient_of_learn2reg_is_one_in_both_releases_of_a_task_and_in_both_phases():
    zenodo, challenge = {"testing": ["LungCT_0001_0000"]}, {"training": ["LungCT_0001_0001", "LungCT_0002_0000"]}
    found = shared(zenodo, challenge, ("lung_ct", "LungCT"))
    assert [overlap.persons for overlap in found] == [("LungCT 0001",)]


def test_mindboggles_scans_are_told_apart_among_themselves():
    assert shared({"training": ["OASIS-TRT-20-1"]}, {"testing": ["OASIS-TRT-20-2"]}, ("mindboggle",) * 2) == []


@pytest.mark.parametrize(
    ("name", "subject", "known"),
    [
        ("oasis", "OASIS_OAS1_0001_MR1", True),
        ("OASIS", "OASIS_0001_0000", False),
        ("lumir", "LUMIRMRI_0001_0000", False),
    ],
)
def test_it_is_said_where_numbers_tell_nothing(name, subject, known):
    assert (untold(name, [subject]) is None) is known
