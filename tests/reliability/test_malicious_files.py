"""Configs, weights, fields, transforms and data that would run something: found or refused, and nothing has run."""

import hashlib
import json
import logging
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from torch import nn

from common.checkpoint import LoadWeights, TrainingState, save_checkpoint, sealed
from common.errors import RegInputError
from tests.bundles.pairwise import copy_of_bundle
from tests.reliability.hostile_files import PICKLES, WEIGHTS, Canary, write_npz
from tests.reliability.malicious_configs import CONFIGS, EVIL_FILE
from tools.__main__ import main
from tools.lint import lint_config

SUBJECT = "malicious files"


def by_monai(config: dict) -> bool:
    """Whether the canary appears in the working folder where MONAI evaluates every entry of a config."""
    parser = ConfigParser(json.loads(json.dumps(config)))
    for key in ("imports", *config):
        with suppress(Exception):
            parser.get_parsed_content(key)
    return Path("canary").exists() or Path("canary.npy").exists()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with the file that one of the configs names."""
    monkeypatch.chdir(tmp_path)
    Path("evil.json").write_text(json.dumps(EVIL_FILE))
    return tmp_path


@pytest.mark.parametrize("name", CONFIGS)
def test_the_lint_finds_every_malicious_config_and_runs_none(place, ledger, name):
    found = list(lint_config(CONFIGS[name], "toy_bundle"))
    right = bool(found) and not list(place.glob("canary*"))
    ledger.tell(SUBJECT, f"config: {name}", right)
    if ledger.kept:
        ledger.tell_alone(SUBJECT, f"config: {name}", not by_monai(CONFIGS[name]), "MONAI, torch, numpy, pickle")
    assert right


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_malicious_config_does_act(place, name):
    """Without this, a finding above would prove nothing."""
    assert by_monai(CONFIGS[name])


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> tuple[int, list[str]]:
    """Exit status of `regbundles`, and what it says on standard error, by the line."""
    monkeypatch.setattr(sys, "argv", ["regbundles", *map(str, words)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    handlers, status = logging.root.handlers, 0
    try:
        main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        logging.root.handlers = handlers
    return status, [line for line in capsys.readouterr().err.splitlines() if line.strip()]


def image(path: Path) -> Path:
    """A small image with a position."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def save(path: Path, content: bytes) -> Path:
    """A file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def as_weights(place: Path, content: bytes) -> list[str]:
    """`register` with a bundle whose weights these are."""
    bundle = copy_of_bundle("voxelmorph", place)
    save(bundle / "models" / "model.pt", content)
    save(bundle / "models" / "grid.json", b'{"orientation": "RAS", "spacing_mm": [1, 1, 1]}')
    return ["register", image(place / "f.nii.gz"), image(place / "m.nii.gz"), "--bundle", bundle, "--out", "out"]


def as_prediction(place: Path, content: bytes) -> list[str]:
    """`evaluate` of a folder of fields with this one."""
    pair = {role: str(image(place / f"images/brain_{n}_0000.nii.gz").relative_to(place)) for role, n in ROLES.items()}
    pair |= {f"{role}_label": path for role, path in pair.items()}
    header = {"name": "d", "orientation": "RAS", "spacing_mm": [1, 1, 1], "labels": {"1": "one"}}
    (place / "datalist.json").write_text(json.dumps(header | {"validation": [pair]}))
    save(place / "fields" / "disp_0001_0002.npz", content)
    return ["evaluate", "--dataset-dir", place, "--method", "fields=fields", "--out", "out"]


def as_transform(suffix: str) -> Callable[[Path, bytes], list[str]]:
    """`convert` of a file of that name."""
    return lambda place, content: [
        *("convert", save(place / f"evil{suffix}", content), "out.nii.gz"),
        *("--reference", image(place / "f.nii.gz")),
    ]


def as_image(suffix: str) -> Callable[[Path, bytes], list[str]]:
    """`register` of a file of that name."""
    return lambda place, content: [
        *("register", save(place / f"evil{suffix}", content), image(place / "m.nii.gz"), "--out", "out"),
        *("--affine", "none"),
    ]


def as_points(suffix: str) -> Callable[[Path, bytes], list[str]]:
    """`apply` to landmarks in a file of that name."""
    matrix = b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    return lambda place, content: [
        *("apply", save(place / "affine.txt", matrix), "--points", save(place / f"evil{suffix}", content)),
        *("--out", "out.csv"),
    ]


def as_data(place: Path, content: bytes) -> list[str]:
    """`data prepare` of a release of pickles."""
    save(place / "raw" / "OASIS_L2R_2021_task03" / "All" / "p_0001.pkl", content)
    return ["data", "prepare", "oasis-transmorph", "--raw", "raw", "--out", "out", "--partial", "--workers", "1"]


ROLES = {"fixed": "0001", "moving": "0002"}
TRANSFORMS = (".npz", ".nii.gz", ".nii", ".h5", ".mat", ".txt", ".lta", ".tfm")
IMAGES = (".nii", ".nii.gz", ".mgz", ".mha", ".nrrd")
POINTS = (".csv", ".fcsv", ".mrk.json", ".vtk")
SMALL = {"pickle": PICKLES["pickle of protocol 4"], "npz": write_npz}
FILES = {
    **{f"data, {kind}": (as_data, make) for kind, make in {**PICKLES, "npz": write_npz}.items()},
    **{f"field of a prediction, {kind}": (as_prediction, make) for kind, make in SMALL.items()},
    **{f"transform {end}, {kind}": (as_transform(end), make) for end in TRANSFORMS for kind, make in SMALL.items()},
    **{f"image {end}": (as_image(end), SMALL["pickle"]) for end in IMAGES},
    **{f"landmarks {end}": (as_points(end), SMALL["pickle"]) for end in POINTS},
}
SLOW = {f"weights, {kind}": (as_weights, make) for kind, make in WEIGHTS.items()}
"""A network is built for each."""


def unpickled(content: bytes, name: str) -> None:
    """What each library's own reader does with such a file, as code of this field calls it."""
    path = Path("alone")
    path.write_bytes(content)
    with suppress(Exception):
        if name.startswith("weights"):
            torch.load(path)
        elif content.startswith(b"PK"):
            np.load(path, allow_pickle=True)["arr_0"]  # as Learn2Reg's evaluation does
        else:
            pickle.loads(content)


