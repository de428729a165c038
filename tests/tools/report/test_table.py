import csv
import math

import pytest

from common.quality import verdict
from tools.report.pair import Pair
from tools.report.table import text_cell, write_table


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_holds_texts_paths_and_full_numbers(tmp_path):
    reasons = verdict({"folded_percent": 0.7, "initial_factor": 2.0}).reasons  # as the self-check words them
    pair = Pair("a", "a", "f", "m", "svf", "check", reasons, {"dice": 1 / 3, "hd95_mm": math.inf})
    pair.files["report"] = "report.html"
    write_table(tmp_path / "index.csv", [pair, Pair("b", None, "f", "m")], tmp_path / "in", tmp_path / "page")
    first, second = rows(tmp_path / "index.csv")
    assert first["reasons"].split("; ") == list(reasons) and len(reasons) == 2
    assert first["verdict"] == "check" and first["method"] == "svf"
    assert (first["folder"], first["report"]) == ("../in/a", "../in/a/report.html")
    assert float(first["dice"]) == 1 / 3 and first["hd95_mm"] == "inf"
    assert second["dice"] == second["folder"] == second["report"] == second["verdict"] == ""


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_is_no_formula(text, tmp_path):
    assert text_cell(text) == f"'{text}"
    write_table(tmp_path / "t.csv", [Pair(text, text, text, "m", reasons=(text,))], tmp_path, tmp_path)
    (row,) = rows(tmp_path / "t.csv")
    assert row["pair"] == row["folder"] == row["fixed"] == row["reasons"] == f"'{text}"


def test_a_negative_number_stays_a_number(tmp_path):
    write_table(tmp_path / "t.csv", [Pair("a", "a", "f", "m", numbers={"similarity_gain": -0.5})], tmp_path, tmp_path)
    assert rows(tmp_path / "t.csv")[0]["similarity_gain"] == "-0.5"


def test_quotes_commas_and_lines_in_names_survive(tmp_path):
    name = 'a,"b"\nc;d'
    write_table(tmp_path / "t.csv", [Pair(name, name, "f", "m")], tmp_path, tmp_path)
    assert rows(tmp_path / "t.csv")[0]["pair"] == name
