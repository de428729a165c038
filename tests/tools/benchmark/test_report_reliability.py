"""Does the table say what the csv says, and the README what the table says?"""

import csv

import pytest

from common.errors import RegInputError
from tests.reliability.ledger import COLUMNS
from tools.benchmark.report_reliability import report_reliability
from tools.repository import REPOSITORY

PUBLISHED = REPOSITORY / "results/reliability.csv"


def test_right_stands_beside_tried_and_the_libraries_beside_both(tmp_path):
    path = tmp_path / "reliability.csv"
    rows = [
        {"subject": "kills", "tried": 50, "right": 49, "wrong": 1, "libraries": "", "libraries_tried": 0},
        {"subject": "bombs", "tried": 3, "right": 3, "libraries": "MONAI", "libraries_tried": 3, "libraries_right": 0},
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = report_reliability(path).splitlines()
    assert lines[2:] == ["| kills | 50 | 49 |  |  |", "| bombs | 3 | 3 | 0 of 3 | MONAI |"]


def test_a_csv_that_was_never_made_is_said(tmp_path):
    with pytest.raises(RegInputError, match="make reliability"):
        report_reliability(tmp_path / "reliability.csv")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="results/reliability.csv: not made yet")
def test_the_readme_holds_the_table_of_the_published_counts():
    assert report_reliability(PUBLISHED) in (REPOSITORY / "README.md").read_text()
