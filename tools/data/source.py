"""Where a data set comes from and what its licence asks: said once, read by ``regbundles data``."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["RemoteFile", "Source"]


class RemoteFile(NamedTuple):
    """One file of a release as its publisher offers it."""

    name: str
    """What it is called here, whatever a server says."""
    url: str
    """https, or ``drive:<id>`` for Google Drive."""
    size: int | None = None
    """Bytes; None where nobody publishes it."""
    sha256: str | None = None
    md5: str | None = None
    """The publisher's, where there is no SHA-256; a first download records the SHA-256 then."""
    hosts: tuple[str, ...] = ()
    """Where the address may lead on to besides its own host."""


class Source(NamedTuple):
    """One release of a data set."""

    name: str
    """As in ``regbundles data download NAME``."""
    title: str
    license: str
    citation: str
    """Authors, year and DOI of what a paper that uses it must cite."""
    page: str
    """Where a person reads about it, registers or accepts its terms."""
    terms: str
    """What a person must accept before use, and how; for data behind a login, how to get it."""
    files: tuple[RemoteFile, ...]
    """Empty if it cannot be fetched without a login."""
    prepare: Callable[[str, str], Path]
    """``prepare(raw, out)`` with the published settings; answers with the path of ``datalist.json``."""
    splits: str = ""
    """What ``prepare`` puts into which section, with counts."""
    command: str = ""
    """Of ``regbundles data prepare``, where it is not called by the name."""
    about: str = ""
    """Size as the publisher words it, where the number of bytes is not published."""
