"""One process at a time for one target."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from common.errors import RegEnvError

__all__ = ["is_left", "one_process"]


@contextmanager
def one_process(path: Path, quiet: bool = False) -> Iterator[None]:
    """Hold ``<path>.lock`` for the while of a block, after any other process; the system frees it if we are killed.

    Args:
        path: the file or folder that is made in the block; its own folder must exist.
        quiet: do not say on standard error that we wait.

    Raises:
        RegEnvError: if the lock's file cannot be made.
    """
    name = lock_path(path)
    lock = FileLock(name)
    try:
        wait_for(lock, f"waiting for another process that makes {path}", quiet)
    except OSError as error:
        raise RegEnvError(f"{name} could not be locked ({error.strerror}); choose another folder.") from error
    try:
        yield
    finally:
        name.unlink(missing_ok=True)  # while it is held: whoever waits on it sees that it has lost its name
        lock.release()


def is_left(path: Path) -> bool:
    """Whether a process that holds ``path``, or was killed while it did, left its lock where it can be taken away."""
    return lock_path(path).exists() and os.access(path.parent, os.W_OK)


def lock_path(path: Path) -> Path:
    """The file that is locked for a path."""
    return path.with_name(f"{path.name}.lock")


def wait_for(lock: FileLock, message: str, quiet: bool) -> None:
    """Acquire a lock, with a word if that takes time."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not quiet:
            tqdm.write(message, file=sys.stderr)
        lock.acquire()
