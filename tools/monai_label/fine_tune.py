"""Training on the studies that have labels: prepared as ``regbundles data prepare folder`` does, trained by MONAI."""

import csv
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monailabel.interfaces.tasks.train import TrainTask

from common.datalist import GRID_NAME
from common.errors import RegEnvError, RegInputError
from common.files import require_writable, save_atomically
from common.volumes import open_volume
from common.weights import large_files

from ..data.folder import prepare
from ..data.recipe import Recipe
from .parameters import Training
from .served import ServedBundle
from .studies import Studies

__all__ = ["FineTune", "can_train"]

logger = logging.getLogger(__name__)

LEAST = 4  # studies with a label: a pair to train on and another one to validate on
PREVIOUS = "model_previous.pt"


def can_train(bundle: ServedBundle) -> bool:
    """Whether a bundle has weights, and a training that takes any number of epochs (not one in stages)."""
    path = bundle.root / "configs" / "train.json"
    return bundle.loader is not None and path.is_file() and isinstance(json.loads(path.read_text())["max_epochs"], int)


class FineTune(TrainTask):
    """A bundle's train.json, from its present weights, over the studies with a label.

    The new weights take the place of the old ones, which stay beside them as ``model_previous.pt``.

    Args:
        bundle: to train.
        device: such as "cpu"; None: the bundle's choice.
    """

    def __init__(self, bundle: ServedBundle, device: str | None = None) -> None:
        super().__init__(bundle.description)
        self.bundle = bundle
        self.device = device

    def info(self) -> dict[str, Any]:
        """What the viewer is told."""
        return super().info() | {"version": self.bundle.version}

    def config(self) -> dict[str, Any]:
        """The options that the viewer shows."""
        return {"max_epochs": Training().max_epochs, "val_split": Training().val_split}

    def __call__(self, request: Mapping[str, Any], datastore: Studies) -> dict[str, Any]:
        """Train; returns how many studies trained and validated.

        Raises:
            RegInputError: if fewer than four studies have a label, or they do not come onto one grid.
            RegEnvError: if the training fails or the weights cannot be written.
        """
        asked = Training.read(dict(request))
        check_trainable(self.bundle, datastore)
        require_writable(self.bundle.weights.parent)
        with tempfile.TemporaryDirectory(prefix="fine_tune_") as folder:
            work = Path(folder)
            sections = sections_of(datastore.labelled(), asked.val_split)
            data = self._prepare(datastore, sections, work)
            run(self._command(data, work, asked))
            self._publish(work / "models")
        count = list(sections.values()).count
        return {"training": count("training"), "validation": count("validation"), "max_epochs": asked.max_epochs}

    def _prepare(self, studies: Studies, sections: Mapping[str, str], work: Path) -> Path:
        """Bring the labelled studies onto the grid that the network was trained on; the data set's folder."""
        with (work / "studies.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "label", "section"])
            table.writerows([studies.image_path(k), studies.final_label(k), sections[k]] for k in sections)
        (work / "labels.json").write_text(json.dumps({str(v): name for name, v in self.bundle.labels.items()}))
        images = [studies.image_path(name) for name in sections]
        recipe = Recipe("other", **self._trained_grid(), **alignment_of(images))
        options = {"label_names": str(work / "labels.json"), "name": "studies", "workers": 1}
        return prepare(str(work / "studies.csv"), str(work / "data"), recipe, **options).parent

    def _trained_grid(self) -> dict[str, Any]:
        """Orientation and spacing beside the weights; nothing where they do not say it."""
        path = self.bundle.weights.with_name(GRID_NAME)
        if not path.is_file():
            return {}
        grid = json.loads(path.read_text())
        return {"orientation": grid["orientation"], "spacing": tuple(grid["spacing_mm"])}

    def _command(self, data: Path, work: Path, asked: Training) -> list[str]:
        """The command line; an overlay lets the training start from the present weights."""
        overlay = work / "from_present_weights.json"
        loader = {**self.bundle.loader, "path": str(self.bundle.weights)}
        overlay.write_text(json.dumps({"+train::handlers": [loader]}))
        ids = {
            "bundle_root": self.bundle.root,
            "dataset_dir": data,
            "output_dir": work / "eval",
            "ckpt_dir": work / "models",
            "max_epochs": asked.max_epochs,
            "val_interval": 1,
        }
        device = asked.device or self.device
        ids |= {} if device is None else {"device": device}
        files = str([str(self.bundle.root / "configs" / "train.json"), str(overlay)])
        words = [f"--{key}={value}" for key, value in ids.items()]
        return [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, *words]

    def _publish(self, trained: Path) -> None:
        """Put the best weights and their grid into the bundle."""
        weights = self.bundle.weights
        save_atomically(lambda path: shutil.copyfile(weights, path), weights.with_name(PREVIOUS))
        for name in (GRID_NAME, weights.name):
            save_atomically(lambda path, name=name: shutil.copyfile(trained / name, path), weights.with_name(name))
        logger.info("%s has new weights; the ones before are %s.", self.bundle.name, PREVIOUS)


def check_trainable(bundle: ServedBundle, studies: Studies) -> None:
    """Raise RegInputError unless a bundle's weights may change and enough studies have a label."""
    if large_files(bundle.root).get(f"models/{bundle.weights.name}"):
        raise RegInputError(
            f"{bundle.name}'s large_files.yml states its weights, and others would be refused, expected a bundle whose "
            "weights may change; serve a copy of it without that entry."
        )
    found = len(studies.labelled())
    if found < LEAST:
        raise RegInputError(
            f"{found} studies have a label with the tag 'final', expected at least {LEAST}, two to train on and two to "
            "validate on; label more."
        )


def sections_of(studies: list[str], share: float) -> dict[str, str]:
    """The last studies by name validate, two at least; the others, two at least, train."""
    validating = min(max(2, round(share * len(studies))), len(studies) - 2)
    first = len(studies) - validating
    return {name: "training" if k < first else "validation" for k, name in enumerate(studies)}


def alignment_of(images: list[Path]) -> dict[str, Any]:
    """How studies come onto one grid: they share it already, or all are aligned to the first."""
    first, *others = (open_volume(path) for path in images)
    if all(shares_grid(first, other) for other in others):
        return {}
    return {"template": images[0], "align": "affine"}


def shares_grid(first: nib.spatialimages.SpatialImage, second: nib.spatialimages.SpatialImage) -> bool:
    """Whether two images have one size and one affine."""
    return first.shape == second.shape and np.allclose(first.affine, second.affine, atol=1e-3)


def run(command: list[str]) -> None:
    """Run a training in a process of its own; its lines go to the log.

    Raises:
        RegEnvError: if it fails, with its last line, which is the sentence where it has one.
    """
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            logger.info("training: %s", line.rstrip())
            last = line.strip() or last
    if process.returncode:
        raise RegEnvError(
            f"the training ended with status {process.returncode} ({last}); the weights are as they were, see the log."
        )
