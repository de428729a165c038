"""From a publisher's server to a prepared data set."""

from pathlib import Path

from common.errors import RegInputError
from common.files import require_writable

from .describe import prepare_command
from .fetch.archive import extract
from .fetch.archive_formats import ArchiveError
from .fetch.download import fetch
from .fetch.hashes import hash_path
from .fetch.web import PATIENCE, Patience
from .source import RemoteFile, Source

__all__ = ["acquire"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def acquire(
    source: Source,
    raw: Path,
    out: Path | None = None,
    *,
    accept: bool = False,
    force: bool = False,
    allow_http: bool = False,
    quiet: bool = False,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch a release's files, unpack its archives and, if ``out`` is named, prepare the data set.

    What is there already, whole, is not fetched or unpacked again.

    Args:
        source: the release.
        raw: folder for its files; an archive is unpacked into one beside it, of its name without the ending.
        out: folder of the prepared data set.
        accept: the person's word that the terms were read and accepted.
        force: replace files that are there with another hash than expected.
        allow_http: for a server on this machine, as tests have one.
        quiet: draw no bar.
        patience: limits of waiting for servers and of tries.

    Returns:
        The path of ``datalist.json`` or, without ``out``, ``raw``.

    Raises:
        RegInputError: before anything is fetched, if the data need a login or terms that nobody accepted; if what came
            is not what was published.
        RegEnvError: if a server cannot be reached or a disk is full.
    """
    check_allowed(source, accept)
    for folder in filter(None, (raw, out)):
        require_writable(folder)
    for file in source.files:
        path = fetch(file, raw, force=force, allow_http=allow_http, quiet=quiet, patience=patience)
        if is_archive(file):
            unpack(file, path, raw / unpacked_name(file), quiet)
    return raw if out is None else source.prepare(str(raw), str(out))


def check_allowed(source: Source, accept: bool) -> None:
    """Refuse what a person has to fetch, or to accept, first."""
    if not source.files:
        raise RegInputError(
            f"{source.name} cannot be fetched without a login, expected a person to get it at {source.page}: "
            f"{source.terms}; then `{prepare_command(source)}`."
        )
    if source.terms and not accept:
        raise RegInputError(
            f"{source.name} asks a person to accept terms ({source.license}): {source.terms}; read {source.page}, then "
            "give --accept."
        )


def unpack(file: RemoteFile, path: Path, folder: Path, quiet: bool) -> None:
    """Extract a file that was fetched; a bad one goes again where no hash of the publisher's vouches for it."""
    try:
        extract(path, folder, quiet=quiet)
    except ArchiveError:
        if not (file.sha256 or file.md5):
            path.unlink()
            hash_path(path).unlink(missing_ok=True)
        raise


def is_archive(file: RemoteFile) -> bool:
    """Whether a file is to be unpacked."""
    return file.name.lower().endswith(ARCHIVES)


def unpacked_name(file: RemoteFile) -> str:
    """The folder that an archive is unpacked into."""
    ending = max((end for end in ARCHIVES if file.name.lower().endswith(end)), key=len)
    return file.name[: -len(ending)]
