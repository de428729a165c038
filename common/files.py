"""Writing files and folders so that a kill, a full disk or a second process leaves no half of one under its name."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import RegEnvError, RegError

__all__ = ["remove_leftovers", "require_writable", "save_atomically", "whole_folder"]


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
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError when the disk is full
        raise RegEnvError(f"{path} could not be written ({error}); free space or choose another folder.") from error
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
    new, old = (path.with_name(f".{os.getpid()}.{kind}.{path.name}") for kind in ("new", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        bring_back(path)
        remove_leftovers(path.parent)
        new.mkdir()
    except OSError as error:
        raise RegEnvError(f"{path} could not be written ({error}); free space or choose another folder.") from error
    try:
        yield new
        replace_folder(path, new, old)
    except RegError:
        raise
    except OSError as error:  # while it was filled
        raise RegEnvError(f"{path} could not be written ({error}); free space or choose another folder.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def replace_folder(path: Path, new: Path, old: Path) -> None:
    """Rename ``new`` to ``path``, what was there to ``old``; both or nothing."""
    try:
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except OSError as error:
        with suppress(OSError):  # nothing to bring back where the first step failed
            os.replace(old, path)
        raise RegEnvError(f"{path} could not be replaced ({error}); choose another folder.") from error


def bring_back(path: Path) -> None:
    """Undo the first of the two renames of a process that was killed between them."""
    for leftover in path.parent.iterdir():
        owner = re.match(r"\.(\d+)\.old\.", leftover.name)
        if owner and leftover.name[owner.end() :] == path.name and not path.exists() and not is_running(int(owner[1])):
            os.replace(leftover, path)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders that killed processes of this machine left in ``folder``."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        owner = re.match(r"\.(\d+)\.", path.name)
        if owner and not is_running(int(owner[1])):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def require_writable(folder: Path | str) -> None:
    """Make ``folder`` and raise RegEnvError unless a file can be written into it; leaves no file."""
    folder = Path(folder)
    probe = folder / f".{os.getpid()}.writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
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
