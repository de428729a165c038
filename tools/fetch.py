"""A packed bundle from its publisher, with its weights: whole and with the right hashes under its name, or not at all.

MONAI's ``download`` compares no hash, unpacks beside what is there and leaves the weights of ``large_files.yml`` to
another command. Here everything arrives in ``<name>_v<version>.<hash>.part``, which a later call takes up again where
the last one stopped, and the finished bundle is renamed to its place.
"""

import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from common.errors import RegEnvError, RegError, RegInputError
from common.files import remove_leftovers, require_writable

from .data.fetch.archive import COMPLETE, clashes, extract, is_extracted
from .data.fetch.archive_formats import ArchiveError, Member
from .data.fetch.download import fetch
from .data.fetch.hashes import hashes_of
from .data.fetch.locks import is_left, one_process
from .data.fetch.names import path_finding, shown
from .data.fetch.part import fsync_folder
from .data.fetch.web import PATIENCE, Patience
from .data.files import save_text
from .data.source import RemoteFile
from .lint import read_config
from .releases import Release, Way, find_release, hosts_of

__all__ = ["fetch_bundle"]

MAX_ZIP = 1 << 30  # bytes, where the server tells no size
MAX_WEIGHTS = 16 << 30
MAX_ENTRIES = 10_000
LIST = "large_files.yml"
METADATA = "configs/metadata.json"
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Weights(NamedTuple):
    """One entry of a bundle's large_files.yml."""

    path: str
    """In the bundle's folder."""
    file: RemoteFile


def fetch_bundle(
    asked: str,
    out: Path,
    *,
    source: str | None = None,
    version: str | None = None,
    sha256: str | None = None,
    allow_http: bool = False,
    quiet: bool = False,
    patience: Patience = PATIENCE,
) -> Path:
    """The folder ``<out>/<name>`` with a bundle and the weights that it names, fetched now unless it was before.

    What stands there already is never touched: if it is another version, or something else, that is an error.

    Args:
        asked: a bundle's name, or the address of its zip.
        out: folder for the bundle; made when needed.
        source: the catalog that has the name; see :func:`tools.releases.find_release`.
        version: for a name; None: the newest.
        sha256: what the zip must hash to; None: as published.
        allow_http: also plain http, to this machine alone.
        quiet: no progress bars on standard error.
        patience: limits of waiting and of tries.

    Raises:
        RegInputError: if there is no such release, if what came is not what was published, or if the place is taken.
        RegEnvError: if a server does not answer, the disk is full or the folder cannot be written.
    """
    way = Way(allow_http, patience)
    release = find_release(asked, source, version, sha256, way)
    target = Path(out).absolute() / release.name
    work = target.with_name(f"{release.name}_v{release.version}.{release.file.sha256[:12]}.part")
    if not is_extracted(target, release.file.sha256) or is_left(target):
        require_writable(target.parent)
        with one_process(target, quiet):
            remove_leftovers(target.parent)
            if not is_extracted(target, release.file.sha256):
                bring(release, target, work, way, quiet)
            discard(work)
    return target


def bring(release: Release, target: Path, work: Path, way: Way, quiet: bool) -> None:
    """Let a bundle arrive in ``work`` and give it its place."""
    try:
        bundle = assemble(release, work, way, quiet)
        publish(bundle, target, release.file.sha256)
    except RegInputError:
        discard(work)  # what came is not what was published: nothing to build on
        raise
    except RegError:
        if not any(path.is_file() for path in work.rglob("*")):
            discard(work)
        raise
    except OSError as error:
        discard(work)
        raise RegEnvError(f"{target} could not be written ({error}); free space or choose another folder.") from error


def assemble(release: Release, work: Path, way: Way, quiet: bool) -> Path:
    """The bundle's folder in ``work``, with its weights."""
    options = {"force": True, "allow_http": way.allow_http, "patience": way.patience, "quiet": quiet}
    archive = fetch(release.file, work, max_bytes=MAX_ZIP, **options)
    bundle = extract(archive, work / "unpacked", max_entries=MAX_ENTRIES, quiet=quiet) / release.name
    require_bundle(bundle, release)
    weights = [one for one in weights_of(bundle) if not is_there(bundle, one)]
    require_room(archive, release.name, weights)
    for one in weights:
        fetch(one.file, (bundle / one.path).parent, max_bytes=MAX_WEIGHTS, **options)
    return bundle


