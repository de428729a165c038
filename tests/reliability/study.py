"""A sound study of four small brains, the commands that a person runs on it, and what each of them leaves.

Tests spoil one thing in a :class:`Study` and run the commands in this process: what is imported late is imported once.
"""

import json
import logging
import os
import runpy
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch

from tests.tools.data.own_scans import POINTS, brain, write, write_points
from tools.__main__ import main
from tools.repository import REPOSITORY

__all__ = ["COMMANDS", "Outcome", "Study", "answers_of", "run", "write_scans"]

NAMES = ("ann", "bob", "cyd", "dan")
SHORT = {"levels": [[4, 4, 3]], "check_starts": 0}
ONE_STEP = {"max_epochs": 1, "steps_per_epoch": 1, "val_interval": 1, "channels": 4, "kernel_sizes": [5, 3, 3, 3, 3]}
HEADER = {"name": "study", "orientation": "LAS", "spacing_mm": [6, 6, 6], "labels": {"3": "left", "7": "right"}}


class Outcome(NamedTuple):
    """What a command did.

    Attributes:
        status: exit status.
        seconds: of processor time.
        left: files and folders that were not there before.
    """

    status: int
    seconds: float
    left: list[str]


def write_scans(folder: Path) -> None:
    """Images, labels and landmarks, in the voxels of a datalist (csv) and in mm, of four people."""
    for number, name in enumerate(NAMES):
        image, labels = brain(0.94 + 0.04 * number)
        write(image, folder / f"{name}.nii.gz")
        write(labels, folder / f"{name}_seg.nii.gz")
        write_points(folder / f"{name}_mm.csv", POINTS)
        np.savetxt(folder / f"{name}.csv", POINTS, delimiter=",")


@dataclass
class Study:
    """Where the scans are and what the commands are told of them; tests change any of it.

    Attributes:
        base: working folder of the commands; everything lies below it.
        subject: the files of the scan under test by what they are; it is the moving image, the second row of the
            table, a subject to train on.
        other: the same of the scan that goes with it.
        register: further words of the command.
        ids: further ids of configs under ``monai.bundle run``.
        text: of ``datalist.json``; by default one that goes with the command.
        table: of ``scans.csv``, likewise.
        encode: makes bytes of the lists.
        out: where results go.
    """

    base: Path
    subject: dict[str, Path] = field(init=False)
    other: dict[str, Path] = field(init=False)
    register: list[str] = field(default_factory=list)
    ids: dict[str, object] = field(default_factory=dict)
    text: str | None = None
    table: str | None = None
    encode: Callable[[str], bytes] = str.encode
    out: Path = field(init=False)

    def __post_init__(self) -> None:
        self.subject, self.other = self.files("dan"), self.files("cyd")
        self.out = self.base / "out"

    @property
    def data(self) -> Path:
        """The folder of the scans."""
        return self.base / "data"

    def files(self, name: str) -> dict[str, Path]:
        """Image and label of one of ``NAMES``."""
        return {"image": self.data / f"{name}.nii.gz", "label": self.data / f"{name}_seg.nii.gz"}

    def use(self, path: Path, part: str = "image") -> Path:
        """Put a file in the place of the scan under test, or of what comes with it."""
        self.subject[part] = path
        return path

    def save(self, name: str, voxels: np.ndarray, affine: np.ndarray | None = None, part: str = "image") -> Path:
        """Write a NIfTI file, on the grid of the scan under test unless told otherwise, and use it."""
        like = nib.load(self.files("dan")["image"])
        image = nib.Nifti1Image(voxels, like.affine if affine is None else affine, dtype=voxels.dtype)
        nib.save(image, self.data / name)
        return self.use(self.data / name, part)

    def voxels(self, part: str = "image") -> np.ndarray:
        """What the sound file of the scan under test holds."""
        return np.asarray(nib.load(self.files("dan")[part]).dataobj)

    def item(self, files: dict[str, Path], role: str = "") -> dict[str, str]:
        """A subject of a datalist, or one half of a pair."""
        paths = {part: os.path.relpath(path, self.data) for part, path in files.items()}
        if not role:
            return paths
        return {role if part == "image" else f"{role}_{part}": path for part, path in paths.items()}

    def pair(self, fixed: dict[str, Path], moving: dict[str, Path]) -> dict[str, str]:
        """A pair of a datalist."""
        return self.item(fixed, "fixed") | self.item(moving, "moving")

    def sections(self, training: bool) -> dict[str, list]:
        """A datalist with the scan under test among those to train on, or else in the pair to validate."""
        rest = [self.files(name) for name in ("ann", "bob")]
        learned, scored = ([self.other, self.subject], rest) if training else (rest, [self.other, self.subject])
        return {"training": [self.item(files) for files in learned], "validation": [self.pair(*scored)]}

    def write_lists(self, training: bool) -> None:
        """Write ``datalist.json``, ``scans.csv`` and an overlay that makes registrations short."""
        rows = [",".join(f'"{self.quoted(path)}"' for path in files.values()) for files in (self.other, self.subject)]
        lists = {
            self.data / "datalist.json": self.text or json.dumps(HEADER | self.sections(training), indent=1),
            self.data / "scans.csv": self.table or "\n".join(["image,label", *rows, ""]),
        }
        for path, text in lists.items():
            path.write_bytes(self.encode(text))
        (self.base / "short.json").write_text(json.dumps(SHORT))

    def quoted(self, path: Path) -> str:
        """A path in a cell of a table."""
        return str(path).replace('"', '""')


