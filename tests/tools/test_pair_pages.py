"""Pages of the worst pairs, beside the tables of the same evaluation."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest

from common.datalist import read_datalist
from common.provenance import versions
from tools.evaluate import evaluate
from tools.pair_pages import badness
from tools.predictions import Pair

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
        assert metrics["settings"]["method"] == "given" and metrics["fixed"] == given["fixed"]
        assert "structure" in (folder / "report.html").read_text()


def test_a_field_that_came_alone_is_judged_by_what_there_is(out):
    for folder in (out / "reports" / "given").iterdir():
        metrics, page = json.loads((folder / "metrics.json").read_text()), (folder / "report.html").read_text()
        assert metrics["verdict"] in ("ok", "check", "failed") and f'class="verdict {metrics["verdict"]}"' in page
        signals = metrics["signals"]
        assert signals["similarity"] is not None and signals["overlap"] is not None
        assert signals.get("starts_percent") is signals.get("inverse_percent") is signals["initial_factor"] is None
        assert metrics["settings"]["versions"] == versions() and metrics["settings"]["versions_of"] == "the evaluation"
        assert versions()["torch"] in page and "seconds" not in metrics
    for folder in (out / "reports" / "before").iterdir():
        assert "verdict" not in json.loads((folder / "metrics.json").read_text())  # nothing was registered


def test_what_a_registration_said_of_itself_is_on_its_page(golden, tmp_path):
    """Verdict, seconds and versions are the registration's; scores are the evaluation's."""
    given = tmp_path / "given"
    (item, *_) = read_datalist(golden, "validation")
    shutil.copytree(golden / "itk", given)
    pair = Pair(item)
    said = {"verdict": "check", "reasons": ["look"], "signals": {"starts_mm": 1.0}, "dice": 0.0, "seconds": 9.0}
    said |= {
        "seconds_by_step": {"read": 1.0, "network": 2.0},
        "settings": {"bundle": "b", "versions": {"torch": "9.9"}},
    }
    names = {"fixed": pair.fixed.name, "moving": pair.moving.name}
    (given / pair.name / "metrics.json").write_text(json.dumps({**names, **said}))
    (given / "metrics.csv").write_text(f"fixed,moving,seconds\n{pair.fixed.name},{pair.moving.name},2.5\n")
    evaluate(str(golden), "validation", [f"m={given}"], str(tmp_path / "out"), reports=-1, say=lambda _: None)
    metrics = json.loads((tmp_path / "out" / "reports" / "m" / pair.name / "metrics.json").read_text())
    for key in ("verdict", "reasons", "signals", "seconds_by_step"):
        assert metrics[key] == said[key]
    assert metrics["dice"] > 0 and metrics["seconds"] == 2.5
    assert metrics["settings"] == {
        "method": "m", "bundle": "b", "versions": {"torch": "9.9"}, "versions_of": "the registration"
    }  # fmt: skip


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
