"""Lists, tables, landmarks and configs with changes of every kind: taken for what they say, or refused in one sentence.

A command that is handed a changed text ends with status 2 and one line, or has found nothing wrong with it. What it
finds nothing wrong with has to be sound by a judge that shares no code with it: a JSON schema, or a count of numbers.
"""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jsonschema
import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import Compose, LoadImaged

from common.datalist import read_trained_grid
from common.errors import RegError
from common.weights import large_files
from tests.bundles.pairwise import copy_of_bundle
from tests.reliability.texts import mutants
from tests.tools.toy import METADATA, write_toy
from tools.__main__ import main
from tools.pack import packed_files

SUBJECT = "texts (json, csv, configs)"
SIZE = (9, 8, 7)
PATH = {"type": "string", "minLength": 1, "not": {"pattern": r"^/|(^|/)\.\.(/|$)"}}
PARTS = ("label", "keypoints", "mask")
PAIR = {f"{role}{part}": PATH for role in ("fixed", "moving") for part in ("", *(f"_{part}" for part in PARTS))}
DATALIST_SCHEMA = {
    "type": "object",
    "required": ["name", "orientation", "spacing_mm", "validation"],
    "properties": {
        "name": {"type": "string"},
        "orientation": {"type": "string", "pattern": "^[LRPAIS]{2,3}$"},
        "spacing_mm": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 2},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "validation": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["fixed", "moving"],
                "properties": PAIR,
                "additionalProperties": False,
            },
        },
    },
}
SECTION_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["fixed", "moving"],
        "properties": {key: {"type": "string", "minLength": 1} for key in PAIR if "keypoints" not in key},
    },
}
"""What whoever reads pairs of images has to ask for; unknown keys, landmarks and where paths lead are ours."""
HEADER = {"name": "texts", "orientation": "RAS", "spacing_mm": [1, 1, 1], "labels": {"1": "one", "2": "two"}}
KEYPOINTS = "1.5,2,3\n4,5.25,6\n0,0,0\n"
LANDMARKS = "# space: LPS mm\nx,y,z,label\n1.5,-2,3,one\n4,5.25,6e0,two\n-10,0,0,three\n"
PAIRS = "fixed,moving,fixed_label,section\na.nii.gz,b.nii.gz,la.nii.gz,training\nc.nii.gz,d.nii.gz,lc.nii.gz,testing\n"
SCANS = "image,label,subject,section\na.nii.gz,la.nii.gz,ann,training\nb.nii.gz,lb.nii.gz,bob,testing\n"
OVERLAY = {
    "levels": [[2, 2, 1]],
    "velocity_sigma": 0.5,
    "similarity": "mse",
    "save::jacobian": "total",
    "handlers": [{"_target_": "common.cohort.SummarizeRegistrations", "save": "@save"}],
    "patience": "$None if @similarity == 'mse' else 5",
}
GRID = {"name": "trained", "orientation": "LIA", "spacing_mm": [1.0, 1.0, 2.0]}
LARGE_FILES = "large_files:\n- path: models/model.pt\n  url: https://example.org/a\n  hash_val: abc\n  hash_type: md5\n"


class Kind(NamedTuple):
    """A kind of text.

    Attributes:
        sound: the text.
        words: writes a changed one into a folder, and says which command reads it; or reads it itself.
        accepted: words in the one sentence by which a command that found no fault ends all the same.
        sound_by: whether another judge finds the text sound, after the command has; by text and folder.
        right_alone: whether MONAI refuses the text or takes it for what it says; ``None``: it has no such texts.
    """

    sound: str
    words: Callable[[Path, bytes], list[str] | None]
    accepted: str | None
    sound_by: Callable[[bytes, Path], bool]
    right_alone: Callable[[bytes, Path], bool] | None = None