@pytest.mark.parametrize("name", [*FILES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_no_file_runs_anything_and_each_is_refused_in_one_sentence(place, ledger, monkeypatch, capsys, name):
    words, make = (FILES | SLOW)[name]
    canary = place / "canary"
    content = make(Canary(canary))
    status, said = run(words(place, content), monkeypatch, capsys)
    right = not canary.exists() and status == 2 and len(said) == 1
    ledger.tell(SUBJECT, name, right)
    if ledger.kept:
        unpickled(content, name)
        ledger.tell_alone(SUBJECT, name, not canary.exists(), "MONAI, torch, numpy, pickle")
    assert right, (status, said)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_run_resumes_from_no_checkpoint_that_would_run_something(place, ledger, kind, caplog):
    """The one before it is taken; its seal is right, as whoever forged it could make it."""
    network = nn.Linear(2, 2)
    good = {"epoch": 1, "max_epochs": 3, "parts": {"network": network.state_dict()}}
    save_checkpoint(good, place / "epoch_00001.pt")
    save(place / "epoch_00002.pt", sealed(WEIGHTS[kind](Canary(place / "canary"))))
    resumed, engine = nn.Linear(2, 2), Engine(lambda *_: None)
    TrainingState(str(place), {"network": resumed}, resume=True).attach(engine)
    engine.run([0], max_epochs=3)
    right = not (place / "canary").exists() and torch.equal(resumed.weight, network.weight)
    ledger.tell(SUBJECT, f"checkpoint, {kind}", right)
    assert right and "epoch_00002.pt is no checkpoint" in caplog.text


def test_weights_of_another_hash_than_published_are_not_even_opened(place, ledger, monkeypatch):
    """Sound weights that are not the bundle's own are refused as well."""
    save_checkpoint(nn.Linear(2, 2).state_dict(), place / "models" / "model.pt")
    published = hashlib.sha256(b"the published weights").hexdigest()
    entry = f"large_files:\n- path: models/model.pt\n  url: https://example.org\n  hash_val: {published}\n"
    (place / "large_files.yml").write_text(entry)
    opened = []
    monkeypatch.setattr(torch, "load", lambda *arguments, **_: opened.append(arguments))
    with pytest.raises(RegInputError, match=f"large_files.yml states {published}; fetch it again") as caught:
        LoadWeights(nn.Linear(2, 2), str(place / "models" / "model.pt"), "train")(Engine(lambda *_: None))
    ledger.tell(SUBJECT, "weights of another hash", not opened and "\n" not in str(caught.value))
    assert not opened
