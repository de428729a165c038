"""A bundle's inference over a section of a data set, in a process of its own that keeps its network warm."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from common.errors import RegInputError, first_line

from .predictions import Folder
from .register import merged

__all__ = ["BundleRun"]

SET_HERE = ("bundle_root", "dataset_dir", "section", "output_dir")


@dataclass(frozen=True)
class BundleRun:
    """``monai.bundle run`` of a bundle's ``configs/inference.json``.

    Args:
        root: the bundle's folder, in the repository, packed or downloaded.
        overlays: configs over it: names in its ``configs``, or paths.
        overrides: values by id, as on MONAI's command line, such as ``{"ckpt_path": "model.pt"}``.
    """

    root: Path
    overlays: Sequence[str] = ()
    overrides: Mapping[str, str] | None = None

    def check(self) -> None:
        """Raise RegInputError if a config or the weights are missing, or an override is ours to set."""
        for path in self.configs:
            if not path.is_file():
                raise RegInputError(f"{path} is missing, expected a config; name one in {self.root / 'configs'}.")
        taken = sorted(set(self.overrides or {}) & set(SET_HERE))
        if taken:
            raise RegInputError(f"the override of {taken} was refused, as evaluate itself sets {', '.join(SET_HERE)}.")
        parser = merged(self.configs)
        lacking = [key for key in SET_HERE if key not in parser]
        if lacking:
            raise RegInputError(
                f"{self.configs[0]} has no {', '.join(lacking)}, expected the ids {', '.join(SET_HERE)}; see a bundle "
                "of this collection."
            )
        self.check_overrides(parser)
        self.check_weights(parser)

    def check_overrides(self, parser: ConfigParser) -> None:
        """Raise RegInputError for an id that no part of the config would read: MONAI takes any."""
        for key in self.overrides or {}:
            parent = key.rpartition("::")[0] or key
            if parent not in parser:
                raise RegInputError(
                    f"the override of '{key}' was given, but {self.configs[0]} has no '{parent}'; correct the id."
                )

    def check_weights(self, parser: ConfigParser) -> None:
        """Raise RegInputError if the config names weights that are not there, or overrides spoil it."""
        try:
            parser.update({**(self.overrides or {}), "bundle_root": str(self.root.absolute())})
            path = parser.get_parsed_content("ckpt_path") if "ckpt_path" in parser else None
        except Exception as error:  # whatever an expression raises
            if not self.overrides:
                raise
            raise RegInputError(
                f"the overrides of {', '.join(self.overrides)} cannot be used ({first_line(error)}), expected ids and "
                f"values as in {self.configs[0]}; correct them."
            ) from error
        if path is not None and not Path(str(path)).is_file():
            raise RegInputError(
                f"{path} is missing, expected the weights of {self.root}; train the bundle, or name them with "
                "--override NAME:ckpt_path=PATH."
            )

    @property
    def device_type(self) -> str:
        """What the config names with the overrides, "cpu" or "cuda"; empty if it names none."""
        parser = merged(self.configs)
        parser.update(dict(self.overrides or {}))
        return torch.device(parser.get_parsed_content("device")).type if "device" in parser else ""

    def run(self, dataset_dir: str, section: str, out: Path) -> Folder:
        """Register every pair of the section into ``out``; what the bundle prints goes to our standard error.

        Raises:
            RegInputError: if the bundle fails, with the last line that it printed.
        """
        process = subprocess.Popen(self.command(dataset_dir, section, out), stderr=subprocess.PIPE, text=True)
        last = ""
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        if process.wait():
            raise RegInputError(f"{self.root} failed with status {process.returncode}: {last}")
        return Folder(out)

    def command(self, dataset_dir: str, section: str, out: Path) -> list[str]:
        """The command line, which runs in the present working directory."""
        ids = {
            **(self.overrides or {}),
            "bundle_root": self.root.absolute(),
            "dataset_dir": Path(dataset_dir).expanduser().absolute(),
            "section": section,
            "output_dir": out.absolute(),
        }
        files = str([str(path) for path in self.configs])
        words = [f"--{key}={value}" for key, value in ids.items()]
        return [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, *words]

    @property
    def configs(self) -> list[Path]:
        """inference.json and the overlays; a name without a folder is one of the bundle's own configs."""
        own = self.root / "configs"
        return [own / "inference.json", *(own / o if Path(o).name == o else Path(o) for o in self.overlays)]