def image(path: Path, seed: int = 0, constant: bool = False) -> Path:
    """A small image; a constant one is refused when the pair is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 1 if constant else 3, SIZE).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def dataset(folder: Path, text: bytes | None = None, keypoints: bytes = KEYPOINTS.encode()) -> list[str]:
    """`evaluate` of a data set, which refuses to score label 0 once all of it is read."""
    for name in ("a", "b"):
        for part in ("images", "labels"):
            if not (folder / part / f"{name}.nii.gz").exists():
                image(folder / part / f"{name}.nii.gz", seed=ord(name))
        (folder / f"{name}.csv").write_bytes(keypoints if name == "a" else KEYPOINTS.encode())
    (folder / "datalist.json").write_bytes(DATALIST.encode() if text is None else text)
    return ["evaluate", "--dataset-dir", str(folder), "--method", "m=none", "--labels", "0", "--out", str(folder / "o")]


ITEM = {"fixed": "images/a.nii.gz", "moving": "images/b.nii.gz"}
ITEM |= {"fixed_label": "labels/a.nii.gz", "moving_label": "labels/b.nii.gz"}
ITEM |= {"fixed_keypoints": "a.csv", "moving_keypoints": "b.csv"}
DATALIST = json.dumps(HEADER | {"validation": [ITEM]}, indent=1)


def of_schema(text: bytes, _: Path) -> bool:
    """Whether a datalist keeps the contract, by a schema."""
    return jsonschema.Draft202012Validator(DATALIST_SCHEMA).is_valid(json.loads(text.decode("utf-8-sig")))


def read_by_monai(text: bytes, folder: Path) -> bool:
    """Whether MONAI fails to read a datalist and its images, in whatever way, or the list holds pairs of paths."""
    (folder / "alone.json").write_bytes(text)
    images, labels = ["fixed", "moving"], ["fixed_label", "moving_label"]
    load = Compose([LoadImaged(images), LoadImaged(labels, allow_missing_keys=True)])
    try:
        for item in load_decathlon_datalist(folder / "alone.json", is_segmentation=False, data_list_key="validation"):
            load(item)
    except Exception:
        return True
    section = json.loads(text.decode("utf-8", "replace"))["validation"]
    return jsonschema.Draft202012Validator(SECTION_SCHEMA).is_valid(section)


def three_numbers_a_line(text: bytes, _: Path) -> bool:
    """Whether a table of keypoints is as many lines of as many numbers as its partner's."""
    lines = [line.partition("#")[0].strip() for line in text.decode("utf-8-sig").splitlines()]
    rows = [[float(cell) for cell in line.split(",")] for line in lines if line]
    return len(rows) == 3 and all(len(row) == 3 and np.isfinite(row).all() for row in rows)


