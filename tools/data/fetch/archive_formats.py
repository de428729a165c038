"""zip, tar, tar.gz and gz behind one form: a list of members, each with a stream of its bytes.

Nothing here trusts an archive: members that are more than plain files and folders come with a finding, and a
compressed stream ends with an error where it goes past what its archive may hold.
"""

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from io import SEEK_CUR, SEEK_SET
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from common.errors import RegError, RegInputError, first_line

from .web import is_web_page

__all__ = ["CHUNK", "ArchiveError", "Member", "Reader", "open_reader", "sound", "too_many"]

CHUNK = 1 << 20
LONGEST_READ = 8 << 20  # bytes; a tar whose header asks for more at once is made to fill the memory
BLOCK = 512  # of a tar
HEADERS = 20 * BLOCK  # about a member: its header, a long name's, what fills its last block; or what ends the tar
DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # with NotImplementedError and RecursionError
)


class ArchiveError(RegInputError):
    """The archive itself is at fault: damaged, or made to do harm."""


class Member(NamedTuple):
    """One entry of an archive."""

    name: str
    """As it is stated there."""
    size: int
    """Bytes of a file; 0 for a folder."""
    is_folder: bool
    finding: str | None
    """Why it cannot be a plain file or folder, as the end of a sentence."""
    entry: Any
    """What its reader opens it by."""


class Reader(Protocol):
    """An archive that is open."""

    def __iter__(self) -> Iterator[Member]: ...

    def open(self, member: Member) -> AbstractContextManager[Any]:
        """The bytes of a file, to be read in a ``with`` block."""
        ...


@contextmanager
def sound(archive: Path) -> Iterator[None]:
    """Turn whatever the libraries say of a damaged archive into one sentence."""
    try:
        yield
    except RegError:
        raise
    except DAMAGE as error:
        reason = first_line(error)[:200]
        raise ArchiveError(f"{archive} is damaged ({reason}), expected a sound archive; fetch it again.") from error


def open_reader(archive: Path, stream: Any, limit: int, max_entries: int) -> Reader:
    """The reader that an archive's name asks for.

    Args:
        archive: its name ends with one of ``READERS``; it stands in errors.
        stream: its bytes.
        limit: bytes that all its files may have together.
        max_entries: members that it may have.

    Raises:
        RegInputError: if it is of no known kind by its name.
        ArchiveError: if it is not what its name says.
    """
    name = archive.name.lower()
    kind = next((ending for ending in READERS if name.endswith(ending)), None)
    if kind is None:
        raise RegInputError(f"{archive} is no archive by its name, expected {', '.join(READERS)}; rename it.")
    head = stream.read(BLOCK)
    if is_web_page(head):
        raise ArchiveError(
            f"{archive} is a web page, expected a {kind} archive; fetch it again, after a login if its publisher asks "
            f"for one."
        )
    if not head:
        raise EOFError("it is empty")
    stream.seek(0)
    return READERS[kind](archive, stream, limit, max_entries)


class ZipReader:
    """A zip; its checksums are compared as its files are read."""

    def __init__(self, archive: Path, stream: Any, limit: int, max_entries: int) -> None:
        self.zip = zipfile.ZipFile(Listing(stream, archive, max_entries))
        self.zip.fp.is_read = True

    def __iter__(self) -> Iterator[Member]:
        for info in self.zip.infolist():
            name = info.orig_filename  # as it stands there: `filename` ends at a NUL
            yield Member(name, info.file_size, name.endswith("/"), zip_finding(info), info)

    def open(self, member: Member) -> AbstractContextManager[Any]:
        return self.zip.open(member.entry)


class Listing:
    """A zip's stream while zipfile reads its list: in one piece, and all of it into objects before anybody can look.

    Args:
        stream: of the zip.
        archive: stands in the error.
        max_entries: members that it may list; for more, reading the list is an error.
    """

    def __init__(self, stream: Any, archive: Path, max_entries: int) -> None:
        self.stream = stream
        self.archive = archive
        self.max_entries = max_entries
        self.is_read = False

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        content = self.stream.read(size)
        if not self.is_read and listed(content, self.max_entries) > self.max_entries:
            raise too_many(self.archive, self.max_entries)
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def listed(content: bytes, most: int) -> int:
    """How many entries a zip's list has, counted to one more than ``most``; 0 for other bytes."""
    count = place = 0
    while count <= most and content[place : place + 4] == b"PK\1\2" and place + 46 <= len(content):
        place += 46 + sum(struct.unpack_from("<3H", content, place + 28))
        count += 1
    return count


def too_many(archive: Path, most: int) -> ArchiveError:
    """The refusal of an archive with more than so many members."""
    return ArchiveError(f"{archive} holds more than {most} members, expected fewer; do not unpack it.")


