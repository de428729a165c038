"""The self-check's pairs, limits and table: what is counted, what is chosen, and that file, csv and table agree."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.errors import RegInputError
from common.quality import LIMITS_FILE, RULES, SIGNALS, read_limits, verdict
from tools.benchmark import quality
from tools.benchmark.quality_cases import BROKEN, CONDITIONAL, GOOD, KINDS, SETTINGS, SPOILED, Volume, cases_of
from tools.benchmark.quality_limits import FALSE_ALARMS, FIXED, choose_limits, signals_of_row, write_limits
from tools.benchmark.quality_scans import Scan, coarser, phantom
from tools.benchmark.quality_truth import judged
from tools.benchmark.report_quality import NEITHER, report_quality, table_of

RESULTS = Path(__file__).parents[3] / "results"
FINE = {
    "finite_percent": "100",
    "similarity": "0.8",
    "similarity_gain": "0.5",
    "overlap": "0.95",
    "inside_percent": "99",
    "displacement_percent": "5",
    "volume_factor": "1.5",
    "folded_percent": "0",
    "inverse_percent": "0",
    "starts_percent": "3",
    "displacement_mm": "8",
    "starts_mm": "4",
    "initial_factor": "",
    "dice_change": "0.1",
}


def row(kind=GOOD, half="calibration", fixed="a", moving="b", dice="0.8", before="0.5", **signals: str) -> dict:
    words = {"half": half, "organ": "brain", "kind": kind, "setting": "svf", "spoil": "", "fixed": fixed}
    truth = {"dice_before": before, "dice": dice, "tre_mm_before": "", "tre_mm": "", "refused": ""}
    return words | {"moving": moving} | truth | FINE | signals


def scans(*organs: str) -> dict[str, list[Scan]]:
    return {organ: [Scan(organ, f"{organ}{k}", Path(f"{organ}{k}.nii.gz")) for k in range(6)] for organ in organs}


ORGANS = ("brain", "brain 2 mm", "native brain", "hippocampus", "phantom", "liver", "lung")


def test_no_two_cases_are_the_same_and_every_kind_of_failure_is_there():
    cases = list(cases_of("held-out", scans(*ORGANS), networks=True))
    assert len({case.key for case in cases}) == len(cases)
    assert {case.kind for case in cases} == {GOOD, *KINDS} and {case.setting for case in cases} <= set(SETTINGS)
    assert set(CONDITIONAL) < set(KINDS)


@pytest.mark.parametrize("kind", sorted(SPOILED))
def test_what_spoils_a_scan_changes_it_and_does_so_again(kind):
    voxels = np.random.default_rng(0).random((10, 12, 14)).astype(np.float32)
    label = (voxels > 0.5).astype(np.int16)
    volume = Volume(voxels, label, np.diag([-2.0, 2, 3, 1]))
    first, second = (SPOILED[kind](volume, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first.voxels, second.voxels) and np.array_equal(first.affine, second.affine)
    same = first.voxels.shape == voxels.shape and np.array_equal(first.voxels, voxels)
    assert not same or not np.array_equal(first.affine, volume.affine)
    if first.label is not None:
        assert first.label.shape == first.voxels.shape


def test_a_flip_mirrors_the_axis_of_its_name():
    voxels = np.zeros((4, 5, 6), np.float32)
    voxels[0, 1, 2] = 1
    volume = Volume(voxels, None, np.array([[0, 0, -1.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))  # A, S, L
    places = {"flip up-down": (0, 3, 2), "flip front-back": (3, 1, 2), "flip left-right": (0, 1, 3)}
    for kind, place in places.items():
        assert SPOILED[kind](volume, None).voxels[place] == 1


def test_a_turned_scan_keeps_its_center_and_a_shifted_one_does_not():
    volume = Volume(np.zeros((11, 9, 7), np.float32), None, np.diag([1.0, 2, 3, 1]))
    center = volume.affine @ [5, 4, 3, 1]
    turned, moved = (SPOILED[kind](volume, np.random.default_rng(3)).affine for kind in ("rotation", "shift"))
    np.testing.assert_allclose(turned @ [5, 4, 3, 1], center)
    assert np.linalg.norm(moved @ [5, 4, 3, 1] - center) > 3


def test_half_a_field_of_view_stays_where_it_was():
    voxels = np.random.default_rng(0).random((10, 20, 10)).astype(np.float32)
    half = SPOILED["cut field of view"](Volume(voxels, None, np.eye(4)), np.random.default_rng(0))
    assert half.voxels.shape == (10, 10, 10)
    start = round(half.affine[1, 3])
    assert np.array_equal(half.voxels, voxels[:, start : start + 10])


def test_broken_fields_are_fields_of_the_same_grid_and_no_longer_the_answer():
    ddf = torch.rand(3, 8, 9, 10)
    answer, other = {"ddf": ddf, "inverse": -ddf}, torch.rand(3, 6, 6, 6)
    for kind, broken in BROKEN.items():
        found = broken(answer, other, np.random.default_rng(0))
        assert found.shape == ddf.shape and not torch.equal(found, ddf), kind


def test_a_coarser_scan_keeps_its_place_and_its_labels(tmp_path):
    voxels = np.zeros((9, 9, 9), np.float32)
    voxels[3:6, 3:6, 3:6] = 27
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    for name, values in (("image", voxels), ("label", voxels.astype(np.int16))):
        nib.save(nib.Nifti1Image(values, affine), tmp_path / f"{name}.nii.gz")
    scan = Scan("organ", "one", tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    found = coarser(scan, (3, 3, 3), tmp_path / "work")
    image = nib.load(found.image)
    assert image.get_fdata()[1, 1, 1] == 27 and image.get_fdata().sum() == 27
    np.testing.assert_allclose(image.affine @ [1, 1, 1, 1], affine @ [4, 4, 4, 1])
    assert nib.load(found.label).get_fdata()[1, 1, 1] == 27


def test_a_spoiled_registration_has_failed_only_if_overlap_is_lost():
    rows = [row(dice="0.51", fixed="d"), row(), row("identity", dice="0.5"), row("identity", dice="0.75")]
    rows += [row("flip up-down", dice="0.79"), row(dice="0.4"), row("identity", fixed="c", dice="0.1")]
    assert [one.worked for one in judged(rows)] == [None, True, False, None, False, None, None]


def many(count: int = 100) -> list[dict]:
    """Good rows whose similarity and displacement spread evenly."""
    spread = range(count)
    return [row(fixed=str(k), similarity=str(0.5 + k / 1000), displacement_percent=str(5 + k / 100)) for k in spread]


def test_limits_flag_as_many_good_registrations_as_allowed_and_no_more():
    rows = many()
    limits = choose_limits(rows)
    flagged = [verdict(signals_of_row(one), limits).state for one in rows]
    assert flagged.count("ok") >= 95 and flagged.count("check") >= 3 and "failed" not in flagged
    assert limits["similarity"].failed < 0.5 < limits["similarity"].check < 0.505
    assert limits["folded_percent"] == FIXED["folded_percent"].limit


def test_the_file_says_by_what_each_limit_was_chosen():
    told = json.loads(LIMITS_FILE.read_text())["limits"]
    assert {name for name, limit in told.items() if limit["by"] == "plausibility"} == set(FIXED)
    for name, limit in told.items():
        plausible = {"by": "plausibility", "why": FIXED[name].why} if name in FIXED else {"by": "csv"}
        assert limit == {**read_limits()[name]._asdict(), **plausible}


def test_the_other_half_and_bad_registrations_have_no_say_in_the_limits():
    rows = many()
    others = [row("flip up-down", similarity="0.1"), row(half="held-out", similarity="0.1", fixed="z")]
    assert choose_limits(rows) == choose_limits(rows + others)
    with pytest.raises(RegInputError, match="calibration half"):
        choose_limits(others)


def test_the_table_counts_hits_and_false_alarms_of_each_half(tmp_path):
    limits = choose_limits(many())
    held = [row(half="held-out", fixed=str(k)) for k in range(9)] + [row(half="held-out", similarity="0.4", fixed="w")]
    held += [row("noise", "held-out", similarity="0.1")] * 3 + [row("noise", "held-out")]
    held += [row("constant", "held-out") | dict.fromkeys(SIGNALS, "") | {"refused": "no contrast"}]
    table = {(one["half"], one["what"]): one for one in table_of(many() + held, limits)}
    good, noise = table["held-out", GOOD], table["held-out", "noise"]
    assert (good["n"], good["flagged"], good["percent"]) == (10, 1, 10.0)
    assert (noise["n"], noise["flagged"], noise["failed"]) == (4, 3, 3)
    assert (noise["low"], noise["high"]) == (30.1, 95.4)  # Wilson, 3 of 4
    assert table["held-out", "constant"]["percent"] == 100 and table["held-out", "any failure"]["n"] == 5
    assert [table["held-out", what]["refused"] for what in (GOOD, "constant", "any failure")] == [0, 1, 1]
    judged_by_signals = table["held-out", "any failure, registered"]
    assert (judged_by_signals["n"], judged_by_signals["flagged"], judged_by_signals["refused"]) == (4, 3, 0)
    assert table["calibration", GOOD]["percent"] <= 100 * FALSE_ALARMS


def test_the_table_counts_scan_pairs_once_and_what_is_neither_good_nor_failed():
    half = "held-out"
    rows = [row(half=half, fixed="1_SS", moving="2_SS"), row(half=half, fixed="2", moving="1"), row(half=half)]
    rows += [row(half=half, dice="0.5", similarity="0.1"), row("rotation", half, dice="0.8")]
    table = {one["what"]: one for one in table_of(rows, choose_limits(many()))}
    assert (table[GOOD]["n"], table[GOOD]["scan_pairs"]) == (3, 2)
    assert (table[NEITHER]["n"], table[NEITHER]["flagged"]) == (2, 1) and list(table)[-1] == NEITHER


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    asked = []
    members = scans("phantom")["phantom"][:1]
    cases = [quality.Case("calibration", GOOD, "svf", members[0], Scan("phantom", str(k), Path())) for k in range(3)]

    class Runs:
        def __init__(self, *_arguments):
            pass

        def row(self, case):
            asked.append(case.moving.name)
            return {"refused": "", "dice": "0.5"}

    monkeypatch.setattr(quality, "gather_scans", lambda *_arguments: dict.fromkeys(quality.HALVES))
    monkeypatch.setattr(quality, "cases_of", lambda half, *_arguments: cases if half == "calibration" else [])
    monkeypatch.setattr(quality, "Runs", Runs)
    places = (tmp_path, tmp_path, tmp_path / "out", tmp_path / "work")
    quality.benchmark_quality(*places, limit=2)
    path = quality.benchmark_quality(*places)
    assert asked == ["0", "1", "2"] and [one["moving"] for one in quality.read(path)] == ["0", "1", "2"]


@pytest.mark.slow
def test_a_phantom_pair_is_ok_and_the_same_pair_upside_down_is_not(tmp_path):
    """The whole way through the bundle, as the csv has it, judged by the limits that are shipped."""
    pair = [phantom(seed, tmp_path) for seed in (0, 1)]
    runs = quality.Runs(tmp_path, tmp_path)
    cases = [quality.Case("calibration", GOOD, "svf", *pair)]
    cases += [quality.Case("calibration", kind, "svf", *pair, kind) for kind in ("flip up-down", "constant")]
    good, flipped, constant = (runs.row(case) for case in cases)
    assert float(good["dice"]) > 0.7 > float(flipped["dice"]) and "expected contrast" in constant["refused"]
    states = [verdict(signals_of_row(one)).state for one in (good, flipped)]
    assert states[0] == "ok" and states[1] != "ok"
    assert runs.row(cases[0]) == good


def committed(prefix: str) -> Path:
    (path,) = (p for p in RESULTS.glob("quality-*.csv") if p.name.startswith("quality-pairs-") == (prefix == "pairs"))
    return path


def test_the_limits_are_those_of_the_csv_that_they_name(tmp_path):
    path = committed("pairs")
    assert write_limits(path, tmp_path / "limits.json").read_text() == LIMITS_FILE.read_text()


def test_the_table_is_that_of_the_csv_and_the_limits(tmp_path):
    report_quality(committed("pairs"), tmp_path)
    assert (tmp_path / committed("table").name).read_bytes() == committed("table").read_bytes()


def test_at_least_a_hundred_good_and_a_hundred_bad_pairs_were_registered_and_the_documentation_has_their_table():
    known = judged(quality.read(committed("pairs")))
    assert sum(one.worked is True for one in known) >= 100 and sum(one.worked is False for one in known) >= 100
    subjects = [{one.row["fixed"] for one in known if one.row["half"] == half} for half in ("calibration", "held-out")]
    assert not subjects[0] & subjects[1]
    text = (RESULTS.parent / "docs" / "quality.md").read_text()
    with committed("table").open(newline="") as file:
        for line in csv.DictReader(file):
            if line["half"] == "held-out":
                cells = (line[key] for key in ("what", "n", "scan_pairs", "refused", "flagged", "failed", "percent"))
                assert f"| {' | '.join(cells)} |" in text


def test_every_rule_has_a_column():
    assert {rule.signal for rule in RULES} <= set(read_limits())
    with committed("pairs").open(newline="") as file:
        assert set(SIGNALS) <= set(next(csv.reader(file)))
