"""`make weights`: what is trained on the phantom, what goes on, and what is somebody else's."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from common.checkpoint import load_checkpoint, read_weights, save_checkpoint
from common.errors import RegInputError
from tests.bundles.pairwise import BUNDLES
from tools import weights as module
from tools.weights import make_weights, trained_names

QUICK = {
    "dataset_dir::size": [32, 32, 32],
    "dataset_dir::subjects": 2,
    "dataset_dir::validation_pairs": 1,
    "dataset_dir::testing_pairs": 1,
    "max_epochs": 2,
    "steps_per_epoch": 1,
    "val_interval": 1,
    "encoder": [4, 8],
    "decoder": [8, 8, 4],
    "kernel_size": 5,
}
"""A training of seconds."""


def copy_of(name: str, folder: Path) -> Path:
    left_out = shutil.ignore_patterns("eval", "models", "__pycache__")
    return Path(shutil.copytree(BUNDLES / name, folder / name, ignore=left_out))


@pytest.fixture
def trainings(monkeypatch) -> list[tuple[str, bool]]:
    """What was trained, and whether it went on; a training here takes no time and gives its number as the weight."""
    told: list[tuple[str, bool]] = []

    def train(folder: Path, settings: dict, resume: bool) -> None:
        told.append((folder.name, resume))
        if settings.get("stop"):
            raise RegInputError("stopped")
        save_checkpoint({"weight": torch.tensor([float(len(told))])}, folder / "models" / "model.pt")

    monkeypatch.setattr(module, "train", train)
    return told


def quiet(line: str) -> None:
    """Say nothing."""


def test_all_but_what_trains_nothing_are_trained():
    names = trained_names("all", BUNDLES)
    assert {"eoir", "voxelmorph"} <= set(names) and not {"ncf", "svf"} & set(names)


def test_what_is_trained_is_not_trained_again(tmp_path, trainings):
    copy_of("voxelmorph", tmp_path)
    said = [make_weights("voxelmorph", tmp_path, say=quiet) for _ in range(2)]
    assert trainings == [("voxelmorph", False)]
    assert said[0].startswith("trained voxelmorph in ") and said[0].endswith(" s.")
    assert said[1] == "nothing was left to train; voxelmorph there already."


def test_what_was_stopped_goes_on(tmp_path, trainings):
    copy_of("voxelmorph", tmp_path)
    with pytest.raises(RegInputError, match="stopped"):
        make_weights("voxelmorph", tmp_path, {"stop": 1}, say=quiet)
    with pytest.raises(RegInputError, match="stopped"):
        make_weights("voxelmorph", tmp_path, {"stop": 1}, say=quiet)
    make_weights("voxelmorph", tmp_path, say=quiet)  # other settings: from the first epoch on
    assert [resume for _, resume in trainings] == [False, True, False]


@pytest.mark.parametrize("changed", ["configs/train.json", "voxelmorph_bundle/network.py"])
def test_weights_of_other_sources_are_made_again(tmp_path, trainings, changed):
    folder = copy_of("voxelmorph", tmp_path)
    make_weights("voxelmorph", tmp_path, say=quiet)
    with (folder / changed).open("a") as file:
        file.write("\n")
    make_weights("voxelmorph", tmp_path, say=quiet)
    assert [resume for _, resume in trainings] == [False, False]


@pytest.mark.parametrize("when", ["before", "after", "unfinished"])
def test_what_somebody_trained_is_left_alone(tmp_path, trainings, when):
    folder = copy_of("voxelmorph", tmp_path)
    if when == "after":
        make_weights("voxelmorph", tmp_path, say=quiet)
    count, theirs = len(trainings), folder / "models" / "model.pt"
    if when == "unfinished":
        theirs = folder / "models" / "checkpoints" / "epoch_00001.pt"
    save_checkpoint({"weight": torch.tensor([0.5])}, theirs)
    assert make_weights("voxelmorph", tmp_path, say=quiet).endswith("voxelmorph left as somebody trained it.")
    assert len(trainings) == count and float(load_checkpoint(theirs)["weight"]) == 0.5


@pytest.mark.parametrize("name", ["svf", "nothing"])
def test_what_cannot_be_trained_is_refused(name):
    with pytest.raises(RegInputError, match=r"nothing to train|there is no bundle"):
        make_weights(name, BUNDLES, say=quiet)


@pytest.mark.slow
def test_a_training_that_fails_is_told_by_its_last_line_and_others_sources_begin_anew(tmp_path):
    """Weights of the first network would not fit the second: neither does its checkpoint."""
    folder = copy_of("voxelmorph", tmp_path)
    with pytest.raises(RegInputError, match=r"could not be trained \(status 1\): keep is 2 and interval 0"):
        make_weights("voxelmorph", tmp_path, QUICK | {"checkpoint_interval": 0}, quiet)
    for encoder in ([4, 8], [6, 8]):
        make_weights("voxelmorph", tmp_path, QUICK | {"encoder": encoder}, quiet)
        weights, copy = (read_weights(folder / "models" / f"model.{form}") for form in ("pt", "safetensors"))
        assert len(weights["down.0.0.bias"]) == encoder[0] and weights.keys() == copy.keys()
        assert all(torch.equal(value, copy[key]) for key, value in weights.items())
    assert json.loads((folder / "models" / "phantom.json").read_text())["seconds"] > 0
