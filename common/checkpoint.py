"""Checkpoints that know whether they are whole, and a training run that goes on from the newest good one.

A checkpoint is what ``torch.save`` writes, a zip archive, with the SHA-256 of all bytes before it as the archive's
comment: ``torch.load`` reads it as ever, and one flipped bit, which torch does not notice, is found here.
"""

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from .datalist import GRID_NAME
from .errors import RegInputError, first_line
from .files import remove_leftovers, require_writable, save_atomically
from .tensor_files import SAFETENSORS, MissingSafetensorsError, from_safetensors, to_safetensors
from .weights import check_published, fill

__all__ = ["CheckpointBest", "LoadWeights", "TrainingState", "load_checkpoint", "read_weights", "save_checkpoint"]

logger = logging.getLogger(__name__)

PREFIX = b"sha256:"
SEAL = len(PREFIX) + 64  # bytes of the comment: the prefix and the hexadecimal digest


def save_checkpoint(content: Any, path: Path) -> None:
    """Write ``content`` sealed by its hash, whole or not at all.

    Raises:
        RegEnvError: if the folder cannot be written or the disk is full.
    """

    def write(temporary: Path) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        temporary.write_bytes(sealed(buffer.getvalue()))

    save_atomically(write, path)


def load_checkpoint(path: Path, device: torch.device | str = "cpu", must_be_sealed: bool = True) -> Any:
    """Read what :func:`save_checkpoint` wrote, with ``weights_only=True``.

    Args:
        path: the file.
        device: where its tensors go.
        must_be_sealed: refuse files without a seal; otherwise one that another program saved is read as it is.

    Raises:
        RegInputError: if the file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RegInputError(f"{path} cannot be read ({error.strerror}), expected a checkpoint; check it.") from error
    if (must_be_sealed or data[-SEAL:].startswith(PREFIX)) and not is_whole(data):
        raise RegInputError(f"{path} is damaged: its bytes do not have the hash that it carries; use another one.")
    try:
        return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # unpickling bytes of any kind raises errors of any kind
        raise RegInputError(f"{path} is no checkpoint ({first_line(error)}); train again or copy it again.") from error


def read_weights(path: Path, device: torch.device | str = "cpu") -> Any:
    """A state dict in the form that the suffix says: safetensors, or else torch's, sealed or another program's.

    Raises:
        RegInputError: if the file is missing, damaged, or holds more than tensors and plain values.
        RegEnvError: if it is safetensors and the package is missing.
    """
    if path.suffix != SAFETENSORS:
        return load_checkpoint(path, device, must_be_sealed=False)
    try:
        return from_safetensors(path.read_bytes(), path, device)
    except OSError as error:
        raise RegInputError(f"{path} cannot be read ({error.strerror}), expected weights; check it.") from error


def sealed(archive: bytes) -> bytes:
    """A zip archive without a comment, with its hash as the comment."""
    body = archive[:-2] + SEAL.to_bytes(2, "little")  # the last two bytes are the length of the comment
    return body + PREFIX + hashlib.sha256(body).hexdigest().encode()


def is_whole(data: bytes) -> bool:
    """Whether the bytes carry a seal and it is theirs."""
    return data[-SEAL:] == PREFIX + hashlib.sha256(data[:-SEAL]).hexdigest().encode()


class LoadWeights:
    """Handler that loads a state dict before the engine starts.

    Args:
        network: module to fill; every key and shape must fit.
        path: file written by a train command, or any plain state dict of tensors, safetensors too; in a bundle whose
            large_files.yml states its hash, only with that.
        train_command: what the message advises when there is no file.
    """

    def __init__(self, network: nn.Module, path: str, train_command: str) -> None:
        self.network = network
        self.path = Path(path)
        self.train_command = train_command

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Fill the network.

        Raises:
            RegInputError: if the file is missing, damaged, of another network, not finite, or not the one that the
                bundle's large_files.yml states.
        """
        if not self.path.is_file():
            raise RegInputError(
                f"{self.path} is missing, expected trained weights; make them with `{self.train_command}`."
            )
        check_published(self.path)
        try:
            device = next(self.network.parameters()).device
            fill(self.network, read_weights(self.path, device))
        except RegInputError as error:
            raise RegInputError(
                f"{self.path} does not hold this network's weights ({error}); train again or give the same settings as "
                "in training."
            ) from error


