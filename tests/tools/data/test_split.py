import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import RegInputError
from tools.data.split import divide, groups_of, torn_subjects

SUBJECTS = [f"s{k:02}" for k in range(20)]


def test_the_numbers_asked_for_come_out():
    sections = list(divide(SUBJECTS, 3, 5).values())
    assert [sections.count(name) for name in ("training", "validation", "testing")] == [12, 3, 5]


def test_the_order_is_that_of_the_documented_hash():
    order = sorted(SUBJECTS, key=lambda name: hashlib.sha256(f"7:{name}".encode()).hexdigest())
    sections = divide(reversed(SUBJECTS), 2, 1, seed=7)
    assert [sections[name] for name in order[:4]] == ["testing", "validation", "validation", "training"]


def test_another_seed_is_another_choice():
    assert divide(SUBJECTS, 3, 5, 0) != divide(SUBJECTS, 3, 5, 1)


def test_who_joins_moves_one_subject_of_a_section_at_most():
    before, after = divide(SUBJECTS, 0, 5), divide([*SUBJECTS, "newcomer"], 0, 5)
    left = {name for name in SUBJECTS if before[name] == "testing"} - {n for n in after if after[n] == "testing"}
    assert len(left) <= 1


@pytest.mark.parametrize(("validation", "testing"), [(10, 11), (-1, 0), (0, -1)])
def test_numbers_that_cannot_be_are_refused(validation, testing):
    with pytest.raises(RegInputError, match="expected at most the 20 groups"):
        divide(SUBJECTS, validation, testing)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=15))
def test_groups_are_the_connected_components(links):
    """Held against scipy's."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = zip(*links, strict=True)
    _, component = connected_components(coo_matrix(([1] * len(links), (rows, columns)), shape=(10, 10)), directed=False)
    groups = groups_of([(str(a), str(b)) for a, b in links])
    for a in groups:
        assert groups[a] in groups
        for b in groups:
            assert (groups[a] == groups[b]) == (component[int(a)] == component[int(b)])


def test_a_torn_subject_is_found():
    found = torn_subjects([("a", "training"), ("b", "testing"), ("a", "training"), ("b", "validation")])
    assert found == {"b": ["testing", "validation"]}
