"""Is what was told counted, once, and is what other runs found kept?"""

import csv
from importlib import metadata

import pytest

from tests.reliability.ledger import Ledger, rows_of, uncounted, update

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
    assert (row["libraries_tried"], row["libraries_wrong"]) == (1, 1)


def test_libraries_have_their_versions_and_modules_of_python_have_none():
    line = {"subject": "a", "case": "1", "right": True}
    (row,) = rows_of([line, {**line, "libraries": "torch, pickle"}])
    assert row["libraries"] == f"torch {metadata.version('torch')}, pickle"


def test_a_subject_names_every_library_that_one_of_its_cases_tried():
    line = {"subject": "a", "case": "1", "right": True}
    lines = [line, *({**line, "libraries": names} for names in ("pickle", "csv, pickle", "json"))]
    assert [row["libraries"] for row in rows_of(lines)] == ["pickle, csv, json"]


def test_a_failure_that_told_no_wrong_case_takes_the_rows_of_its_file():
    line = {"subject": "a", "right": True, "test": "test_a.py::test_one"}
    lines = [line, {**line, "subject": "b", "test": "test_b.py::test_one"}]
    assert uncounted([], lines) == set()
    assert uncounted(["test_a.py::test_two"], lines) == uncounted(["test_a.py::test_one"], lines) == {"a"}
    wrong = {**line, "right": False}
    assert uncounted(["test_a.py::test_one"], [*lines, wrong]) == set()
    assert uncounted(["test_a.py::test_one"], [*lines, {**wrong, "libraries": "torch"}]) == {"a"}


def test_nothing_is_written_where_nobody_reads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger().tell("a", "b", right=True)
    assert list(tmp_path.iterdir()) == []


def test_subjects_of_other_runs_are_kept(tmp_path):
    path = tmp_path / "table.csv"
    update(path, [{"subject": "b", "tried": 5}])
    update(path, [{"subject": "a", "tried": 1}])
    update(path, [{"subject": "b", "tried": 7}, {"subject": "c", "tried": 2}])
    update(path, [], without=["c"])
    with path.open() as file:
        assert [(row["subject"], row["tried"]) for row in csv.DictReader(file)] == [("a", "1"), ("b", "7")]


@pytest.mark.parametrize("processes", [[], pytest.param(["--numprocesses", "2"], marks=pytest.mark.slow)])
def test_what_several_processes_saw_is_one_row_and_failures_count(pytester, monkeypatch, processes):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pytester.makeconftest("from tests.reliability.conftest import *")
    pytester.makepyfile(INNER)
    result = pytester.runpytest_inprocess("--full", "--ledger", "table.csv", *processes)
    result.assert_outcomes(passed=5, failed=1)
    with (pytester.path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert [row[key] for key in ("tried", "right", "wrong", "libraries_right", "libraries_wrong")] == list("65115")
    assert row["commit"] and row["device"]
    assert row["command"] == " ".join(["OMP_NUM_THREADS=1 python -m pytest --full --ledger table.csv", *processes])


@pytest.mark.parametrize("processes", [[], pytest.param(["--numprocesses", "2"], marks=pytest.mark.slow)])
def test_a_test_that_breaks_before_it_tells_leaves_no_row(pytester, processes):
    pytester.makeconftest("from tests.reliability.conftest import *")
    pytester.makepyfile(INNER.replace("    assert count", "    assert case != 4\n    assert count"))
    result = pytester.runpytest_inprocess("--full", "--ledger", "table.csv", *processes)
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines("no row for tables: *")
    with (pytester.path / "table.csv").open() as file:
        assert list(csv.DictReader(file)) == []


def test_a_run_that_is_broken_off_leaves_the_table_as_it_was(pytester):
    pytester.makeconftest("from tests.reliability.conftest import *")
    pytester.makepyfile(INNER.replace("    assert count", "    if case == 2:\n        pytest.exit()\n    assert count"))
    result = pytester.runpytest_inprocess("--full", "--ledger", "table.csv")
    result.stdout.fnmatch_lines("no row: the run was broken off")
    assert not (pytester.path / "table.csv").exists()