class CheckpointBest:
    """Handler of an evaluator: writes ``last.pt`` after each validation and ``model.pt`` whenever the metric improves.

    Both hold a plain state dict that loads with ``weights_only=True``; beside the best lies the same as safetensors,
    where that is installed. On several ranks the first one writes.

    Args:
        network: module to save.
        save_dir: folder to write into; made when needed.
        metric: name of the engine's metric.
        best_name: file of the best weights.
        last_name: file of the newest weights.
        lower_is_better: whether the metric is an error.
        header: of the data set that is trained on, as :func:`common.datalist.read_header` gives it; its grid goes into
            ``grid.json`` beside the best weights, for :func:`common.datalist.read_trained_grid`.
    """

    def __init__(
        self,
        network: nn.Module,
        save_dir: str,
        metric: str,
        best_name: str = "model.pt",
        last_name: str = "last.pt",
        lower_is_better: bool = False,
        header: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.save_dir = Path(save_dir)
        self.metric = metric
        self.best_name = best_name
        self.last_name = last_name
        self.sign = -1 if lower_is_better else 1
        self.best = float("-inf")  # times the sign: higher is better
        self.grid = None if header is None else {key: header[key] for key in ("name", "orientation", "spacing_mm")}

    def attach(self, engine: Engine) -> None:
        """Save at the end of every evaluation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the network's present weights under the names that its metric earned."""
        value = float(engine.state.metrics[self.metric])
        self._save(self.last_name)
        if not self.sign * value <= self.best:  # a metric that is NaN (no labels) keeps the newest
            self.best = self.sign * value
            self._save_best()
            self._save_grid()
            logger.info("%s %.4f is the best so far: saved %s.", self.metric, value, self.save_dir / self.best_name)

    def _save(self, name: str) -> None:
        if idist.get_rank() == 0:
            save_checkpoint(self.network.state_dict(), self.save_dir / name)

    def _save_best(self) -> None:
        """Both forms, or none of the second where safetensors is not installed: older weights would pass for these."""
        copy = (self.save_dir / self.best_name).with_suffix(SAFETENSORS)
        if idist.get_rank() == 0:
            copy.unlink(missing_ok=True)
        self._save(self.best_name)
        if idist.get_rank() == 0:
            with suppress(MissingSafetensorsError):
                content = to_safetensors(self.network.state_dict())
                save_atomically(lambda path: path.write_bytes(content), copy)

    def _save_grid(self) -> None:
        if idist.get_rank() == 0 and self.grid is not None:
            text = json.dumps(self.grid, indent=2) + "\n"
            save_atomically(lambda path: path.write_text(text), self.save_dir / GRID_NAME)

    def state_dict(self) -> dict[str, float]:
        """The best value so far, for :class:`TrainingState`."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a best value."""
        self.best = state["best"]


class TrainingState:
    """Handler of a trainer: keeps a checkpoint of the whole run after each epoch and goes on from the newest good one.

    Together with :class:`common.engine.StartEpoch`, which makes an epoch's random numbers a function of its number, a
    run that was killed and resumed gives on the CPU bitwise the weights of one that was not. A kill in the middle of an
    epoch repeats that epoch. Name it before the handlers that show progress; it saves after all others whatever its
    place.

    Args:
        folder: where ``epoch_00012.pt`` and so on go. A run that does not resume moves what an earlier one left there
            to ``<folder>.previous`` (and removes what was in that).
        parts: everything that changes while training, by name: network, optimizer, ...; objects with ``state_dict`` and
            ``load_state_dict``.
        resume: go on where the newest good checkpoint stopped; where there is none, start.
        keep: number of checkpoints that stay; 2 at least, so that a damaged one has one before it.
        interval: epochs between checkpoints; the last epoch always has one.
    """

    def __init__(
        self, folder: str, parts: Mapping[str, Any], resume: bool = False, keep: int = 2, interval: int = 1
    ) -> None:
        if keep < 2 or interval < 1:
            raise RegInputError(f"keep is {keep} and interval {interval}, expected at least 2 and 1; raise them.")
        self.folder = Path(folder)
        self.parts = dict(parts)
        self.resume = resume
        self.keep = keep
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts; save at the end of its epochs, after every other handler."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            require_writable(self.folder)
            remove_leftovers(self.folder)
            if not self.resume:
                self._move_aside()
        idist.barrier()  # the other ranks look once the first has tidied up
        if self.resume:
            self._load_newest(engine)
        if not engine.has_event_handler(self._save):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._save)  # so late: after all other handlers

    def _move_aside(self) -> None:
        if not self._checkpoints():
            return
        previous = self.folder.with_name(f"{self.folder.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(self.folder, previous)
        self.folder.mkdir()
        logger.warning("the earlier run's checkpoints are in %s now; --resume true would have gone on.", previous)

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("epoch_*.pt"), reverse=True)

    def _load_newest(self, engine: Engine) -> None:
        paths = self._checkpoints()
        for path in paths:
            try:
                state = load_checkpoint(path)
            except RegInputError as error:
                logger.warning("%s The one before it is tried.", error)
                continue
            return self._restore(engine, state, path)
        if paths:
            raise RegInputError(f"all {len(paths)} checkpoints in {self.folder} are damaged; start without --resume.")
        logger.warning("%s holds no checkpoint: starting with the first epoch.", self.folder)

    def _restore(self, engine: Engine, state: dict, path: Path) -> None:
        if state["parts"].keys() != self.parts.keys():
            raise RegInputError(f"{path} holds {sorted(state['parts'])}, expected {sorted(self.parts)}; train anew.")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
        except Exception as error:
            raise RegInputError(
                f"{path} does not fit this run's {name} ({first_line(error)}); give the settings of the run that wrote "
                "it or start without --resume."
            ) from error
        run = engine.state
        run.epoch, run.iteration = state["epoch"], state["epoch"] * run.epoch_length
        logger.info("going on after epoch %d of %d (%s).", run.epoch, run.max_epochs, path)
        if state["max_epochs"] != run.max_epochs:
            logger.warning(
                "this run was planned for %d epochs and now has %d; its learning-rate schedule goes on as planned.",
                state["max_epochs"],
                run.max_epochs,
            )

    def _save(self, engine: Engine) -> None:
        run = engine.state
        last = run.epoch == run.max_epochs or engine.should_terminate
        if idist.get_rank() > 0 or not (last or run.epoch % self.interval == 0):
            return
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        state = {"epoch": run.epoch, "max_epochs": run.max_epochs, "parts": parts}
        save_checkpoint(state, self.folder / f"epoch_{run.epoch:05d}.pt")
        for path in self._checkpoints()[self.keep :]:
            path.unlink()
