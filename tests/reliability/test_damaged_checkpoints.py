"""Checkpoints cut at five places and with single bits turned, as disks and transfers do it.

A run that is resumed has to go on from the checkpoint before; weights have to be refused. A damage that leaves every
number as it was may be read: of weights, whose seal it can hit so that they pass for a file of another program's.
"""

import io
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import Tensor, nn

from common.checkpoint import LoadWeights, TrainingState, save_checkpoint
from common.errors import RegInputError
from tools.benchmark.training import bits, damaged_copies

SUBJECT = "damaged checkpoints"
TRUNCATIONS_AND_FLIPS = 305


def network(seed: int) -> nn.Module:
    """A small network of its own weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(2, 4, 3), nn.InstanceNorm3d(4, affine=True), nn.Conv3d(4, 3, 3))


def trained(folder: Path, epochs: int) -> nn.Module:
    """A run of so many epochs with Adam that keeps its checkpoints in a folder."""
    model = network(seed=0)
    optimizer = torch.optim.Adam(model.parameters())

    def step(*_: object) -> None:
        optimizer.zero_grad()
        model(torch.ones(1, 2, 6, 6, 6)).square().mean().backward()
        optimizer.step()

    engine = Engine(step)
    TrainingState(str(folder), {"network": model, "optimizer": optimizer}).attach(engine)
    engine.run([0], max_epochs=epochs)
    return model


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts hold the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def goes_on_from_the_one_before(folder: Path, before: Mapping[str, Tensor]) -> bool:
    """Whether a run that resumes in this folder takes the first epoch's weights."""
    model = network(seed=1)
    optimizer = torch.optim.Adam(model.parameters())
    engine = Engine(lambda *_: None)
    TrainingState(str(folder), {"network": model, "optimizer": optimizer}, resume=True).attach(engine)
    engine.run([0], max_epochs=1)  # which is done: nothing is trained, nothing saved
    return engine.state.epoch == 1 and equal(model.state_dict(), before)


def refused_or_intact(path: Path, saved: Mapping[str, Tensor]) -> bool:
    """Whether weights are refused, or are every bit what was saved."""
    model = network(seed=1)
    try:
        LoadWeights(model, str(path), "train")(Engine(lambda *_: None))
    except RegInputError as error:
        return "\n" not in str(error)
    return equal(model.state_dict(), saved)


def by_torch(copy: bytes, saved: object) -> bool:
    """The same of ``torch.load`` alone: it refuses, or returns every bit that was saved."""
    try:
        return bits(torch.load(io.BytesIO(copy), weights_only=True)) == bits(saved)
    except Exception:  # of many kinds
        return True


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Where two epochs left their checkpoints, and the first one's weights."""
    folder = tmp_path_factory.mktemp("run")
    before = trained(folder / "first", epochs=1).state_dict()
    trained(folder / "both", epochs=2)
    return folder / "both", before


def test_an_undamaged_checkpoint_is_taken(run):
    """Or falling back would prove nothing."""
    folder, before = run
    assert not goes_on_from_the_one_before(folder, before)


def test_no_damaged_checkpoint_is_gone_on_from(run, tmp_path, ledger, count):
    folder, before = run
    newest = sorted(folder.glob("*.pt"))[-1]
    whole, damaged = newest.read_bytes(), tmp_path / newest.name
    last = torch.load(newest, weights_only=True)
    (tmp_path / "epoch_00001.pt").write_bytes((folder / "epoch_00001.pt").read_bytes())
    wrong = []
    for number, copy in enumerate(damaged_copies(whole, count(TRUNCATIONS_AND_FLIPS, 40), random.Random(0))):
        damaged.write_bytes(copy)
        right = goes_on_from_the_one_before(tmp_path, before)
        wrong += [] if right else [number]
        ledger.tell(SUBJECT, f"checkpoint {number}", right)
        if ledger.kept:
            ledger.tell_alone(SUBJECT, f"checkpoint {number}", by_torch(copy, last), "torch")
    assert wrong == []


def test_no_damaged_weights_are_filled_in(tmp_path, ledger, count):
    path, saved = tmp_path / "model.pt", network(seed=0).state_dict()
    save_checkpoint(saved, path)
    wrong = []
    for number, copy in enumerate(
        damaged_copies(path.read_bytes(), count(TRUNCATIONS_AND_FLIPS, 40), random.Random(1))
    ):
        path.write_bytes(copy)
        right = refused_or_intact(path, saved)
        wrong += [] if right else [number]
        ledger.tell(SUBJECT, f"weights {number}", right)
        if ledger.kept:
            ledger.tell_alone(SUBJECT, f"weights {number}", by_torch(copy, saved), "torch")
    assert wrong == []
