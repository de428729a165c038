"""Packed bundles offline, read-only, under a name with spaces and other letters, from another folder; all at once."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.datalist import GRID_NAME, read_datalist, read_header
from common.phantom import write_phantom
from tests.bundles.pairwise import BUNDLES, RESULTS
from tests.reliability.networks import SETTINGS, TRAINED, save_weights
from tools.alone import FOLDER, Command, alone_environment
from tools.pack import packed_files
from tools.repository import REPOSITORY

SUBJECT = "bundles elsewhere"
CONDITIONS = "offline, read-only, under an odd name, from another folder"
NAMES = ["svf", *sorted(set(SETTINGS) - {"svf"})]
GRID_KEYS = ("name", "orientation", "spacing_mm")
READ_ONLY = "cannot be written to"
QUICK = {"affine": "none", "check_starts": 0, "progress": False, "device": "$torch.device('cpu')"}
TIMEOUT_S = 900


def test_the_table_names_every_bundle():
    assert set(NAMES) == {path.name for path in BUNDLES.iterdir()}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder of an odd name with a phantom data set; what is in it can be deleted in the end."""
    folder = tmp_path_factory.mktemp("elsewhere") / "Zweites Gerät, été 2026 (影像)"
    write_phantom(folder / "scans", subjects=2, size=(32, 32, 32), validation_pairs=1, testing_pairs=1)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)


def placed(name: str, place: Path) -> Path:
    """A packed bundle, with weights if it has any, that may not be written to."""
    root = place / "bundles" / name
    for path, content in packed_files(name, BUNDLES, False, REPOSITORY / "common").items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    if name in TRAINED:
        (root / "models").mkdir()
        save_weights(name, root / "models")
        header = read_header(str(place / "scans"))
        (root / "models" / GRID_NAME).write_text(json.dumps({key: header[key] for key in GRID_KEYS}))
    for path in [*root.rglob("*"), root]:
        path.chmod(path.stat().st_mode & 0o555)
    return root


def command(root: Path, place: Path, **ids: object) -> Command:
    """`monai.bundle run` of a bundle's inference over the phantom pair, from a folder beside."""
    pair = read_datalist(str(place / "scans"), "testing")[0]
    ids = {"bundle_root": str(root), "fixed": pair["fixed"], "moving": pair["moving"], **SETTINGS[root.name], **ids}
    words = [word for key, value in {**ids, **QUICK}.items() for word in (f"--{key}", as_word(value))]
    (place / "work").mkdir(exist_ok=True)
    return Command(str(place / "work"), ["run", "--config_file", str(root / "configs" / "inference.json"), *words])


def as_word(value: object) -> str:
    """A value as MONAI's command line reads it."""
    return value if isinstance(value, str) else repr(value)


def run(commands: list[Command], root: Path, place: Path) -> list[str | None]:
    """What each command failed with, one after the other in a process that meets every obstacle."""
    results = place / "results.json"
    words = [Path(__file__).with_name("offline.py"), FOLDER / "commands.py", results, root]
    text = json.dumps([one._asdict() for one in commands])
    process = subprocess.run(
        [sys.executable, *map(str, words)],
        input=text,
        env=alone_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert results.is_file(), process.stderr[-3000:]
    return json.loads(results.read_text())


def contents(root: Path) -> dict[str, str]:
    """Every file below a folder by its hash."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_every_bundle_registers_where_everything_is_in_its_way(place, ledger, count):
    names = NAMES[: count(len(NAMES), 1)]
    roots = [placed(name, place) for name in names]
    before = [contents(root) for root in roots]
    outs = [place / f"{name}: résultat" for name in names]
    commands = [
        command(root, place, output_dir=str(out), own_folder=True) for root, out in zip(roots, outs, strict=True)
    ]
    *failures, refused = run([*commands, command(roots[0], place)], roots[0], place)
    wrong = {}
    for name, root, out, files, failure in zip(names, roots, outs, before, failures, strict=True):
        right = (
            failure is None and RESULTS - {"warped_label.nii.gz"} <= set(os.listdir(out)) and contents(root) == files
        )
        wrong |= {} if right else {name: failure}
        ledger.tell(SUBJECT, f"{name}: {CONDITIONS}", right)
    said = READ_ONLY in (refused or "")
    ledger.tell(SUBJECT, f"{names[0]}, its own folder as the output", said)
    assert wrong == {}
    assert said, refused
