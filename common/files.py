"""Writing files so that a kill, a full disk or a second process never leaves half of one under its final name."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import RegEnvError

__all__ = ["remove_leftovers", "require_writable", "save_atomically"]


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


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes of this machine left in ``folder``."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        owner = re.match(r"\.(\d+)\.", path.name)
        if owner and not is_running(int(owner[1])):
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
