"""A bundle under examination by ``verify.py``: a copy, the packed copy alone, and what the latter's commands did."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from monai.bundle import ConfigParser

from common.errors import RegInputError

from .alone import Command, run_alone
from .data.fetch.archive import extract
from .lint import read_config
from .pack import WEIGHTS, pack

__all__ = ["SHORT", "Case", "short_overrides"]

SHORT = {
    "max_epochs": 1,
    "steps_per_epoch": 1,
    "val_interval": 1,
    "iterations": 2,
    "half_resolution_steps": 1,
    "dataset_dir::size": [48, 48, 48],  # four halvings leave 3 voxels, the smallest window of LNCC
    "dataset_dir::subjects": 2,
    "dataset_dir::validation_pairs": 1,
    "dataset_dir::testing_pairs": 1,
}
"""Overrides that make a training short; a config takes those whose id, or the phantom's section, it has."""


@dataclass
class Case:
    """A bundle under examination.

    Args:
        folder: the bundle, only read.
        work: temporary folder.
    """

    folder: Path
    work: Path

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.folder.name

    @cached_property
    def copy(self) -> Path:
        """A copy of the bundle without what runs wrote."""
        target = self.work / "copy" / self.name
        shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns("eval", "models", "__pycache__"))
        return target

    @cached_property
    def metadata(self) -> dict:
        """What metadata.json holds."""
        return read_config((self.folder / "configs" / "metadata.json").read_bytes(), "metadata.json")

    @cached_property
    def packed(self) -> Path:
        """The bundle packed and unpacked again, in a folder of its own."""
        archive = pack(self.name, self.work / "zip", self.folder.parent, history=False)  # a check of its own
        return extract(archive, self.work / "alone", quiet=True) / self.name

    @cached_property
    def alone(self) -> dict[str, str | None]:
        """What training, evaluating and inferring with the packed copy failed with, run without the repository.

        Each works in another folder: the bundle's root, the one above, and elsewhere with ``--bundle_root``.
        """
        elsewhere = self.work / "elsewhere"
        elsewhere.mkdir()
        root = self.packed
        calls = {
            "train": (root, ["configs/train.json"], []),
            "evaluate": (root.parent, [f"{self.name}/configs/{file}.json" for file in ("train", "evaluate")], []),
            "inference": (elsewhere, [str(root / "configs" / "inference.json")], ["--bundle_root", str(root)]),
        }
        commands = [
            Command(str(cwd), ["run", "--config_file", str(files), *more, *short_arguments(cwd, files)])
            for cwd, files, more in calls.values()
            if all((cwd / file).is_file() for file in files)
        ]
        outcomes = iter(run_alone(commands))
        return {
            what: next(outcomes) if all((cwd / file).is_file() for file in files) else f"{files[-1]} is missing"
            for what, (cwd, files, _) in calls.items()
        }

    @cached_property
    def weights(self) -> Path:
        """``models/model.pt`` of the bundle, or else the one that the short training wrote."""
        own, short = self.folder / WEIGHTS, self.packed / WEIGHTS
        if not own.is_file() and not short.is_file():
            raise RegInputError(f"there is no {WEIGHTS}, and the short training wrote none: {self.alone['train']}")
        return own if own.is_file() else short

    def config(self, file: str) -> str:
        """Path of one config of the copy."""
        return str(self.copy / "configs" / file)


def short_arguments(cwd: Path, files: list[str]) -> list[str]:
    """``--id value`` for every entry of ``SHORT`` that the merged configs have."""
    pairs = short_overrides([cwd / file for file in files])
    return [part for key, value in pairs.items() for part in (f"--{key}", json.dumps(value))]


def short_overrides(files: list[Path]) -> dict:
    """The entries of ``SHORT`` whose id the merged configs have, or whose section makes a phantom."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    phantom = str(parser.get("dataset_dir::_target_", "")).endswith(".ensure_phantom")
    return {key: value for key, value in SHORT.items() if key in parser or (phantom and "::" in key)}
