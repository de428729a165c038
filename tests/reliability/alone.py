"""The libraries' own functions on the same files and servers, each in a process that may not take too long."""

import multiprocessing
import os
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reliability.warm import limit_files

__all__ = [
    "download_alone",
    "in_time",
    "on_full_disk",
    "save_image_alone",
    "save_weights_alone",
    "start_alone",
    "unpack_alone",
]

LIMIT_S = 15
LIMIT_BYTES = 2**30  # of a file: of a download without end nobody has to see more


def download_alone(url: str, path: Path, sha256: str) -> None:
    """Fetch a file by MONAI."""
    from monai.apps.utils import download_url

    download_url(url, path, hash_val=sha256, progress=False)


def unpack_alone(archive: Path, folder: Path) -> None:
    """Unpack an archive by MONAI."""
    from monai.apps.utils import extractall

    extractall(archive, folder, has_base=False)


def save_image_alone(path: Path, copy: Path) -> None:
    """Save what an image holds by nibabel."""
    import nibabel as nib

    nib.save(nib.load(path), copy)


def save_weights_alone(path: Path, copy: Path) -> None:
    """Save what a checkpoint holds by torch."""
    import torch

    torch.save(torch.load(path, weights_only=True), copy)


def on_full_disk(size: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call one of these where no file may grow beyond so many bytes."""
    limit_files(size)
    function(*arguments)


def start_alone(function: Callable[..., None], *arguments: Any, work: Path) -> multiprocessing.process.BaseProcess:
    """A process that calls a function of this module, in silence; its temporary files go to ``work``."""
    work.mkdir(exist_ok=True)
    process = multiprocessing.get_context("forkserver").Process(target=quietly, args=(function, arguments, work))
    process.start()
    return process


def in_time(function: Callable[..., None], *arguments: Any, work: Path) -> int | None:
    """The exit status of such a process, 1 if it raised; ``None`` if it had to be killed, after 15 s or 1 GiB."""
    process = start_alone(function, *arguments, work=work)
    process.join(LIMIT_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return None if process.exitcode < 0 else process.exitcode


def quietly(function: Callable[..., None], arguments: tuple, work: Path) -> None:
    """What the process does."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(silence, descriptor)
    tempfile.tempdir = str(work)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it, and a caller would be told of an error
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
    function(*arguments)
