import io
import json
import math
import os
import random
import subprocess
import sys

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from common.checkpoint import (
    CheckpointBest,
    LoadWeights,
    TrainingState,
    load_checkpoint,
    read_weights,
    save_checkpoint,
)
from common.errors import RegEnvError, RegInputError
from common.tensor_files import to_safetensors


def evaluator_with(value: float) -> Engine:
    engine = Engine(lambda *_: None)
    engine.state.metrics = {"val_dice": value}
    return engine


def test_the_grid_of_the_data_lies_beside_the_best_weights(tmp_path):
    header = {"name": "brains", "orientation": "LIA", "spacing_mm": [1.0, 1.0, 1.0], "labels": {1: "one"}}
    CheckpointBest(nn.Linear(1, 1), str(tmp_path), "val_dice", header=header)(evaluator_with(0.5))
    assert json.loads((tmp_path / "grid.json").read_text()) == {key: header[key] for key in list(header)[:3]}


def test_the_best_weights_stay_and_the_last_follow(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    save = CheckpointBest(network, str(tmp_path), "val_dice")
    for weight, value in ((1.0, 0.5), (2.0, 0.7), (3.0, 0.6)):
        nn.init.constant_(network.weight, weight)
        save(evaluator_with(value))
    loaded = {name: float(torch.load(tmp_path / name, weights_only=True)["weight"]) for name in ("model.pt", "last.pt")}
    assert loaded == {"model.pt": 2.0, "last.pt": 3.0} and names(tmp_path) == [
        "last.pt",
        "model.pt",
        "model.safetensors",
    ]


@pytest.mark.parametrize("installed", [True, False])
def test_beside_the_best_weights_lies_the_same_as_safetensors_or_nothing(tmp_path, monkeypatch, installed):
    network, copy = nn.Linear(1, 1, bias=False), tmp_path / "model.safetensors"
    save = CheckpointBest(network, str(tmp_path), "val_dice")
    copy.write_bytes(b"of an earlier run")
    if not installed:
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    for weight, value in ((1.0, 0.5), (2.0, 0.7), (3.0, 0.6)):
        nn.init.constant_(network.weight, weight)
        save(evaluator_with(value))
    assert float(read_weights(tmp_path / "model.pt")["weight"]) == 2
    assert not installed or float(read_weights(copy)["weight"]) == 2
    assert copy.is_file() == installed


def test_of_an_error_the_lowest_is_the_best_after_a_resume_too(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    save = CheckpointBest(network, str(tmp_path), "val_dice", lower_is_better=True)
    for weight, value in ((1.0, 5.0), (2.0, 3.0)):
        nn.init.constant_(network.weight, weight)
        save(evaluator_with(value))
    resumed = CheckpointBest(network, str(tmp_path), "val_dice", lower_is_better=True)
    resumed.load_state_dict(save.state_dict())
    nn.init.constant_(network.weight, 3.0)
    resumed(evaluator_with(4.0))
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["weight"]) == 2


def test_without_a_metric_the_newest_weights_are_kept(tmp_path):
    network = nn.Linear(1, 1, bias=False)
    save = CheckpointBest(network, str(tmp_path), "val_dice")
    for weight in (1.0, 2.0):
        nn.init.constant_(network.weight, weight)
        save(evaluator_with(math.nan))
    assert float(torch.load(tmp_path / "model.pt", weights_only=True)["weight"]) == 2


def test_weights_come_back(tmp_path):
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    LoadWeights(other, str(tmp_path / "model.pt"), "train")(Engine(lambda *_: None))
    torch.testing.assert_close(other.weight, network.weight)


def test_both_forms_fill_a_network_with_the_same_bits(tmp_path):
    network, filled = nn.Conv3d(2, 3, 3), []
    save_checkpoint(network.state_dict(), tmp_path / "model.pt")
    (tmp_path / "model.safetensors").write_bytes(to_safetensors(load_checkpoint(tmp_path / "model.pt")))
    for name in ("model.pt", "model.safetensors"):
        other = nn.Conv3d(2, 3, 3)
        LoadWeights(other, str(tmp_path / name), "train")(Engine(lambda *_: None))
        filled.append(other.state_dict())
    for key, value in network.state_dict().items():
        assert all(torch.equal(state[key], value) for state in filled)


def test_one_form_under_the_others_suffix_is_refused(tmp_path):
    network = nn.Linear(2, 2)
    torch.save(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "model.pt").write_bytes(to_safetensors(network.state_dict()))
    for name, words in (("model.safetensors", "no safetensors file"), ("model.pt", "no checkpoint")):
        with pytest.raises(RegInputError, match=words):
            LoadWeights(nn.Linear(2, 2), str(tmp_path / name), "train")(Engine(lambda *_: None))


def test_missing_weights_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(RegInputError, match=r"model\.pt is missing.*`train it`"):
        LoadWeights(nn.Linear(1, 1), str(tmp_path / "model.pt"), "train it")(Engine(lambda *_: None))


@pytest.mark.parametrize("content", ["garbage", "truncated", "other network"])
def test_wrong_weights_are_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(3, 3).state_dict(), path)
    if content == "garbage":
        path.write_bytes(b"<html>")
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RegInputError, match="does not hold this network's weights") as error:
        LoadWeights(nn.Linear(2, 2), str(path), "train")(Engine(lambda *_: None))
    assert "\n" not in str(error.value)


