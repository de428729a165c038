"""Files from their publishers: whole and with the right hash under their final name, or not there at all.

pooch, the usual library for this, cannot resume; so requests moves the bytes, and what it lacks is here and in
``web.py`` (addresses, redirects), ``transfer.py`` (resuming, tries), ``part.py``, ``hashes.py``, ``locks.py``.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from common.errors import RegEnvError, RegError, RegInputError
from common.files import remove_leftovers, require_writable

from ..source import RemoteFile
from .drive import fetch_from_drive, is_on_drive
from .hashes import hash_finding, hash_path, hashes_of, record, recorded
from .locks import is_left, one_process
from .names import name_finding, shown
from .part import Part
from .transfer import HTML, transfer
from .web import PATIENCE, Patience, is_web_page

__all__ = ["MAX_BYTES", "fetch"]

MAX_BYTES = 256 << 30  # of a file whose size nobody publishes; the largest release here has about 50 GB
HEAD = 512  # bytes that tell a web page


def fetch(
    file: RemoteFile,
    folder: Path,
    *,
    force: bool = False,
    allow_http: bool = False,
    quiet: bool = False,
    max_bytes: int = MAX_BYTES,
    patience: Patience = PATIENCE,
) -> Path:
    """The path of a file in ``folder``, fetched now unless it is there with the right hash.

    It arrives as ``<name>.part``, which a later call takes up again where it stopped if the server told the version,
    and gets its name when its hash is right. Where no SHA-256 is published, that of the first download is noted in
    ``<name>.sha256`` and compared ever after. Two processes may ask for the same file: one fetches it, the other waits.

    Args:
        file: what to fetch; a hash that it states is never overruled.
        folder: made if it is not there.
        force: replace a file that has another hash than expected, and accept another one than was noted.
        allow_http: also plain http, to this machine alone.
        quiet: no progress bar on standard error.
        max_bytes: of a file whose size is not known.
        patience: limits of waiting and of tries.

    Raises:
        RegInputError: if what is there, or what the server sends, is not the file.
        RegEnvError: if the server does not answer or refuses; if the disk is full or the folder cannot be written to;
            if gdown is needed and not installed.
    """
    path = target_of(file, Path(folder))
    before = stamp(path)
    right = bool(before) and is_right(path, file, force, quiet)
    if right and not is_left(path):
        return path
    require_writable(path.parent)
    with one_process(path, quiet):
        remove_leftovers(path.parent)
        part = Part(path)
        if right or (stamp(path) != before and is_right(path, file, force, quiet)):
            part.remove()
            return path  # another process was first, or was killed when all was done but the tidying
        try:
            bring(file, part, allow_http, quiet, max_bytes, patience)
            publish(part, file, force, quiet)
        except RegError:
            raise
        except OSError as error:
            part.remove()
            raise RegEnvError(f"{path} could not be written ({error}); free space or choose another folder.") from error
        finally:
            if not part.size() or part.version(file.url) is None:
                part.remove()  # nothing that a later call could build on
    return path


def target_of(file: RemoteFile, folder: Path) -> Path:
    """Where a file goes, by our name for it."""
    finding = name_finding(file.name)
    if finding:
        raise RegInputError(f"{shown(file.name)} {finding}, expected a plain file name; correct the data set's entry.")
    return folder.absolute() / file.name


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None if there is none that can be reached."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def is_right(path: Path, file: RemoteFile, force: bool, quiet: bool) -> bool:
    """Whether the file that lies there is the one wanted; if not, RegInputError, or False with ``force``."""
    if not path.is_file():
        raise RegInputError(f"{path} is not a file, expected {file.name} or nothing; move it away.")
    try:
        found, known = hashes_of(path, quiet=quiet), recorded(path)
    except OSError as error:
        raise RegEnvError(f"{path} could not be read ({error.strerror}); make it readable or move it away.") from error
    finding = hash_finding(found, file, known) or size_finding(path, file)
    if finding and not force:
        raise RegInputError(f"{path} {finding}; move it away, or replace it with --force.")
    if not finding and not file.sha256 and known is None:
        with suppress(RegEnvError):  # a read-only store is used as it is
            record(path, found.sha256)
    return not finding


def size_finding(path: Path, file: RemoteFile) -> str | None:
    """The two sizes in words, if one is published and the file has another; no file of a release is empty."""
    size = path.stat().st_size
    if not size and not file.size:
        return "is empty, expected a file"
    return None if file.size in (None, size) else f"has {size} bytes, expected {file.size}"


def bring(file: RemoteFile, part: Part, allow_http: bool, quiet: bool, max_bytes: int, patience: Patience) -> None:
    """Let the whole file arrive in its part."""
    require_space(file, part)
    total = file.size or None
    with tqdm(total=total, desc=file.name, unit="B", unit_scale=True, disable=quiet) as bar:
        if is_on_drive(file):
            fetch_from_drive(file, part, bar, max_bytes=max_bytes, patience=patience)
        else:
            transfer(file, part, bar, max_bytes=max_bytes, allow_http=allow_http, patience=patience)


def require_space(file: RemoteFile, part: Part) -> None:
    """Refuse to begin what the disk cannot hold."""
    missing = (file.size or 0) - part.size()
    free = shutil.disk_usage(part.path.parent).free
    if missing > free:
        raise RegEnvError(
            f"{part.path.parent} has {free} bytes free, expected {missing} for {file.name}; free space or choose "
            f"another folder."
        )


def publish(part: Part, file: RemoteFile, force: bool, quiet: bool) -> None:
    """Give a part its name if it is the file; else delete it and say why."""
    finding = None if file.name.lower().endswith(HTML) or not is_page(part.path) else "is a web page, expected a file"
    found = hashes_of(part.path, quiet=quiet)
    known = None if force else recorded(part.target)
    finding = finding or size_finding(part.path, file) or hash_finding(found, file, known)
    if finding:
        part.remove()
        raise RegInputError(f"{file.url} {finding}; ask its publisher, or look whether there is a newer release.")
    if not file.sha256:
        hash_path(part.target).unlink(missing_ok=True)  # a kill between here and the end leaves no hash of another file
    part.publish()
    if not file.sha256:
        record(part.target, found.sha256)


def is_page(path: Path) -> bool:
    """Whether a file is HTML."""
    with path.open("rb") as stream:
        return is_web_page(stream.read(HEAD))
