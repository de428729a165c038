"""A bundle under examination by ``verify.py``: a copy, and what MONAI's commands did with the packed one alone."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from monai.bundle import ConfigParser

from common.errors import RegInputError

from .alone import Command, modules_beside, run_alone, served
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

    @property
    def packed(self) -> Path:
        """The bundle packed, and downloaded by the first of :attr:`alone`'s commands into a folder of its own."""
        return self.work / "alone" / self.name

    @cached_property
    def alone(self) -> dict[str, str | None]:
        """What downloading, training, evaluating and inferring failed with, run without the repository, by MONAI.

        Each works in another folder: an empty one, the bundle's root, the one above, and elsewhere with
        ``--bundle_root``. Nothing that the metadata do not name, or those packages need, can be imported, and what
        they name as optional by the last command only.
        """
        archive = pack(self.name, self.work / "zip", self.folder.parent, history=False)  # history: a check of its own
        elsewhere, root = self.work / "elsewhere", self.packed
        for folder in (elsewhere, root.parent):
            folder.mkdir()
        calls = {
            "train": (root, ["configs/train.json"], []),
            "evaluate": (root.parent, [f"{self.name}/configs/{file}.json" for file in ("train", "evaluate")], []),
            "inference": (elsewhere, [str(root / "configs" / "inference.json")], ["--bundle_root", str(root)]),
        }
        with served(archive.parent) as url:
            commands = [self.download(f"{url}/{archive.name}")]
            commands += [self.command(what, *call) for what, call in calls.items()]
            return dict(zip(["download", *calls], run_alone(commands), strict=True))

    def download(self, url: str) -> Command:
        """MONAI's command that downloads the bundle."""
        words = {"name": self.name, "url": url, "bundle_dir": str(self.packed.parent), "progress": "False"}
        argv = ["download", *(word for key, value in words.items() for word in (f"--{key}", value))]
        return Command(str(self.packed.parent), argv, self.hidden(optional=False))

    def command(self, what: str, cwd: Path, files: list[str], more: list[str]) -> Command:
        """MONAI's command for configs of the downloaded bundle, made short."""
        own = [self.config(Path(file).name) for file in files]
        argv = [
            "run",
            "--config_file",
            str(files),
            *more,
            *short_arguments([file for file in own if Path(file).is_file()]),
        ]
        return Command(str(cwd), argv, self.hidden(optional=what == "inference"))

    def hidden(self, optional: bool) -> list[str]:
        """Modules that a person lacks who installed what the metadata name, with or without what they call optional."""
        named = ["monai", "torch", "numpy", *self.metadata.get("required_packages_version", {})]
        return modules_beside([*named, *(self.metadata.get("optional_packages_version", {}) if optional else ())])

    @cached_property
    def weights(self) -> Path:
        """``models/model.pt`` of the bundle, or else the one that the short training wrote."""
        own, short = self.folder / WEIGHTS, self.packed / WEIGHTS
        failure = None if own.is_file() else self.alone["train"]
        if not own.is_file() and not short.is_file():
            raise RegInputError(f"there is no {WEIGHTS}, and the short training wrote none: {failure}")
        return own if own.is_file() else short

    def config(self, file: str) -> str:
        """Path of one config of the copy."""
        return str(self.copy / "configs" / file)


def short_arguments(files: list[str]) -> list[str]:
    """``--id value`` for every entry of ``SHORT`` that the merged configs have."""
    pairs = short_overrides([Path(file) for file in files])
    return [part for key, value in pairs.items() for part in (f"--{key}", json.dumps(value))]


def short_overrides(files: list[Path]) -> dict:
    """The entries of ``SHORT`` whose id the merged configs have, or whose section makes a phantom."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    phantom = str(parser.get("dataset_dir::_target_", "")).endswith(".ensure_phantom")
    return {key: value for key, value in SHORT.items() if key in parser or (phantom and "::" in key)}
