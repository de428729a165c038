"""Cases inside a limit of time: kept as soon as they are measured, not measured twice, told where they fail."""

import csv
import os
import time

import pytest

from tools.benchmark.cases import Case, CaseError, Sheet, Worker, run_cases


def square(number: int) -> dict:
    """A measurement."""
    return {"value": number**2}


def fail(number: int) -> dict:
    """A measurement that cannot be made."""
    raise RuntimeError(f"no {number}\nhere")


def vanish() -> dict:
    """A measurement whose process is killed."""
    os._exit(9)


def process() -> dict:
    """Who measures."""
    return {"value": os.getpid()}


@pytest.fixture
def places(tmp_path):
    """A part's sheet and that of failures."""
    sheets = {"part": Sheet(tmp_path / "part.csv", {"commit": "c"}), "failures": Sheet(tmp_path / "failures.csv")}
    return sheets, sheets["failures"]


def squares(*numbers: int) -> list[Case]:
    """A case for each."""
    return [Case("part", {"number": number}, square, (number,)) for number in numbers]


def run(cases, places, seconds=60.0):
    """What is left, and the lines that were said."""
    said = []
    return run_cases(cases, *places, time.monotonic() + seconds, said.append), said


def test_a_case_that_fails_or_dies_costs_a_reason_and_the_rest_goes_on(places):
    cases = [*squares(1), Case("part", {"number": 2}, fail, (2,)), Case("part", {"number": 3}, vanish, ()), *squares(4)]
    left, said = run(cases, places)
    assert left == [] and [row["value"] for row in places[0]["part"].rows()] == ["1", "16"]
    reasons = {row["case"]: row["reason"] for row in places[1].rows()}
    assert reasons["part 2"] == "RuntimeError: no 2 here" and "killed for memory" in reasons["part 3"]
    assert len(said) == 4 and said[1] == "part 2: failed: RuntimeError: no 2 here"


def test_what_is_there_is_not_measured_again(places):
    run([*squares(2), Case("part", {"number": 3}, fail, (3,))], places)
    left, said = run([*squares(2, 5), Case("part", {"number": 3}, fail, (3,))], places)
    assert left == [] and len(said) == 1
    assert [row["number"] for row in places[0]["part"].rows()] == ["2", "5"]


def test_what_the_deadline_cut_off_is_left_and_no_failure(places):
    long = Case("part", {"number": 1}, time.sleep, (60,))
    left, said = run([long, *squares(2)], places, seconds=12.0)
    assert left == [long, *squares(2)] and not said and places[1].rows() == []


def test_what_passes_its_own_limit_has_failed(places):
    left, _ = run([Case("part", {"number": 1}, time.sleep, (60,), 4.0), *squares(2)], places)
    assert left == [] and [row["reason"] for row in places[1].rows()] == ["not finished within 4 s"]
    assert len(places[0]["part"].rows()) == 1


def test_a_process_serves_until_it_fails():
    worker = Worker()
    try:
        first, second = (worker.call(60, process)["value"] for _ in range(2))
        with pytest.raises(CaseError, match="no 1 here"):
            worker.call(60, fail, 1)
        third = worker.call(60, process)["value"]
    finally:
        worker.end()
    assert first == second != third and os.getpid() not in (first, third)


def test_a_sheet_is_completed_by_what_follows_from_its_rows(tmp_path):
    def total(rows):
        for row in rows:
            row["total"] = sum(int(other["value"]) for other in rows)

    sheet = Sheet(tmp_path / "sheet.csv", {"commit": "c"}, total)
    for number in (1, 2):
        sheet.add([{"value": number}])
    with sheet.path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"value": v, "commit": "c", "total": "3"} for v in ("1", "2")]
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.csv"]
