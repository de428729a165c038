"""Writing files so that a kill, a full disk or a second process never leaves half of one under its final name."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import RegEnvError

__all__ = ["save_atomically"]


def save_atomically(write: Callable[[Path], Any], path: Path) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it, so that ``path`` is whole or as it was.

    Raises:
        RegEnvError: if the folder cannot be written or the disk is full; the temporary file is gone then.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the suffix that some writers look at
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError when the disk is full
        raise RegEnvError(f"{path} could not be written ({error}); free space or choose another folder.") from error
    finally:
        with suppress(OSError):  # already renamed, or its folder does not exist
            temporary.unlink()
