import csv
import math

import pytest

from common.errors import RegInputError
from tools.benchmark.memory import Sample, benchmark_memory, growth, heap_in_use


def test_growth_is_the_slope_after_the_first_hundred():
    samples = [Sample(2.0 * k, 1000.0 if k < 100 else 500 + 0.25 * k, 7 if k < 150 else 9) for k in range(300)]
    expected = {"heap_growth_kb_each": 0.25, "resident_growth_kb_each": 2.0, "open_files_gained": 2}
    assert growth(samples) == expected
    assert set(growth(samples[:1]).values()) == {""}


def test_the_heap_in_use_follows_what_is_kept_and_what_is_freed():
    before = heap_in_use()
    if math.isnan(before):
        pytest.skip("the C library has no mallinfo2")
    kept = [bytes(1000) for _ in range(20_000)]
    with_it = heap_in_use()
    del kept
    assert with_it - before == pytest.approx(20e6, rel=0.2) and heap_in_use() - before < 2e6


@pytest.mark.parametrize(
    ("bundle", "overlays", "repeats"), [("no_such", (), 0), ("eoir", ("no_such.json",), 0), ("eoir", (), 150)]
)
def test_what_cannot_be_measured_is_refused(bundle, overlays, repeats, tmp_path):
    with pytest.raises(RegInputError, match="bundle, and 200 or more"):
        benchmark_memory(tmp_path, bundle, (16, 16, 16), overlays, repeats, 0, command="")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_registration_is_measured_with_and_without_an_overlay(tmp_path):
    overlays = ("", "half_resolution.json")
    path = benchmark_memory(tmp_path, "eoir", (32, 32, 32), overlays, 0, 0, command="c", say=lambda line: None)
    rows = list(csv.DictReader(path.open()))
    assert [row["overlay"] for row in rows] == ["", "half_resolution"]
    for row in rows:
        assert row["size"] == "32x32x32" and float(row["seconds_each"]) > 0 and int(row["peak_memory_mib"]) > 100