def landmarks(folder: Path, text: bytes) -> list[str]:
    """`apply` of the identity to landmarks."""
    (folder / "affine.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (folder / "points.csv").write_bytes(text)
    files = [str(folder / "affine.txt"), "--points", str(folder / "points.csv")]
    return ["apply", *files, "--out", str(folder / "moved.csv"), "--force"]


def all_points_there(text: bytes, folder: Path) -> bool:
    """Whether the identity left a row a row, each with the numbers that stand in the text."""
    moved = [line for line in (folder / "moved.csv").read_text().splitlines() if line[:1] not in ("#", "x")]
    numbers = [float(cell) for line in moved for cell in line.split(",")[:2]]
    stated = [part for line in text.decode("utf-8-sig").split("\n") for part in line.replace('"', "").split(",")]
    found = [abs(float(part)) for part in stated if is_number(part)]
    return bool(moved) and all(np.isclose(found, abs(number)).any() for number in numbers)


def is_number(text: str) -> bool:
    """Whether Python reads a number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def table(command: str, flag: str) -> Callable[[Path, bytes], list[str]]:
    """`data prepare` of a table; its images are empty files, so that it ends when they are opened."""

    def words(folder: Path, text: bytes) -> list[str]:
        for name in ("a", "b", "c", "d", "la", "lb", "lc"):
            (folder / f"{name}.nii.gz").touch()
        (folder / "table.csv").write_bytes(text)
        out = ["--anatomy", "other", "--workers", "1", "--out", str(folder / "o")]
        return ["data", "prepare", command, flag, str(folder / "table.csv"), *out]

    return words


def overlay(folder: Path, text: bytes) -> list[str]:
    """`register` under an overlay; the images have no contrast, so that it ends before anything is optimised."""
    (folder / "overlay.json").write_bytes(text)
    images = [str(image(folder / f"{name}.nii.gz", constant=True)) for name in ("f", "m")]
    words = ["--overlay", str(folder / "overlay.json"), "--similarity", "mse", "--out", str(folder / "o")]
    return ["register", *images, *words, "--quiet"]


def override(folder: Path, text: bytes) -> list[str]:
    """`evaluate` with an override of a bundle that has no weights, which it says in the end."""
    words = dataset(folder)
    words[words.index("m=none")] = f"m={copied(folder)}"
    return [*words, "--override", "m:" + text.decode("utf-8", "replace").replace("\0", "")]


def copied(folder: Path) -> Path:
    """A copy of a bundle."""
    return folder / "voxelmorph" if (folder / "voxelmorph").exists() else copy_of_bundle("voxelmorph", folder)


def metadata(folder: Path, text: bytes) -> None:
    """What `pack` reads of a bundle."""
    if not (folder / "bundles").exists():
        write_toy(folder)
    (folder / "bundles" / "toy" / "configs" / "metadata.json").write_bytes(text)
    packed_files("toy", folder / "bundles", weights=False, common_dir=folder / "common")


def trained_grid(folder: Path, text: bytes) -> None:
    """What a network that is loaded reads beside its weights."""
    (folder / "grid.json").write_bytes(text)
    (folder / "datalist.json").write_text(DATALIST)
    read_trained_grid(str(folder / "model.pt"), str(folder))


def listed(folder: Path, text: bytes) -> None:
    """What a network that is loaded reads beside its folder."""
    (folder / "large_files.yml").write_bytes(text)
    large_files(folder)


def anything(*_: object) -> bool:
    """Where the command itself ends with one sentence whatever the text says, there is nothing more to judge."""
    return True


KINDS = {
    "datalist": Kind(DATALIST, dataset, "labels are [0]", of_schema, read_by_monai),
    "keypoints": Kind(
        KEYPOINTS, lambda folder, text: dataset(folder, keypoints=text), "labels are [0]", three_numbers_a_line
    ),
    "landmarks": Kind(LANDMARKS, landmarks, None, all_points_there),
    "table of pairs": Kind(PAIRS, table("pairs", "--pairs"), "is empty", anything),
    "table of scans": Kind(SCANS, table("folder", "--images"), "is empty", anything),
    "override": Kind("network_def::channels=16", override, "is missing, expected the weights", anything),
    "overlay": Kind(json.dumps(OVERLAY, indent=1), overlay, "expected contrast", anything),
    "metadata": Kind(json.dumps(METADATA, indent=1), metadata, None, anything),
    "grid of weights": Kind(json.dumps(GRID), trained_grid, None, anything),
    "list of large files": Kind(LARGE_FILES, listed, None, anything),
}
SLOW = ("overlay", "override")  # they read whole configs
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in KINDS]
COUNTS = {"overlay": (100, 10), "override": (200, 20), "metadata": (200, 15)}
USUAL = (300, 15)
RIGHT = ("refused", "accepted")


def outcome(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of `regbundles`."""
    monkeypatch.setattr(sys, "argv", ["regbundles", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    handlers = logging.root.handlers
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        logging.root.handlers = handlers
    return 0


def fate(kind: Kind, folder: Path, text: bytes, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    """How a text is met: one of ``RIGHT``, or what is wrong."""
    try:
        words = kind.words(folder, text)
        status, said = (0, "") if words is None else (outcome(words, patch), capsys.readouterr().err)
    except RegError as error:
        status, said = error.exit_status, str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    lines = said.strip().split("\n")
    if status == 2 and (kind.accepted is None or kind.accepted not in said):
        return "refused" if len(lines) == 1 else f"{len(lines)} lines: {said}"
    if status not in (0, 2) or (status == 0 and kind.accepted is not None):
        return f"status {status}: {said}"
    return "accepted" if kind.sound_by(text, folder) else f"wrongly accepted: {said}"


@pytest.mark.parametrize("name", NAMES)
def test_every_sound_text_is_accepted(name, tmp_path, monkeypatch, capsys):
    """Or all refusals below would prove nothing."""
    kind = KINDS[name]
    assert fate(kind, tmp_path, kind.sound.encode(), monkeypatch, capsys) == "accepted"


@pytest.mark.parametrize("name", NAMES)
def test_no_changed_text_ends_in_a_traceback_or_is_taken_for_sound(name, tmp_path, ledger, count, monkeypatch, capsys):
    kind, faults = KINDS[name], []
    seed = list(KINDS).index(name)
    for number, text in enumerate(mutants(kind.sound.encode(), count(*COUNTS.get(name, USUAL)), seed)):
        found = fate(kind, tmp_path, text, monkeypatch, capsys)
        ledger.tell(SUBJECT, f"{name} {number}", found in RIGHT)
        if ledger.kept and kind.right_alone is not None:
            ledger.tell_alone(SUBJECT, f"{name} {number}", kind.right_alone(text, tmp_path), "MONAI")
        faults += [] if found in RIGHT else [f"{text[:400]!r}: {found[-400:]}"]
    assert not faults, f"{len(faults)} faults: " + "\n\n".join(faults[:12])
