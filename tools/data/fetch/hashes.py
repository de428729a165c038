"""What a downloaded file must hash to: as published, and as recorded when it first came."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from ..files import save_text
from ..source import RemoteFile

__all__ = ["Hashes", "hash_finding", "hash_path", "hashes_of", "record", "recorded", "sha256_of"]

CHUNK = 1 << 20


class Hashes(NamedTuple):
    """Hexadecimal, lower case."""

    sha256: str
    md5: str


def hashes_of(path: Path, *, quiet: bool = False) -> Hashes:
    """Both hashes of a file in one reading, with a progress bar unless ``quiet``."""
    sums = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        feed(sums, stream, f"check {path.name}", quiet)
    return Hashes(*(one.hexdigest() for one in sums))


def sha256_of(stream: IO[bytes], title: str, *, quiet: bool = False) -> str:
    """SHA-256 of a file that is open, hexadecimal, with a progress bar of that title unless ``quiet``."""
    digest = hashlib.sha256()
    feed([digest], stream, title, quiet)
    return digest.hexdigest()


def feed(sums: Sequence[Any], stream: IO[bytes], title: str, quiet: bool) -> None:
    """Let all of a stream go into each of some hashes."""
    total = os.fstat(stream.fileno()).st_size
    with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=quiet) as bar:
        while chunk := stream.read(CHUNK):
            for one in sums:
                one.update(chunk)
            bar.update(len(chunk))


def hash_finding(found: Hashes, file: RemoteFile, known: str | None) -> str | None:
    """Both hashes of a pair that differs, as the middle of a sentence; None if all that is known agrees.

    Args:
        found: what the file on the disk has.
        file: what its publisher states; a SHA-256 makes the rest needless.
        known: the SHA-256 recorded at the first download, if there is one.
    """
    if file.sha256:
        return differs("SHA-256", found.sha256, file.sha256)
    by_publisher = differs("MD5", found.md5, file.md5) if file.md5 else None
    by_record = differs("SHA-256", found.sha256, known) if known else None
    return by_publisher or (by_record and f"{by_record} as when it was first fetched (--force accepts it)")


def differs(kind: str, found: str, expected: str) -> str | None:
    """The two hashes in words, None if they are one; upper case is as good as lower case."""
    return None if found == expected.lower() else f"has the {kind} {found}, expected {expected.lower()}"


def hash_path(path: Path) -> Path:
    """Where a file's SHA-256 is recorded: ``<name>.sha256``, in the form of ``sha256sum``."""
    return path.with_name(f"{path.name}.sha256")


def recorded(path: Path) -> str | None:
    """The SHA-256 recorded for a file, None if there is none."""
    try:
        found = re.match(r"[0-9a-f]{64}(?=\s)", hash_path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return found[0] if found else None


def record(path: Path, sha256: str) -> None:
    """Note a file's SHA-256, to be compared from now on."""
    save_text(f"{sha256}  {path.name}\n", hash_path(path))
