"""Pages of the worst pairs, beside the tables of the same evaluation."""

import csv
import json
import math
from pathlib import Path

import pytest

from tools.evaluate import evaluate
from tools.pair_pages import badness

from .golden_dataset import write_golden


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> Path:
    return write_golden(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def out(golden, tmp_path_factory) -> Path:
    """Two methods, the two worst pairs of each."""
    out = tmp_path_factory.mktemp("out")
    methods = [f"given={golden / 'itk'}", "before=none"]
    evaluate(str(golden), "validation", methods, str(out), reports=2, say=lambda _: None)
    return out


def rows(out: Path) -> dict[tuple[str, str], dict]:
    with (out / "pairs.csv").open(newline="") as file:
        return {(row["method"], row["pair"]): row for row in csv.DictReader(file)}


def test_the_worst_pairs_of_each_method_have_a_page(out):
    table = rows(out)
    for method in ("given", "before"):
        pairs = sorted((pair for name, pair in table if name == method), key=lambda p: float(table[method, p]["dice"]))
        folders = {path.name: path for path in (out / "reports" / method).iterdir()}
        assert set(folders) == set(pairs[:2]) and len(pairs) > 2
        for folder in folders.values():
            assert {path.name for path in folder.iterdir()} == {"report.html", "thumbnail.jpg", "metrics.json"}


def test_a_page_says_what_the_table_says(out):
    """Before, there are only the headers: what the method `none` scores."""
    table = rows(out)
    for folder in (out / "reports" / "given").iterdir():
        metrics = json.loads((folder / "metrics.json").read_text())
        given, before = table["given", folder.name], table["before", folder.name]
        for key in ("dice", "hd95_mm", "tre_mm"):
            assert metrics[key] == pytest.approx(float(given[key]), rel=1e-5, abs=1e-5)
            assert metrics[f"{key}_before"] == pytest.approx(float(before[key]), rel=1e-5, abs=1e-5)
        assert metrics["folded_percent"] == pytest.approx(float(given["folds_percent"]), abs=1e-3)
        assert metrics["settings"] == {"method": "given"} and metrics["fixed"] == given["fixed"]
        assert "structure" in (folder / "report.html").read_text()


def test_pages_of_an_earlier_evaluation_go(golden, out, tmp_path):
    stale = tmp_path / "reports" / "old" / "pair"
    stale.mkdir(parents=True)
    evaluate(str(golden), "validation", ["before=none"], str(tmp_path), reports=0, say=lambda _: None)
    assert not (tmp_path / "reports").exists()


def test_a_pair_is_judged_by_the_first_score_that_it_has():
    scores = {"dice": 0.7, "tre_mm": 3.0, "sdlogj": 0.1}
    assert badness(scores) == -0.7
    assert badness(scores | {"dice": math.nan}) == 3.0
    assert badness(scores | {"dice": math.nan, "tre_mm": math.nan}) == 0.1
