"""Runs of our commands that are killed, limited or raced: forks of one process that has imported everything once.

Each takes milliseconds to start where a new interpreter takes seconds. The server has one thread: it imports and
computes nothing, so that a fork of it is as good as new.
"""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from tools.repository import REPOSITORY

__all__ = [
    "PATIENCE_S",
    "KillAfter",
    "KillBefore",
    "Meeting",
    "NoteRenames",
    "limit_files",
    "run",
    "start",
    "warm_server",
]

PRELOADED = ["tests.reliability.preloaded"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
PATIENCE_S = 600
MEETING_S = 60


@contextmanager
def warm_server() -> Iterator[None]:
    """Start the process of which :func:`start` makes forks; it lives as long as this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    with mock.patch.dict(os.environ, ONE_THREAD | {"PYTHONPATH": path}):
        start(["--help"], Path(os.devnull)).join(PATIENCE_S)
    yield


def start(words: list[str], said: Path, prepare: Callable[..., None] | None = None, *arguments: Any) -> BaseProcess:
    """A process that runs a command and writes what it says to a file.

    Args:
        words: of the command line; ``regbundles`` before them is not named, ``monai.bundle`` is.
        said: file for its standard output and error.
        prepare: function of a module that is called in it before, with ``arguments``.
    """
    work = (words, said, prepare, arguments)
    process = multiprocessing.get_context("forkserver").Process(target=command, args=work)
    process.start()
    return process


def run(words: list[str], said: Path, prepare: Callable[..., None] | None = None, *arguments: Any) -> int:
    """The exit status of such a process; minus a signal's number if it died of that."""
    process = start(words, said, prepare, *arguments)
    process.join(PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{words} did not end in {PATIENCE_S} s.")
    return process.exitcode


def command(words: list[str], said: Path, prepare: Callable[..., None] | None, arguments: tuple) -> None:
    """What the process does."""
    with said.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    if prepare is not None:
        prepare(*arguments)
    module, *sys.argv[1:] = words if words[0] == "monai.bundle" else ["tools.__main__", *words]
    sys.modules.pop(module, None)  # imported to be warm
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:  # as where no process stands around it
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


class AtRename:
    """Does something about one of the renames that a process does; to be called in it before it works.

    Args:
        number: of the rename, from 0.
    """

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> None:
        """Take the place of ``os.replace`` and ``os.rename``."""
        for name in ("replace", "rename"):
            setattr(os, name, self.counting(getattr(os, name)))

    def counting(self, function: Callable) -> Callable:
        """The function, until its turn comes."""

        def rename(*arguments: Any, **options: Any) -> None:
            its_turn, self.left = self.left == 0, self.left - 1
            if its_turn:
                self.before()
            try:
                function(*arguments, **options)
            finally:  # where there was nothing to rename too
                if its_turn:
                    self.after()

        return rename

    def before(self) -> None:
        """What is done before it."""

    def after(self) -> None:
        """What is done after it."""


class NoteRenames(AtRename):
    """Leaves a byte in a file for each rename.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(0)
        self.path = path

    def before(self) -> None:
        """As it says."""
        self.left = 0  # the next one's turn comes too
        with self.path.open("ab") as file:
            file.write(b".")


class KillBefore(AtRename):
    """Kills the process."""

    def before(self) -> None:
        """As it says."""
        os.kill(os.getpid(), signal.SIGKILL)


class KillAfter(AtRename):
    """Kills the process once the rename is done."""

    def after(self) -> None:
        """As it says."""
        os.kill(os.getpid(), signal.SIGKILL)


class Meeting(AtRename):
    """Waits for the other one of two processes, so that both rename at once.

    Args:
        folder: where they see each other.
        number: of this one, 0 or 1.
        rename: before which they meet.
    """

    def __init__(self, folder: Path, number: int, rename: int) -> None:
        super().__init__(rename)
        self.folder = folder
        self.number = number

    def before(self) -> None:
        """Wait; in vain where the other one has already gone another way."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / str(self.number)).touch()
        until = time.monotonic() + MEETING_S
        while not (self.folder / str(1 - self.number)).exists() and time.monotonic() < until:
            time.sleep(0.001)


def limit_files(size: int) -> None:
    """Let no file of this process grow beyond so many bytes: a write over it fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
