import csv

import pytest

from common.errors import RegInputError
from tools.benchmark_inference import benchmark_inference, growth


def test_growth_is_the_slope_after_the_first_hundred():
    samples = [(1000.0 if k < 100 else 500 + 0.25 * k, 7 if k < 150 else 9) for k in range(300)]
    assert growth(samples) == {"growth_kb_each": 0.25, "open_files_gained": 2}
    assert growth(samples[:1]) == {"growth_kb_each": "", "open_files_gained": ""}


@pytest.mark.parametrize(
    ("bundle", "overlays", "repeats"), [("no_such", (), 0), ("eoir", ("no_such.json",), 0), ("eoir", (), 150)]
)
def test_what_cannot_be_measured_is_refused(bundle, overlays, repeats, tmp_path):
    with pytest.raises(RegInputError, match="expected a bundle and 200 repeats or more"):
        benchmark_inference(tmp_path, bundle, (16, 16, 16), overlays, repeats, command="")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_registration_is_measured_with_and_without_an_overlay(tmp_path):
    overlays = ("", "half_resolution.json")
    path = benchmark_inference(tmp_path, "eoir", (32, 32, 32), overlays, 0, command="c", say=lambda line: None)
    rows = list(csv.DictReader(path.open()))
    assert [row["overlay"] for row in rows] == ["", "half_resolution"]
    for row in rows:
        assert row["size"] == "32x32x32" and float(row["seconds_each"]) > 0 and int(row["peak_memory_mib"]) > 100
