"""Where a packed bundle is, and what its zip must hash to: by its address, or by its name in a catalog.

A catalog is the ``models/model_info.json`` that MONAI reads, ``{"eoir_v0.4.0": {"checksum": ..., "source": ...}}``; its
checksums have to be SHA-256 here. An address has its SHA-256 in ``SHA256SUMS`` beside it, as ``regbundles pack`` writes
it. Either protects from damage and mistakes; from a server that lies only a hash does that came another way.
"""

import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

from common.errors import RegEnvError, RegInputError, first_line

from .data.fetch.download import fetch
from .data.fetch.names import shown
from .data.fetch.web import Patience, split
from .data.source import RemoteFile
from .lint import read_config
from .repository import REPOSITORY

__all__ = ["CATALOG", "TAG", "Release", "Way", "find_release", "hosts_of"]

CATALOG = REPOSITORY / "models" / "model_info.json"
"""This collection's own releases, where there are any."""

LISTED = re.compile(r"(?P<name>[a-z][a-z0-9_]*)_v(?P<version>\d+\.\d+\.\d+)", re.ASCII)
ZIP = re.compile(rf"{LISTED.pattern}\.zip", re.ASCII)
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
TAG = re.compile(r"[\w.-]+/[\w.-]+/[\w.-]+", re.ASCII)
SUMS = "SHA256SUMS"
MAX_LIST = 1 << 20  # bytes of a catalog or of SHA256SUMS
HOSTS = {"github.com": ("objects.githubusercontent.com", "release-assets.githubusercontent.com")}


class Release(NamedTuple):
    """One version of a bundle, packed."""

    name: str
    version: str
    file: RemoteFile
    """Its zip, with a SHA-256."""


class Way(NamedTuple):
    """How servers are asked."""

    allow_http: bool
    patience: Patience


def find_release(asked: str, source: str | None, version: str | None, sha256: str | None, way: Way) -> Release:
    """The zip that a person asks for.

    Args:
        asked: a bundle's name, or the address of ``<name>_v<version>.zip``.
        source: for a name, the catalog: ``OWNER/REPO/TAG`` on GitHub, an address or a path of a ``model_info.json``;
            None: :data:`CATALOG`.
        version: for a name; None: the newest.
        sha256: what the zip must hash to, by the person's own word; None: as published.
        way: how servers are asked.

    Raises:
        RegInputError: if there is no such bundle or version, or no SHA-256 for it.
        RegEnvError: if a server does not answer.
    """
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise RegInputError(f"--sha256 got {shown(sha256)}, expected 64 hexadecimal digits.")
    if "://" not in asked:
        return listed_release(asked, source, version, sha256, way)
    if source or version:
        raise RegInputError(f"{asked} is an address, expected no --source or --version beside it; leave them out.")
    return release_at(asked, sha256, way)


def release_at(url: str, sha256: str | None, way: Way) -> Release:
    """The release with this address."""
    found = ZIP.fullmatch(file_in(url))
    if not found:
        raise RegInputError(f"{shown(url)} is no packed bundle by its name, expected .../<name>_v<version>.zip.")
    return release(found["name"], found["version"], url, sha256 or published_sum(url, found[0], way))


def published_sum(url: str, name: str, way: Way) -> str:
    """The SHA-256 of a zip by the list beside it."""
    address = urljoin(url, SUMS)
    try:
        lines = read_text(address, SUMS, way).splitlines()
    except RegEnvError as error:
        raise RegEnvError(
            f"{address} could not be had ({first_line(error)}), expected the SHA-256 of {name} there; or give it by "
            f"--sha256."
        ) from error
    sums = [digest for digest, _, file in (line.partition(" ") for line in lines) if file.lstrip(" *") == name]
    if len(sums) != 1 or not SHA256.fullmatch(sums[0]):
        raise RegInputError(
            f"{address} has no SHA-256 of {name}, expected one; give it by --sha256 if its publisher told you."
        )
    return sums[0]


