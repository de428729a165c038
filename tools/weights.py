"""Weights trained on the phantom: for `verify`, tests and demonstrations, where nothing else has been trained.

They lie in ``bundles/<name>/models``, where every command of a bundle looks for weights and git does not. What somebody
trained there is left alone. Such weights show that a method works, not how well: the phantom is no anatomy.
"""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import RegInputError
from common.files import save_atomically

from .pack import WEIGHTS, is_untrained, names_of
from .repository import REPOSITORY

__all__ = ["make_weights"]

MARK = "models/phantom.json"
"""Says that this module trained the weights beside it, or is at it: of which sources, with which hash, how long."""
LOG = "models/training.log"


def make_weights(
    asked: str = "all",
    bundles_dir: Path = REPOSITORY / "bundles",
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Train what is not trained, by each bundle's ``train.json`` as it is.

    A training that was stopped goes on; weights of other sources (the bundle's network or configs) are made again.

    Args:
        asked: name of a bundle, or "all" that are trained.
        bundles_dir: folder of the bundles.
        settings: values by the ids of train.json that differ from it.
        say: is told what begins.

    Returns:
        One sentence: what was trained in how many seconds, what was there, what is left as somebody else made it.

    Raises:
        RegInputError: if there is no such bundle, or a training fails; what was made before stays.
    """
    folder = Path(bundles_dir).absolute()
    return summary({name: make_one(folder / name, settings or {}, say) for name in trained_names(asked, folder)})


def trained_names(asked: str, bundles_dir: Path) -> list[str]:
    """The bundles asked for; RegInputError for one that is not there or is not trained."""
    names = names_of(asked, bundles_dir)
    missing = [name for name in names if not (bundles_dir / name / "configs" / "train.json").is_file()]
    if missing:
        raise RegInputError(f"there is no bundle '{missing[0]}' in {bundles_dir}; see what `ls {bundles_dir}` offers.")
    trained = [name for name in names if not is_untrained(bundles_dir / name)]
    if not trained:
        raise RegInputError(f"{asked} has nothing to train, expected a network that is; it registers as it is.")
    return trained


def make_one(folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> float | str:
    """Seconds of a training, or why there was none."""
    sources, mark, weights = sources_of(folder, settings), read_mark(folder), folder / WEIGHTS
    if is_anothers(folder, mark):
        return "left as somebody trained it"
    if mark.get("sources") == sources and "sha256" in mark:
        return "there already"
    resume = mark.get("sources") == sources
    write_mark(folder, {"sources": sources})
    say(f"{folder.name}: {'going on' if resume else 'training'}; {folder / LOG} shows how far")
    started = time.perf_counter()
    train(folder, settings, resume)
    seconds = time.perf_counter() - started
    write_mark(folder, {"sources": sources, "sha256": sha256_of(weights), "seconds": round(seconds, 1)})
    return seconds


def sources_of(folder: Path, settings: Mapping[str, Any]) -> str:
    """Hash of what decides a bundle's weights: its package, train.json and the settings; not of ``common``."""
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode())
    for path in [folder / "configs" / "train.json", *sorted((folder / f"{folder.name}_bundle").glob("*.py"))]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def is_anothers(folder: Path, mark: Mapping[str, Any]) -> bool:
    """Whether what lies in ``models`` was not made here: it has no mark, or other weights than the mark says."""
    weights, checkpoints = folder / WEIGHTS, folder / "models" / "checkpoints"
    if not weights.is_file() and not checkpoints.is_dir():
        return False
    return not mark or ("sha256" in mark and not (weights.is_file() and sha256_of(weights) == mark["sha256"]))


def read_mark(folder: Path) -> dict[str, Any]:
    """What the mark says; nothing where there is none."""
    path = folder / MARK
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except ValueError as error:
        raise RegInputError(f"{path} is damaged ({error}), expected what `make weights` wrote; remove it.") from error


def write_mark(folder: Path, content: Mapping[str, Any]) -> None:
    """Say whose the weights are."""
    text = json.dumps(content, indent=2) + "\n"
    save_atomically(lambda path: path.write_text(text), folder / MARK)


def train(folder: Path, settings: Mapping[str, Any], resume: bool) -> None:
    """Run train.json in a process of its own; RegInputError with its last line if it fails."""
    ids = {**settings, "bundle_root": str(folder), "resume": resume}
    words = [f"--{key}={value}" for key, value in ids.items()]  # fire reads Python: JSON's false would be a text, true
    config = str(folder / "configs" / "train.json")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *words]
    with (folder / LOG).open("w") as log:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        lines = (folder / LOG).read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise RegInputError(f"{folder.name} could not be trained (status {done.returncode}): {last}")


def sha256_of(path: Path) -> str:
    """Hexadecimal hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def summary(outcomes: Mapping[str, float | str]) -> str:
    """The sentence at the end."""
    trained = {name: seconds for name, seconds in outcomes.items() if not isinstance(seconds, str)}
    parts = [f"{name} in {seconds:.0f} s" for name, seconds in trained.items()]
    said = f"trained {', '.join(parts)}: {sum(trained.values()):.0f} s" if parts else "nothing was left to train"
    return "; ".join([said, *(f"{name} {why}" for name, why in outcomes.items() if name not in trained)]) + "."