def regbundles(*words: object) -> Callable[[], None]:
    """A call of the command, as it is made by the shell."""

    def call() -> None:
        sys.argv = ["regbundles", *map(str, words)]
        main()

    return call


def bundle_run(config: str, **ids: object) -> Callable[[], None]:
    """A call of ``python -m monai.bundle run`` for a config under ``bundles``."""

    def call() -> None:
        words = [word for key, value in ids.items() if value is not None for word in (f"--{key}", str(value))]
        sys.argv = ["monai.bundle", "run", "--config_file", str(REPOSITORY / "bundles" / config), *words]
        runpy.run_module("monai.bundle", run_name="__main__")

    return call


def register(study: Study) -> Callable[[], None]:
    """`regbundles register` of two files and their labels."""
    labels = [f"--{role}-label={files['label']}" for role, files in (("fixed", study.other), ("moving", study.subject))]
    plain = ["--affine=none", "--no-picture", "--no-report", "--no-inverse", f"--overlay={study.base / 'short.json'}"]
    images = (study.other["image"], study.subject["image"])
    return regbundles("register", *images, *labels, *plain, f"--out={study.out}", *study.register)


def register_list(study: Study) -> Callable[[], None]:
    """`regbundles register` of the pair that the datalist has to validate on."""
    plain = ["--affine=none", "--no-picture", "--no-report", "--no-inverse", f"--overlay={study.base / 'short.json'}"]
    return regbundles("register", f"--dataset-dir={study.data}", "--section=validation", *plain, f"--out={study.out}")


def prepare(study: Study) -> Callable[[], None]:
    """`regbundles data prepare folder` of a table of two scans."""
    words = ("--images", study.data / "scans.csv", "--anatomy", "brain", "--workers", 1, "--out", study.out)
    return regbundles("data", "prepare", "folder", *words)


def evaluate(study: Study) -> Callable[[], None]:
    """`regbundles evaluate` of the headers alone on one pair."""
    words = ("--dataset-dir", study.data, "--method", "none=none", "--reports", 0, "--out", study.out)
    return regbundles("evaluate", *words)


def train(study: Study) -> Callable[[], None]:
    """One step of a small network's ``train.json``, and a validation."""
    own = {"bundle_root": REPOSITORY / "bundles/eoir", "dataset_dir": study.data}
    folders = {"ckpt_dir": study.out / "models", "output_dir": study.out / "eval"}
    return bundle_run("eoir/configs/train.json", **own | folders | ONE_STEP | study.ids)


