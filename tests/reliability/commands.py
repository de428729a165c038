"""Commands that take a second on small data, for tests that kill them, starve them or run them side by side."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.phantom import write_phantom
from tests.bundles.pairwise import BUNDLES
from tests.bundles.trained import NETWORKS, STEPS
from tests.tools.data.own_scans import write_subject

__all__ = ["Command", "evaluate_command", "prepare_command", "register_command", "train_command"]


@dataclass(frozen=True)
class Command:
    """A command of `regbundles` and where it writes.

    Attributes:
        name: of it.
        words: of its line (:func:`tests.reliability.warm.start`), by the folder that it is to fill.
    """

    name: str
    words: Callable[[Path], list[str]]


def prepare_command(folder: Path, subjects: int = 3, workers: int = 1) -> Command:
    """`regbundles data prepare folder` over small brains with labels and landmarks, which it makes in ``folder``."""
    for number in range(subjects):
        write_subject(folder / "raw", f"subject{number}", 0.96 + 0.04 * number)
    words = ["--images", str(folder / "raw"), "--anatomy", "brain", "--validation", "2", "--name", "mine"]
    words += ["--workers", str(workers)]
    return Command("prepare", lambda out: ["data", "prepare", "folder", *words, "--out", str(out)])


def phantom(folder: Path, pairs: int) -> str:
    """A data set of small phantoms in ``folder``, with so many pairs to test; its path."""
    if not folder.exists():
        write_phantom(folder, subjects=2, size=(16, 16, 16), validation_pairs=1, testing_pairs=pairs)
    return str(folder)


def register_command(folder: Path, pairs: int = 3) -> Command:
    """`regbundles register` over a list of small phantom pairs, which it makes in ``folder``, in two steps each."""
    data = phantom(folder / "data", pairs)
    (folder / "short.json").write_text(json.dumps({"levels": [[2, 2, 2]], "check_starts": 0}))
    words = ["--dataset-dir", data, "--section", "testing", "--overlay", str(folder / "short.json"), "--no-picture"]
    return Command("register", lambda out: ["register", *words, "--out", str(out)])


def evaluate_command(folder: Path, pairs: int = 2) -> Command:
    """`regbundles evaluate` of the headers alone over small phantom pairs, which it makes in ``folder``."""
    words = ["--dataset-dir", phantom(folder / "data", pairs), "--section", "testing", "--method", "before=none"]
    return Command("evaluate", lambda out: ["evaluate", *words, "--out", str(out)])


def train_command(folder: Path) -> Command:
    """A training of two steps through `monai.bundle run` on small phantoms, which it makes in ``folder``."""
    config = BUNDLES / "voxelmorph" / "configs" / "train.json"
    ids = NETWORKS["voxelmorph"] | STEPS | {"dataset_dir": phantom(folder / "data", 1), "device": "cpu"}

    def words(out: Path) -> list[str]:
        own = ids | {"bundle_root": config.parents[1], "output_dir": out / "eval", "ckpt_dir": out / "models"}
        return ["monai.bundle", "run", f"--config_file={config}", *(f"--{key}={value}" for key, value in own.items())]

    return Command("train", words)
