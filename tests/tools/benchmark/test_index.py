import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.quality import verdict
from tools.benchmark.index import PROGRAMS, SIGNALS, make_up_pairs
from tools.report.gather import gather
from tools.repository import REPOSITORY


def test_made_up_pairs_are_read_as_what_register_leaves(tmp_path):
    make_up_pairs(tmp_path / "pairs", 60)
    found = gather(tmp_path / "pairs")
    assert len(found.pairs) == 60 and not found.left_out
    assert len({pair.name for pair in found.pairs}) == 60
    assert all({"dice", "similarity_gain", "seconds_total"} <= set(pair.numbers) for pair in found.pairs)
    assert all(set(pair.files) == {"report", "thumbnail"} for pair in found.pairs)
    assert all(pair.reasons if pair.verdict != "ok" else not pair.reasons for pair in found.pairs)
    worded = {pair.verdict: pair.reasons for pair in found.pairs}
    assert worded == {state: verdict(signals).reasons for state, signals in SIGNALS.items()}
    assert all(verdict(signals).state == state for state, signals in SIGNALS.items()) and len(worded["failed"]) == 2
    assert sum(not os.path.getsize(tmp_path / "pairs" / pair.folder / "thumbnail.jpg") for pair in found.pairs) == 0


@pytest.mark.slow
def test_ten_thousand_pairs_open_in_three_seconds(tmp_path):
    """In a process of its own: Playwright runs once in each."""
    pytest.importorskip("playwright")
    if not any(map(shutil.which, PROGRAMS)):
        pytest.skip("needs Chromium, as of `apt-get install chromium`")
    words = ["benchmark", "index", "--runs", "1", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "tools", *words], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    with Path(done.stdout.strip()).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert int(row["pairs"]) == 10_000
    assert 0 < float(row["open_seconds_max"]) < 3
    assert float(row["sort_seconds_max"]) < 0.5 and float(row["filter_seconds_max"]) < 0.5