def require_bundle(bundle: Path, release: Release) -> None:
    """Refuse a zip that holds something else than this version of this bundle."""
    found = sorted(path.name for path in bundle.parent.iterdir() if path.name != COMPLETE)
    if found != [release.name] or not (bundle / METADATA).is_file():
        raise ArchiveError(
            f"{release.file.url} holds {', '.join(map(shown, found[:5])) or 'nothing'}, expected one folder "
            f"{release.name} with {METADATA}; ask its publisher."
        )
    metadata = read_config((bundle / METADATA).read_bytes(), f"{METADATA} of {release.file.url}")
    version = metadata.get("version") if isinstance(metadata, dict) else None
    if version != release.version:
        raise ArchiveError(
            f"{release.file.url} holds version {shown(str(version))}, expected {release.version}; ask its publisher."
        )


def weights_of(bundle: Path) -> list[Weights]:
    """What a bundle's large_files.yml names, if all of it can be fetched safely.

    Raises:
        RegInputError: with the first finding.
    """
    path = bundle / LIST
    if not path.is_file():
        return []
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return list(judged((content or {}).get("large_files") or []))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, RecursionError) as error:
        raise RegInputError(
            f"{LIST} of {bundle.name} cannot be read, expected a list of files; ask its publisher."
        ) from error


def judged(entries: Iterable[Mapping[str, Any]]) -> Iterator[Weights]:
    """The entries of a large_files.yml, each with a path in the bundle, an address and a SHA-256."""
    for entry in entries:
        path, url, digest = (entry.get(key) for key in ("path", "url", "hash_val"))
        finding = entry_finding(path, url, digest, entry.get("hash_type", "sha256"))
        if finding:
            raise RegInputError(f"{LIST} has {shown(str(path))}, which {finding}; ask the bundle's publisher.")
        yield Weights(path, RemoteFile(Path(path).name, url, sha256=digest.lower(), hosts=hosts_of(url)))


def entry_finding(path: Any, url: Any, digest: Any, kind: Any) -> str | None:
    """What is wrong with one entry, as the end of a sentence."""
    if not isinstance(path, str) or not path or path.endswith("/"):
        return "is not the path of a file"
    if path_finding(path) or "." in path.split("/"):
        return path_finding(path) or "is not a plain path"
    if not isinstance(url, str):
        return "has no address"
    if kind != "sha256" or not isinstance(digest, str) or not SHA256.fullmatch(digest):
        return "has no SHA-256 as hash_val, with hash_type sha256"
    return None


def require_room(archive: Path, name: str, weights: Iterable[Weights]) -> None:
    """Refuse weights that would take the place of one of the zip's files, or of another's."""
    with zipfile.ZipFile(archive) as content:
        paths = [path.removeprefix(f"{name}/") for path in content.namelist()]
    paths += [COMPLETE, *(one.path for one in weights)]
    found = clashes([Member(path, 0, path.endswith("/"), None, None) for path in paths])
    if found:
        raise RegInputError(f"{LIST} has {found[0]}, expected a place of its own; ask the bundle's publisher.")


def is_there(bundle: Path, weights: Weights) -> bool:
    """Whether weights lie in their place already: they travelled in the zip, or a run that was stopped fetched them."""
    path = bundle / weights.path
    return path.is_file() and hashes_of(path, quiet=True).sha256 == weights.file.sha256


def publish(bundle: Path, target: Path, digest: str) -> None:
    """Mark a bundle as whole and rename it to its place, which is empty."""
    remove_leftovers(bundle)  # of a run that was killed while it wrote the mark
    save_text(f"{digest}\n", bundle / COMPLETE)
    if target.exists():
        target.rmdir()
    os.replace(bundle, target)
    fsync_folder(target.parent)


def discard(folder: Path) -> None:
    """Delete a folder, under another name first: a kill on the way leaves nothing that seems worth going on with."""
    gone = folder.with_name(f".{os.getpid()}.gone.{folder.name}")
    try:
        os.replace(folder, gone)
    except OSError:  # there is none, or another process discards it
        return
    shutil.rmtree(gone, ignore_errors=True)