def damaged(data: bytes, rng: random.Random, flips: int) -> list[bytes]:
    """Five truncations and ``flips`` copies with one bit turned."""
    copies = [data[: int(len(data) * part)] for part in (0, 0.25, 0.5, 0.75)] + [data[:-1]]
    for _ in range(flips):
        place = rng.randrange(len(data) * 8)
        copy = bytearray(data)
        copy[place // 8] ^= 1 << place % 8
        copies.append(bytes(copy))
    return copies


def test_every_damage_is_seen_where_torch_sees_almost_none(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint({"weight": torch.arange(1000.0), "epoch": 3}, path)
    copies = damaged(path.read_bytes(), random.Random(0), flips=60)
    by_torch = 0
    for copy in copies:
        path.write_bytes(copy)
        with pytest.raises(RegInputError, match="damaged"):
            load_checkpoint(path)
        try:
            torch.load(io.BytesIO(copy), weights_only=True)
        except Exception:
            by_torch += 1
    assert by_torch < len(copies) / 2  # the seal is what finds them


def test_a_checkpoint_is_a_plain_file_of_torch(tmp_path):
    save_checkpoint({"weight": torch.arange(5.0), "epoch": 3}, tmp_path / "c.pt")
    for loaded in (torch.load(tmp_path / "c.pt", weights_only=True), load_checkpoint(tmp_path / "c.pt")):
        assert loaded["epoch"] == 3 and torch.equal(loaded["weight"], torch.arange(5.0))


def test_weights_that_others_saved_are_read_but_sealed_ones_must_be_whole(tmp_path):
    network = nn.Linear(50, 50)
    torch.save(network.state_dict(), tmp_path / "theirs.pt")
    LoadWeights(nn.Linear(50, 50), str(tmp_path / "theirs.pt"), "train")(Engine(lambda *_: None))
    save_checkpoint(network.state_dict(), tmp_path / "ours.pt")
    data = bytearray((tmp_path / "ours.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "ours.pt").write_bytes(data)
    torch.load(tmp_path / "ours.pt", weights_only=True)  # torch alone takes it
    with pytest.raises(RegInputError, match="damaged"):
        LoadWeights(nn.Linear(50, 50), str(tmp_path / "ours.pt"), "train")(Engine(lambda *_: None))


def test_pickled_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    torch.save(Payload(), tmp_path / "evil.pt")
    with pytest.raises(RegInputError, match="no checkpoint"):
        load_checkpoint(tmp_path / "evil.pt", must_be_sealed=False)
    assert not (tmp_path / "canary").exists()


class Run:
    """A run whose whole state is one weight: each epoch adds its number."""

    def __init__(self, folder, resume=False, **settings):
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)
        self.epochs = []
        self.engine = Engine(self.step)
        self.state = TrainingState(str(folder), {"network": self.network}, resume, **settings)
        self.state.attach(self.engine)

    def step(self, engine, _):
        self.epochs.append(engine.state.epoch)
        with torch.no_grad():
            self.network.weight += engine.state.epoch

    def go(self, epochs: int) -> float:
        self.engine.run([0], max_epochs=epochs, epoch_length=1)
        return float(self.network.weight.detach())


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_resumed_run_does_what_is_left_and_two_checkpoints_stay(tmp_path):
    assert Run(tmp_path / "c").go(3) == 6 and names(tmp_path / "c") == ["epoch_00002.pt", "epoch_00003.pt"]
    resumed = Run(tmp_path / "c", resume=True)
    assert resumed.go(5) == 15 and resumed.epochs == [4, 5]
    assert names(tmp_path / "c") == ["epoch_00004.pt", "epoch_00005.pt"]


def test_a_finished_run_has_nothing_left(tmp_path):
    Run(tmp_path).go(3)
    again = Run(tmp_path, resume=True)
    assert again.go(3) == 6 and again.epochs == []


def test_an_interval_spares_epochs_but_not_the_last(tmp_path):
    Run(tmp_path, interval=2).go(5)
    assert names(tmp_path) == ["epoch_00004.pt", "epoch_00005.pt"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, caplog):
    Run(tmp_path).go(3)
    newest = tmp_path / "epoch_00003.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    resumed = Run(tmp_path, resume=True)
    assert resumed.go(4) == 10 and resumed.epochs == [3, 4]
    assert "epoch_00003.pt is damaged" in caplog.text


def test_without_a_good_checkpoint_the_run_is_refused_and_without_any_it_starts(tmp_path, caplog):
    assert Run(tmp_path, resume=True).go(2) == 3 and "starting with the first epoch" in caplog.text
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(RegInputError, match="all 2 checkpoints"):
        Run(tmp_path, resume=True).go(3)
    assert names(tmp_path) == ["epoch_00001.pt", "epoch_00002.pt"]


def test_a_new_run_moves_the_earlier_ones_checkpoints_aside(tmp_path, caplog):
    Run(tmp_path / "c").go(3)
    Run(tmp_path / "c").go(1)
    assert names(tmp_path / "c") == ["epoch_00001.pt"] and "--resume true would have gone on" in caplog.text
    assert names(tmp_path / "c.previous") == ["epoch_00002.pt", "epoch_00003.pt"]


def test_another_networks_checkpoint_is_refused(tmp_path):
    Run(tmp_path).go(1)
    other = Run(tmp_path, resume=True)
    other.state.parts["network"] = nn.Linear(2, 2)
    with pytest.raises(RegInputError, match="does not fit this run's network"):
        other.go(2)


def test_a_changed_number_of_epochs_is_said(tmp_path, caplog):
    Run(tmp_path).go(2)
    Run(tmp_path, resume=True).go(3)
    assert "planned for 2 epochs and now has 3" in caplog.text


def test_what_a_killed_process_was_writing_is_removed_and_a_living_ones_is_not(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        (tmp_path / f".{pid}.epoch_00002.pt").touch()
    Run(tmp_path).go(1)
    assert names(tmp_path) == [f".{os.getpid()}.epoch_00002.pt", "epoch_00001.pt"]


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").touch()
    run = Run(tmp_path / "file" / "c")
    with pytest.raises(RegEnvError, match="cannot be written to"):
        run.go(1)
    assert run.epochs == []


WRITE = """
import resource, signal, sys, torch
from pathlib import Path
from common.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
save_checkpoint(torch.zeros(100_000), Path(sys.argv[1]))
"""


def test_a_full_disk_keeps_the_old_checkpoint_and_leaves_no_stump(tmp_path):
    """A limit on the size of a file is the full disk that needs no other user's rights."""
    path = tmp_path / "epoch_00001.pt"
    save_checkpoint(torch.ones(3), path)
    done = subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, text=True)
    assert "could not be written" in done.stderr.splitlines()[-1] and done.returncode == 1
    assert names(tmp_path) == [path.name] and torch.equal(load_checkpoint(path), torch.ones(3))
