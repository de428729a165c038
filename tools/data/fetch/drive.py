"""Files on Google Drive, whose question about large files no plain request answers: gdown does."""

from glob import escape
from importlib import import_module

import requests
from tqdm import tqdm

from common.errors import RegEnvError, first_line

from ..source import RemoteFile
from .part import Part
from .transfer import too_large
from .web import PATIENCE, Patience

__all__ = ["drive_page", "fetch_from_drive", "is_on_drive"]

DRIVE = "drive:"


def is_on_drive(file: RemoteFile) -> bool:
    """Whether a file's address is ``drive:<id>``."""
    return file.url.startswith(DRIVE)


def drive_page(file: RemoteFile) -> str:
    """Where a person sees a file of Google Drive, https."""
    return f"https://drive.google.com/file/d/{file.url.removeprefix(DRIVE)}/view"


def fetch_from_drive(file: RemoteFile, part: Part, bar: tqdm, *, max_bytes: int, patience: Patience = PATIENCE) -> None:
    """Bring ``part`` to the whole file; what a killed run left is taken up if a hash will tell whether it fits.

    gdown follows redirects by its own rules, to Google's servers alone.

    Args:
        file: with the address ``drive:<id>``.
        part: where it arrives; gdown writes into ``<name>.part????????.part`` beside it until it is whole.
        bar: moved along with the bytes.
        max_bytes: of the file, if its size is not known.
        patience: limits of waiting and of tries.

    Raises:
        RegInputError: if the file is larger than it may be.
        RegEnvError: if gdown is not installed, or fails.
        OSError: if the disk is full, or similar.
    """
    download, failures = import_gdown()
    limit = file.size or max_bytes

    def progress(count: int, total: int | None) -> None:
        if max(count, total or 0) > limit:
            remove_halves(part)
            raise too_large(file, total, limit)
        bar.total = total
        bar.update(count - bar.n)

    known = bool(file.sha256 or file.md5)
    if not known:
        remove_halves(part)
    options = {"quiet": True, "use_cookies": False, "progress": progress, "resume": known}
    waits = {"timeout": (patience.connect_s, patience.read_s), "retries": patience.tries - 1}
    try:
        download(id=file.url.removeprefix(DRIVE), output=str(part.path), **options, **waits)
    except failures as error:
        raise RegEnvError(
            f"Google Drive did not give {file.name} ({first_line(error)}), expected {drive_page(file)} to be open to "
            f"all; try again tomorrow, when its daily limit is over, or fetch it by a browser."
        ) from error
    except OSError:  # the disk is full
        remove_halves(part)
        raise


def import_gdown() -> tuple:
    """gdown's ``download``, and what it raises: it reads Google's pages, so a new form of these may show as anything.

    Raises:
        RegEnvError: if it is not installed.
    """
    try:
        gdown, exceptions = import_module("gdown"), import_module("gdown.exceptions")
    except ImportError as error:
        raise RegEnvError(
            "gdown is not installed, expected it for files on Google Drive; run pip install '.[drive]'."
        ) from error
    return gdown.download, (exceptions.DownloadError, requests.RequestException, AssertionError, LookupError)


def remove_halves(part: Part) -> None:
    """Delete what gdown has of a file."""
    for path in part.path.parent.glob(f"{escape(part.path.name)}????????.part"):
        path.unlink(missing_ok=True)