def zip_finding(info: zipfile.ZipInfo) -> str | None:
    """What of a zip's entry is more than a plain file or folder."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x41:  # bit 0: a password; bit 6: strong encryption
        return "is encrypted"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is a device or a pipe"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type} instead of deflate"
    if kind == stat.S_IFDIR and not info.orig_filename.endswith("/"):
        return "is a folder by its rights and a file by its name"
    return "is a folder with content" if info.orig_filename.endswith("/") and info.file_size else None


class TarReader:
    """A tar, listed to its last byte: tarfile takes a damaged header for the end, and says nothing."""

    def __init__(self, archive: Path, stream: Any, limit: int, max_entries: int) -> None:
        self.stream = Bounded(stream, archive, limit + HEADERS * (max_entries + 1))
        self.tar = tarfile.open(fileobj=self.stream, mode="r:", errors="surrogateescape")

    def __iter__(self) -> Iterator[Member]:
        end = 0
        for info in self.tar:
            size = max(info.size, 0) if info.isreg() else 0
            end = info.offset_data + -(-size // BLOCK) * BLOCK
            yield Member(info.name, size, info.isdir(), tar_finding(info), info)
        self.require_end(end)

    def require_end(self, end: int) -> None:
        """Refuse a tar that does not end with zeros; reading them makes gzip compare its checksum."""
        self.stream.seek(end)
        length = 0
        while chunk := self.stream.read(CHUNK):
            if chunk.strip(b"\0"):
                raise tarfile.ReadError("a header in it is broken")
            length += len(chunk)
        if length < BLOCK:
            raise tarfile.ReadError("its end is missing")

    def open(self, member: Member) -> AbstractContextManager[Any]:
        return self.tar.extractfile(member.entry)


def tar_finding(info: tarfile.TarInfo) -> str | None:
    """What of a tar's entry is more than a plain file or folder."""
    if info.issym() or info.islnk():
        return "is a link"
    if info.issparse():
        return "is a sparse file"
    if not info.isreg() and not info.isdir():
        return "is a device, a pipe or of an unknown kind"
    return "has a negative size" if info.size < 0 else None


def gzipped_tar(archive: Path, stream: Any, limit: int, max_entries: int) -> TarReader:
    """A tar inside gzip."""
    return TarReader(archive, gzip.GzipFile(fileobj=stream, mode="rb"), limit, max_entries)


class GzipReader:
    """One file in gzip, named as the archive without its ``.gz``; read once to know its size."""

    def __init__(self, archive: Path, stream: Any, limit: int, max_entries: int) -> None:
        self.name = archive.name[: -len(".gz")]
        self.stream = Bounded(gzip.GzipFile(fileobj=stream, mode="rb"), archive, limit)

    def __iter__(self) -> Iterator[Member]:
        self.stream.seek(0)
        size = 0
        while chunk := self.stream.read(CHUNK):
            size += len(chunk)
        yield Member(self.name, size, False, None, None)

    def open(self, member: Member) -> AbstractContextManager[Any]:
        self.stream.seek(0)
        return closing(self.stream)


class Bounded:
    """A stream that may not be read past a limit, nor much of it at once.

    Args:
        stream: with ``read``, ``seek`` and ``tell``.
        archive: stands in the error.
        limit: bytes from its beginning.
    """

    def __init__(self, stream: Any, archive: Path, limit: int) -> None:
        self.stream = stream
        self.archive = archive
        self.limit = limit

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if not 0 <= size <= LONGEST_READ:
            raise tarfile.ReadError(f"a header in it is {size} bytes long")
        return self.within(self.stream.read(size))

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Go to a place that is not past the limit."""
        target = offset + (self.tell() if whence == SEEK_CUR else 0)
        self.require(target)
        return self.stream.seek(target)

    def tell(self) -> int:
        """The present place."""
        return self.stream.tell()

    def within(self, chunk: bytes) -> bytes:
        """Bytes just read, unless they go past the limit."""
        self.require(self.tell())
        return chunk

    def require(self, place: int) -> None:
        """Refuse a place past the limit."""
        if place > self.limit:
            raise ArchiveError(
                f"{self.archive} unpacks to more than {self.limit} bytes, expected no more; it is not what it seems, "
                f"do not unpack it."
            )

    def close(self) -> None:
        """Nothing: the caller closes its own stream."""


READERS: dict[str, Callable[[Path, Any, int, int], Reader]] = {
    ".zip": ZipReader,
    ".tar.gz": gzipped_tar,
    ".tgz": gzipped_tar,
    ".tar": TarReader,
    ".gz": GzipReader,
}
