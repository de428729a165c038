"""Is what was told counted, once, and is what other runs found kept?"""

import csv

import pytest

from tests.reliability.ledger import Ledger, rows_of, update

pytest_plugins = "pytester"

INNER = """
import pytest

@pytest.mark.parametrize("case", range(6))
def test_case(ledger, count, case):
    assert count(10, 2) == 10
    ledger.tell("tables", str(case), case != 3)
    if ledger.kept:
        ledger.tell_alone("tables", str(case), case == 1, "the library")
    assert case != 3
"""


def test_a_case_counts_once_by_what_was_told_last():
    lines = [{"subject": "a", "case": "1", "right": False}, {"subject": "a", "case": "1", "right": True}]
    lines += [{"subject": "a", "case": "1", "right": False, "libraries": "torch"}]
    (row,) = rows_of(lines)
    assert (row["tried"], row["right"], row["wrong"]) == (1, 1, 0)
    assert (row["libraries"], row["libraries_tried"], row["libraries_wrong"]) == ("torch", 1, 1)


def test_nothing_is_written_where_nobody_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger().tell("a", "b", right=True)
    assert list(tmp_path.iterdir()) == []


def test_subjects_of_other_runs_are_kept(tmp_path):
    path = tmp_path / "table.csv"
    update(path, [{"subject": "b", "tried": 5}])
    update(path, [{"subject": "a", "tried": 1}])
    update(path, [{"subject": "b", "tried": 7}])
    with path.open() as file:
        assert [(row["subject"], row["tried"]) for row in csv.DictReader(file)] == [("a", "1"), ("b", "7")]


@pytest.mark.parametrize("processes", [[], pytest.param(["--numprocesses", "2"], marks=pytest.mark.slow)])
def test_what_several_processes_saw_is_one_row_and_failures_count(pytester, processes):
    pytester.makeconftest("from tests.reliability.conftest import *")
    pytester.makepyfile(INNER)
    result = pytester.runpytest_inprocess("--full", "--ledger", "table.csv", *processes)
    result.assert_outcomes(passed=5, failed=1)
    with (pytester.path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [row[key] for key in ("tried", "right", "wrong", "libraries_right", "libraries_wrong")] == list("65115")
    assert (
        row["commit"] and row["device"] and row["command"] == " ".join(["pytest --full --ledger table.csv", *processes])
    )
