"""Exported networks measured and tabled, on the toy."""

import csv

import pytest

from common.errors import RegInputError
from tests.tools.toy import edit_json, write_toy
from tools.benchmark import exports
from tools.benchmark.exports import benchmark_exports
from tools.benchmark.report_exports import report_exports
from tools.repository import REPOSITORY

PUBLISHED = REPOSITORY / "results" / "export-cpu-1threads-torch2.13.0.csv"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy, measured in this process."""
    monkeypatch.setattr("common.spatial.SCALE", 1, raising=False)
    monkeypatch.setattr(exports, "apart", lambda function, *arguments: function(*arguments))
    return write_toy(tmp_path)


def test_a_row_says_what_was_exported_and_the_table_says_the_row(toy, tmp_path):
    said = []
    stack = {"threads": 1, "command": "c", "say": said.append}
    path = benchmark_exports(tmp_path / "results", [str(toy)], ["torchscript"], (16, 16, 20), **stack)
    (row,) = csv.DictReader(path.open(newline=""))
    expected = {"bundle": "toy", "format": "torchscript", "sizes": "any", "size": "16x16x20", "threads": "1"}
    assert expected.items() <= row.items() and row["command"] == "c" and row["runtime"].startswith("torch 2")
    assert float(row["largest_difference_voxels"]) == 0 and float(row["largest_displacement_voxels"]) > 0.5
    assert float(row["megabytes"]) > 0 and len(said) == 1
    cells = [row[key] for key in ("megabytes", "export_s", "torch_s", "exported_s")]
    line = "| `toy` | torchscript | {} | any size | 16x16x20 | {} | {} | {} | 0.0e+00 |".format(*cells)
    assert report_exports(path).splitlines()[2:] == [line]


def test_what_cannot_be_exported_is_refused_before_any_work(toy, tmp_path):
    edit_json(toy / "configs" / "metadata.json", untrained="it is a toy")
    with pytest.raises(RegInputError, match="because it is a toy"):
        benchmark_exports(tmp_path, [str(toy)], ["torchscript"])
    with pytest.raises(RegInputError, match="expected one of each"):
        benchmark_exports(tmp_path, [str(toy)], [])
    with pytest.raises(RegInputError, match="run that first"):
        report_exports(tmp_path / "none.csv")


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED.name}: not made yet")
def test_the_docs_hold_the_table_of_the_published_rows():
    assert report_exports(PUBLISHED) in (REPOSITORY / "docs" / "sharing.md").read_text()
