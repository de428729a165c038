"""Coverage is told of the stored table, which the exponents in use were fitted for; the fit is held against theory."""

import csv
from pathlib import Path

import numpy as np
import pytest

from common.error_map import LIMITS, PREDICTORS, error_limits
from common.errors import RegInputError
from tools.benchmark.interval_pairs import HALVES, cases_of, edges
from tools.benchmark.intervals import benchmark_intervals, coverage, fit_exponents, spread_factor

NORMAL_95 = 1.6449


def stored() -> list[dict[str, str]]:
    with (LIMITS.parents[1] / error_limits()["table"]).open(newline="") as file:
        return list(csv.DictReader(file))


def held_out(method: str, starts: str, region: str = "body") -> np.ndarray:
    """Coverage, pair by pair."""
    rows = [row for row in stored() if (row["half"], row["starts"], row["region"]) == ("held-out", starts, region)]
    return np.array([float(row["coverage_percent"]) for row in rows if row["method"] == method])


@pytest.mark.parametrize("starts", ["4", "8"])
def test_93_to_97_percent_of_the_held_out_errors_lie_within(starts):
    methods = sorted({row["method"] for row in stored()})
    assert "svf" in methods and len(methods) >= 2
    for method in methods:
        pairs = held_out(method, starts)
        assert len(pairs) >= 8 and 93 <= pairs.mean() <= 97 and 93 <= np.median(pairs) <= 97


def test_flat_parts_are_covered_better_than_by_the_spread_alone():
    rows = [row for row in stored() if (row["half"], row["starts"], row["region"]) == ("held-out", "8", "flat")]
    found, alone = (np.mean([float(row[f"{name}_percent"]) for row in rows]) for name in ("coverage", "spread_alone"))
    assert found > alone + 5


def test_no_pair_is_in_both_halves():
    for key in ("sizes", "deformations_mm", "noises"):
        assert not set(getattr(HALVES["calibration"], key)) & set(getattr(HALVES["held-out"], key))
    calibration, other = (
        {seed for case in cases_of(half, 100) for seed in (case.seed, case.seed + 1)} for half in HALVES
    )
    assert len(calibration) == len(other) == 200 and not calibration & other


def lognormal(count: int) -> dict[str, np.ndarray]:
    """Errors that are exactly a power of the spread times a constant times a lognormal number."""
    rng = np.random.default_rng(0)
    sample = {name: rng.normal(size=count) for name in PREDICTORS}
    logarithm = 2 * sample["spread"] - 0.5 * sample["structure"] + 0.3 + 0.2 * rng.normal(size=count)
    return sample | {"error": np.exp(logarithm), "alone": np.exp(sample["spread"])}


def test_the_fit_finds_the_quantile_of_lognormal_errors():
    found = fit_exponents([lognormal(20_000)])
    expected = dict.fromkeys(PREDICTORS, 0.0) | {"spread": 2, "structure": -0.5, "constant": 0.3 + 0.2 * NORMAL_95}
    assert found == pytest.approx(expected, abs=0.015)


def test_the_factor_of_the_spread_holds_as_many_errors():
    sample = lognormal(10_000)
    factor = spread_factor([sample])
    assert (sample["error"] <= factor * sample["alone"]).mean() == pytest.approx(0.95, abs=1e-3)


def test_coverage_counts_what_is_not_longer():
    found = coverage(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 3, 3]), np.array([0.5, 2, 5, 5]))
    assert found["coverage_percent"] == 75 and found["spread_alone_percent"] == 75
    assert found["mean_error_mm"] == 2.5 and found["mean_half_width_mm"] == 2.5


def test_edges_have_another_label_at_a_face():
    label = np.zeros((5, 5), int)
    label[2, 2] = 1
    assert edges(label).sum() == 5 and edges(label)[2, 1] and not edges(label)[1, 1]


def test_weights_that_are_missing_are_named_before_anything_is_registered(tmp_path):
    with pytest.raises(RegInputError, match=r"model.pt is missing.*--ckpt_dir"):
        benchmark_intervals(tmp_path, ["voxelmorph"], 2, work=tmp_path, weights=Path("nowhere"))
    with pytest.raises(RegInputError, match="1 pairs"):
        benchmark_intervals(tmp_path, ["svf"], 1, work=tmp_path)


def published() -> Path:
    """The csv that the documentation quotes."""
    (path,) = (Path(__file__).parents[3] / "results").glob("intervals-*.csv")
    return path


def key_of(row: dict[str, str]) -> tuple[str, ...]:
    """What tells a row of the csv from others."""
    return tuple(
        row[name] for name in ("half", "method", "seed", "size", "deformation_mm", "noise", "starts", "region")
    )


@pytest.mark.slow
def test_the_first_pairs_of_each_half_are_measured_as_published_and_kept(tmp_path):
    """By the exponents in use; the registrations stay and are not done again."""
    first = benchmark_intervals(tmp_path / "a", ["svf"], 2, work=tmp_path / "work", say=lambda line: None)
    times = [path.stat().st_mtime_ns for path in (tmp_path / "work" / "svf").iterdir()]
    again = benchmark_intervals(tmp_path / "b", ["svf"], 2, work=tmp_path / "work", say=lambda line: None)
    assert len(times) == 4 and times == [path.stat().st_mtime_ns for path in (tmp_path / "work" / "svf").iterdir()]
    with first.open(newline="") as one, again.open(newline="") as two:
        rows, other = list(csv.DictReader(one)), list(csv.DictReader(two))
    with published().open(newline="") as file:
        expected = {key_of(row): float(row["coverage_percent"] or "nan") for row in csv.DictReader(file)}
    found = {key_of(row): float(row["coverage_percent"] or "nan") for row in rows}
    assert len(found) == 4 * 3 * 8
    apart = {key: (value, expected[key]) for key, value in found.items() if abs(value - expected[key]) > 0.5}
    assert not apart
    assert [row["coverage_percent"] for row in rows] == [row["coverage_percent"] for row in other]