def listed_release(name: str, source: str | None, version: str | None, sha256: str | None, way: Way) -> Release:
    """The release that a catalog has under this name."""
    where = catalog_of(source)
    found = {key: entry for key, entry in releases_in(where, way).items() if key[0] == name}
    versions = {key[1]: entry for key, entry in found.items()}
    chosen = version or max(versions, key=parts_of, default=None)
    if chosen not in versions:
        known = ", ".join(versions) or "no version of it"
        raise RegInputError(f"{where} has no {name}{f' {version}' if version else ''}, expected one of: {known}.")
    url, listed = versions[chosen].get("source"), versions[chosen].get("checksum")
    if not isinstance(url, str) or not ZIP.fullmatch(file_in(url)):
        raise RegInputError(
            f"{where} gives {name} {chosen} no address of a zip, expected 'source'; tell its publisher."
        )
    if sha256 is None and not (isinstance(listed, str) and SHA256.fullmatch(listed)):
        raise RegInputError(
            f"{where} gives {name} {chosen} no SHA-256 as 'checksum', expected one; give it by --sha256."
        )
    return release(name, chosen, url, sha256 or listed)


def catalog_of(source: str | None) -> str:
    """Address or path of the catalog that a person means."""
    if source is None or "://" in source or source.endswith(".json"):
        return source or str(CATALOG)
    if TAG.fullmatch(source):
        return f"https://raw.githubusercontent.com/{source}/models/model_info.json"
    raise RegInputError(
        f"--source got {shown(source)}, expected OWNER/REPO/TAG, or a model_info.json by address or path."
    )


def releases_in(where: str, way: Way) -> dict[tuple[str, str], dict[str, Any]]:
    """The entries of a catalog by name and version; what is no release of this form is left out."""
    text = read_text(where, CATALOG.name, way) if "://" in where else read_file(Path(where))
    entries = read_config(text.encode(), where)
    if not isinstance(entries, dict):
        raise RegInputError(f"{where} holds no table of releases, expected a model_info.json; ask its publisher.")
    found = {key: LISTED.fullmatch(key) for key in entries}
    return {
        (match["name"], match["version"]): entries[key]
        for key, match in found.items()
        if match and isinstance(entries[key], dict)
    }


def read_file(path: Path) -> str:
    """A catalog on this machine."""
    try:
        return path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RegInputError(
            f"there is no catalog that can be read at {path}, expected one of releases; name one by --source, or give "
            f"the bundle's address."
        ) from error


def read_text(url: str, name: str, way: Way) -> str:
    """A small text from a server; ``name`` is what it is called in errors."""
    with tempfile.TemporaryDirectory(prefix="regbundles_") as folder:
        file = RemoteFile(name, url, hosts=hosts_of(url))
        options = {"allow_http": way.allow_http, "patience": way.patience, "max_bytes": MAX_LIST, "quiet": True}
        path = fetch(file, Path(folder), **options)
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise RegInputError(f"{url} is no text, expected a list of releases; ask its publisher.") from error
        except OSError as error:
            raise RegEnvError(f"{path} could not be read ({error.strerror}); free space.") from error


def release(name: str, version: str, url: str, sha256: str) -> Release:
    """A release, its file named by us."""
    return Release(name, version, RemoteFile(f"{name}_v{version}.zip", url, sha256=sha256.lower(), hosts=hosts_of(url)))


def hosts_of(url: str) -> tuple[str, ...]:
    """The hosts that a well-known one hands its files out by."""
    return HOSTS.get(split(url).hostname or "", ())


def file_in(url: str) -> str:
    """The last part of an address."""
    return split(url).path.rpartition("/")[2]


def parts_of(version: str) -> tuple[int, ...]:
    """A version as numbers: 0.10.0 comes after 0.9.0, which MONAI, sorting texts, does not see."""
    return tuple(map(int, version.split(".")))
