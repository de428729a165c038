"""Writing files and folders so that a kill, a full disk or a second process leaves no half of one under its name."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import RegEnvError, RegError, in_one_line

__all__ = [
    "remove_leftovers",
    "replace_folder",
    "require_writable",
    "save_atomically",
    "temporary_folder",
    "whole_folder",
]

LEFTOVER = re.compile(r"\.(?P<process>\d+)\.(?:(?P<kind>new|old)\.)?(?P<name>.+)")
TURNS = 10  # in which other processes may be first at a folder's name


def save_atomically(write: Callable[[Path], Any], path: Path) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it, so that ``path`` is whole or as it was.

    The bytes are on the disk before the name changes, so a power cut leaves the old or the new file too.

    Raises:
        RegEnvError: if the folder cannot be written or the disk is full; the temporary file is gone then.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the suffix that some writers look at
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save and ITK raise RuntimeError when the disk is full
        why = in_one_line(error)
        raise RegEnvError(f"{path} could not be written ({why}); free space or choose another folder.") from error
    finally:
        with suppress(OSError):  # already renamed, or its folder does not exist
            temporary.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes ``path`` at the end: all of it or, after any error, as it was before.

    What ``path`` held goes: callers make sure that it is theirs.

    Raises:
        RegEnvError: if the new folder cannot be made or put into its place.
    """
    path = path.absolute()
    with temporary_folder(path) as new:
        yield new
        replace_folder(path, new)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` to fill, gone at the end; so is what killed processes left there.

    Raises:
        RegEnvError: if it cannot be made or filled; the message names ``path``.
    """
    folder = path.with_name(f".{os.getpid()}.new.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        folder.mkdir()
        yield folder
    except RegError:
        raise
    except OSError as error:
        raise RegEnvError(f"{path} could not be written ({error}); free space or choose another folder.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(path: Path, new: Path) -> None:
    """Rename ``new``, a folder, to ``path``; what was there goes, or after an error stays.

    What another process puts there in between goes too.

    Raises:
        RegEnvError: if it cannot be renamed.
    """
    old = path.with_name(f".{os.getpid()}.old.{path.name}")
    for _ in range(TURNS):
        try:
            with suppress(FileNotFoundError):  # nothing there
                os.replace(path, old)
            os.replace(new, path)
            shutil.rmtree(old, ignore_errors=True)
            return
        except OSError as error:
            failure = error
        if failure.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            break
        shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):  # nothing to bring back where the first step failed
        os.replace(old, path)
    raise RegEnvError(f"{path} could not be replaced ({failure}); choose another folder.") from failure


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders that killed processes of this machine left in ``folder``.

    A folder that such a process had moved away, and did not live to replace, comes back.
    """
    for path in folder.glob(".*") if folder.is_dir() else ():
        owner = LEFTOVER.match(path.name)
        if owner is None or is_running(int(owner["process"])):
            continue
        if not path.is_dir():
            path.unlink(missing_ok=True)
        elif owner["kind"] == "old" and not (folder / owner["name"]).exists():
            with suppress(OSError):  # another process did the same
                os.replace(path, folder / owner["name"])
        else:
            shutil.rmtree(path, ignore_errors=True)


def require_writable(folder: Path | str) -> None:
    """Raise RegEnvError unless files can be written into ``folder``, which need not be there yet; leaves nothing."""
    path = Path(folder).absolute()
    there = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
    probe = there / f".{os.getpid()}.writable"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise RegEnvError(f"{folder} cannot be written to ({error.strerror}); choose another folder.") from error


def is_running(pid: int) -> bool:
    """Whether a process of that number lives on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