def infer(study: Study) -> Callable[[], None]:
    """``inference.json`` of two files."""
    own = {"bundle_root": REPOSITORY / "bundles/svf", "output_dir": study.out, "own_folder": True, **SHORT}
    images = {"fixed": study.other["image"], "moving": study.subject["image"]}
    images |= {"fixed_label": study.other["label"], "moving_label": study.subject["label"]}
    plain = {"affine": "none", "picture": False, "report": False, "inverse": False, "progress": False}
    return bundle_run("svf/configs/inference.json", **own | images | plain | study.ids)


def ask_network(study: Study) -> Callable[[], None]:
    """``inference.json`` of a network of the size of :func:`train`'s, whose weights ``study.ids`` name."""
    own = {"bundle_root": REPOSITORY / "bundles/eoir", "output_dir": study.out, "own_folder": True, "channels": 4}
    images = {"fixed": study.other["image"], "moving": study.subject["image"], "dataset_dir": study.data}
    plain = {"affine": "none", "picture": False, "report": False, "inverse": False, "progress": False}
    return bundle_run("eoir/configs/inference.json", **own | images | plain | study.ids)


COMMANDS = {
    "register": register,
    "register list": register_list,
    "prepare": prepare,
    "evaluate": evaluate,
    "train": train,
    "infer": infer,
    "ask network": ask_network,
}


def run(command: str, study: Study) -> Outcome:
    """Run one of ``COMMANDS`` and tell what came of it; what it says goes to this process's own streams."""
    study.write_lists(training=command == "train")
    before = everything(study.base)
    with own_process(study.base):
        started = time.process_time()
        status = status_of(COMMANDS[command](study))
        seconds = time.process_time() - started
    return Outcome(status, seconds, sorted(everything(study.base) - before))


def status_of(call: Callable[[], None]) -> int:
    """The exit status of an interpreter in which this is all that happens; an error goes through its hook."""
    try:
        call()
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


@contextmanager
def own_process(folder: Path) -> Iterator[None]:
    """Work in a folder; a command is a process of its own and may change what the next one must not see."""
    names = (None, "common", "ignite", "monai")
    loggers = [(logger, logger.handlers[:], logger.level) for logger in map(logging.getLogger, names)]
    words, path, hook, before = sys.argv, sys.path[:], sys.excepthook, Path.cwd()
    os.chdir(folder)
    logging.getLogger().handlers.clear()  # as in a process of its own
    try:
        yield
    finally:
        os.chdir(before)
        sys.argv, sys.path[:], sys.excepthook = words, path, hook
        for logger, handlers, level in loggers:
            logger.handlers[:] = handlers
            logger.setLevel(level)


def everything(folder: Path) -> set[str]:
    """Every file and folder below one."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def answers_of(command: str, study: Study) -> dict[str, np.ndarray]:
    """The numbers that a command's results come down to; its results are gone then.

    A displacement in mm and a warped image; a prepared scan; scores; weights.
    """
    found = READERS[command](study)
    shutil.rmtree(study.out)
    return found


def registered(study: Study) -> dict[str, np.ndarray]:
    found = {name: nib.load(study.out / f"{name}.nii.gz").get_fdata() for name in ("displacement", "warped")}
    return found | {"length_mm": np.linalg.norm(found["displacement"], axis=-1)}


def prepared(study: Study) -> dict[str, np.ndarray]:
    items = json.loads((study.out / "datalist.json").read_text())["training"]
    images = [nib.load(study.out / items[1][part]) for part in ("image", "label")]
    return {"image": images[0].get_fdata(), "label": images[1].get_fdata(), "affine": images[0].affine}


def scored(study: Study) -> dict[str, np.ndarray]:
    rows = np.genfromtxt(study.out / "labels.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    return {name: np.atleast_1d(rows[name]) for name in ("label", "dice", "hd95_mm")}


def trained(study: Study) -> dict[str, np.ndarray]:
    weights = torch.load(study.out / "models" / "last.pt", weights_only=True)
    return {name: value.numpy() for name, value in weights.items()}


READERS = {"register": registered, "infer": registered, "prepare": prepared, "evaluate": scored, "train": trained}
