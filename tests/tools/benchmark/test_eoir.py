"""The sweep's settings, its table and how it goes on after an interruption; one whole run on a tiny phantom."""

import csv
from itertools import pairwise

import pytest
import torch
from torch import nn

from common.errors import RegInputError
from common.phantom import write_phantom
from tools.benchmark import eoir as module
from tools.benchmark.eoir import Setting, Sweep, benchmark_eoir, multiply_adds, settings

PLAN = {"dataset": "My Set", "dataset_dir": "/x/set", "grid": "8x8x8", "spacing_mm": "2x2x2", "smooth_weight": 0.5}
SCORES = {"pairs": 1, "dice": 0.7, "sdlogj": 0.1, "ndv_percent": 0.0, "parameters": 9, "multiply_adds_g": 1.0}


@pytest.fixture
def runs(monkeypatch):
    """The settings that were run, by a stand-in for the processes."""
    asked = []

    def apart(function, sweep, *setting):
        if function is module.read_plan:
            return PLAN | {"steps": sweep.steps or 8}
        asked.append(*setting)
        return SCORES | {"step_s_median": 1.0}

    monkeypatch.setattr(module, "apart", apart)
    monkeypatch.setattr(module, "commit", lambda: "abc")
    return asked


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sweep_once(out, **changes):
    shared = {"depths": [0, 2], "widths": [2, 4], "smooth_weights": [0.5, 2.0]} | changes
    return benchmark_eoir(out, Sweep(), **shared, command="command", say=lambda _: None)


def test_every_network_is_measured_once():
    """Depth 0 has no width, and the configuration's own smoothness is not run twice."""
    found = settings([0, 2], [2, 4], [0.5, 2.0], 0.5)
    assert found == [None, Setting(0, 1, 0.5), Setting(2, 2, 0.5), Setting(2, 4, 0.5), Setting(2, 4, 2.0)]


def test_the_table_says_what_was_measured_and_on_what(runs, tmp_path):
    path = sweep_once(tmp_path)
    rows = rows_of(path)
    assert path.name == f"eoir-my-set-cpu-1threads-torch{torch.__version__.split('+')[0]}.csv"
    assert [row["channels"] for row in rows] == ["", "1", "2", "4", "4"]
    assert {(row["grid"], row["commit"], row["command"]) for row in rows} == {("8x8x8", "abc", "command")}


def test_an_interrupted_sweep_goes_on_where_it_stopped(runs, tmp_path):
    whole = sweep_once(tmp_path).read_text()
    path = next(tmp_path.iterdir())
    path.write_text("".join(whole.splitlines(keepends=True)[:3]))
    runs.clear()
    sweep_once(tmp_path)
    assert path.read_text() == whole and runs == [Setting(2, 2, 0.5), Setting(2, 4, 0.5), Setting(2, 4, 2.0)]


def test_another_commit_is_measured_again(runs, tmp_path, monkeypatch):
    sweep_once(tmp_path)
    monkeypatch.setattr(module, "commit", lambda: "def")
    assert len(rows_of(sweep_once(tmp_path))) == 10


def test_a_failure_leaves_the_finished_rows(runs, tmp_path, monkeypatch):
    run = module.apart

    def apart(function, sweep, *setting):
        if setting and setting[0] == Setting(2, 2, 0.5):
            raise KeyboardInterrupt
        return run(function, sweep, *setting)

    monkeypatch.setattr(module, "apart", apart)
    with pytest.raises(KeyboardInterrupt):
        sweep_once(tmp_path)
    assert len(rows_of(next(tmp_path.iterdir()))) == 2


@pytest.mark.parametrize(
    ("sweep", "changes", "message"),
    [
        (Sweep(), {"depths": [7]}, r"depths are \[7\]"),
        (Sweep(), {"widths": [0]}, r"widths are \[0\]"),
        (Sweep(), {"smooth_weights": [-1.0]}, r"smooth weights are \[-1.0\]"),
        (Sweep(steps=0), {}, "steps is 0"),
        (Sweep(device="tpu"), {}, "tpu"),
        (Sweep(overlays=("no.json",)), {}, "no overlay 'no.json'"),
    ],
)
def test_a_wrong_request_is_refused_before_any_run(sweep, changes, message, runs, tmp_path):
    shared = {"depths": [0], "widths": [2], "smooth_weights": [1.0]} | changes
    with pytest.raises(RegInputError, match=message):
        benchmark_eoir(tmp_path, sweep, **shared, command="")
    assert not runs and not list(tmp_path.iterdir())


def test_steps_that_fill_no_whole_epoch_are_refused(tmp_path):
    dataset = write_phantom(tmp_path, subjects=2, size=(24, 24, 24), validation_pairs=1, testing_pairs=0).parent
    with pytest.raises(RegInputError, match="steps is 9; expected a multiple of the configuration's 8"):
        module.read_plan(Sweep(str(dataset), steps=9))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("depth", "channels"), [(0, 1), (1, 4), (3, 4)])
def test_multiply_adds_are_those_of_the_convolutions(depth, channels, half):
    """voxels * channels in * channels out * 27, by hand: the encoder on two images, an estimator a level."""
    from monai.bundle import ConfigParser

    parser = ConfigParser({"network": {"_target_": "eoir_bundle.network.EOIR", "channels": channels}})
    parser.update({"network::encoder_depth": depth, "network::levels": 2, "network::half_resolution": half})
    widths = {0: [1], 1: [1, channels], 3: [1, channels, 2 * channels, channels]}[depth]
    voxels = 16 * 8 * 8
    expected = sum(2 * voxels * a * b * 27 for a, b in pairwise(widths))
    features = 2 * widths[-1]
    for level in (1, 2) if half else (0, 1):
        expected += voxels // 8**level * 27 * (features * features + features * 27 + 27 * 3)
    assert multiply_adds(parser.get_parsed_content("network"), (16, 8, 8)) == expected


def test_counting_leaves_the_network_where_it_is():
    network = nn.Sequential(nn.Conv2d(2, 2, 1))
    assert multiply_adds(network, (3, 3)) == 36 and next(network.parameters()).device.type == "cpu"


@pytest.mark.slow
def test_a_sweep_trains_scores_and_keeps_weights(tmp_path):
    dataset = write_phantom(tmp_path / "d", subjects=2, size=(32, 32, 32), validation_pairs=1, testing_pairs=0).parent
    sweep = Sweep(str(dataset), ("half_resolution.json",), steps=8, work=str(tmp_path / "work"))
    path = benchmark_eoir(tmp_path / "out", sweep, [1], [2], [1.0], command="")
    start, trained = rows_of(path)
    assert (start["encoder_depth"], start["sdlogj"], start["overlays"]) == ("", "0", "half_resolution")
    assert 0.3 < float(start["dice"]) < 1 and 0.3 < float(trained["dice"]) < 1 and float(trained["sdlogj"]) > 0
    weights = torch.load(next((tmp_path / "work").rglob("model.pt")), weights_only=True)
    assert sum(w.numel() for w in weights.values()) == int(trained["parameters"])
