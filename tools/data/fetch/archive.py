"""Archives into folders: every member judged before a byte is written, then all of them or none.

MONAI's ``extractall`` checks paths and links, but neither sizes, numbers, doubles nor checksums before it writes, and
takes any folder that is not empty for a finished one; so this module writes by itself.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm

from common.errors import RegEnvError, RegInputError, first_line
from common.files import remove_leftovers, require_writable, whole_folder

from .archive_formats import CHUNK, ArchiveError, Member, Reader, open_reader, sound, too_many
from .hashes import sha256_of
from .locks import is_left, one_process
from .names import folded, path_finding, shown
from .part import fsync_folder

__all__ = ["COMPLETE", "MAX_BYTES", "MAX_ENTRIES", "MAX_RATIO", "clashes", "extract", "is_extracted"]

COMPLETE = ".complete"
"""The file in an extracted folder that holds the SHA-256 of its archive."""

MAX_BYTES = 512 << 30  # unpacked; the largest release here has about 50 GB
MAX_ENTRIES = 200_000
MAX_RATIO = 200
"""Unpacked to packed size; deflate reaches 1032 on zeros, which no scan is."""

SMALL = 16 << 20  # bytes; below, no ratio harms anybody


def extract(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_entries: int = MAX_ENTRIES,
    max_ratio: float = MAX_RATIO,
    quiet: bool = False,
) -> Path:
    """The path of a folder with all that an archive holds, extracted now unless it was before.

    The folder is filled beside its place and then renamed, with the archive's SHA-256 in ``.complete``: the archive
    counts as extracted only if this is there and right. Files get neither the archive's owners, nor its times or
    rights. An archive inside the archive is a file like any other, to be extracted by another call.

    Args:
        archive: .zip, .tar, .tar.gz, .tgz, or .gz of one file.
        folder: what it becomes; it must not hold anything else.
        max_bytes: of all files together.
        max_entries: files and folders.
        max_ratio: of unpacked to packed size, from 16 MiB on.
        quiet: no progress bar on standard error.

    Raises:
        ArchiveError: if the archive is damaged, encrypted, too large or holds what may not be extracted.
        RegInputError: if the archive is missing or of no known kind; if the folder holds something else. In both cases
            nothing is written.
        RegEnvError: if the disk is full or the folder cannot be written.
    """
    archive, folder = Path(archive), Path(folder).absolute()
    with open_archive(archive) as stream:
        digest = sha256_of(stream, f"check {archive.name}", quiet=quiet)
        if is_extracted(folder, digest) and not is_left(folder):
            return folder
        require_writable(folder.parent)
        with one_process(folder, quiet):
            remove_leftovers(folder.parent)
            if not is_extracted(folder, digest):
                limit = allowed(os.fstat(stream.fileno()).st_size, max_bytes, max_ratio)
                with sound(archive):
                    unpack(archive, stream, folder, digest, limit, max_entries, quiet)
    return folder


def open_archive(archive: Path) -> IO[bytes]:
    """The archive's bytes."""
    try:
        return archive.open("rb")
    except OSError as error:
        raise RegInputError(f"{archive} cannot be read ({error.strerror}), expected an archive; fetch it.") from error


def is_extracted(folder: Path, digest: str) -> bool:
    """Whether a folder was made from the archive of this SHA-256; RegInputError if it holds something else."""
    try:
        if not any(folder.iterdir()):
            require_no_link(folder)
            return False
    except FileNotFoundError:
        return False
    except NotADirectoryError as error:
        raise RegInputError(f"{folder} is a file, expected a folder or nothing; move it away.") from error
    try:
        found = (folder / COMPLETE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        found = "no archive"
    if found == digest:
        return True
    raise RegInputError(f"{folder} was made from {found[:80]}, expected {digest} or nothing; move it away.")


def require_no_link(folder: Path) -> None:
    """Refuse to fill a place that a link stands in: what it leads to is not ours."""
    if folder.is_symlink():
        raise RegInputError(f"{folder} is a link, expected a folder or nothing; move it away.")


def allowed(packed: int, max_bytes: int, max_ratio: float) -> int:
    """Bytes that an archive of ``packed`` bytes may unpack to."""
    return min(max_bytes, max(SMALL, int(max_ratio * packed)))


def unpack(
    archive: Path, stream: IO[bytes], folder: Path, digest: str, limit: int, max_entries: int, quiet: bool
) -> None:
    """Judge everything, then write everything."""
    stream.seek(0)
    reader = open_reader(archive, stream, limit, max_entries)
    members = judge(archive, reader, limit, max_entries)
    require_space(folder, members)
    with whole_folder(folder) as new:
        with sound(archive):
            write_all(reader, members, new, quiet)
        write_marker(new / COMPLETE, digest)
    fsync_folder(folder.parent)


def judge(archive: Path, reader: Reader, limit: int, max_entries: int) -> list[Member]:
    """The members of an archive, if all of them may be extracted.

    Raises:
        ArchiveError: with the first finding and how many there are; at once where a number or the size is too large.
    """
    members: list[Member] = []
    total = 0
    for member in reader:
        members.append(member)
        total += member.size
        if len(members) > max_entries:
            raise too_many(archive, max_entries)
        if total > limit:
            raise ArchiveError(
                f"{archive} unpacks to more than {limit} bytes, expected no more; it is not what it seems, do not "
                f"unpack it."
            )
    found = [f"{shown(member.name)}, which {finding}" for member in members if (finding := finding_of(member))]
    found += clashes(members)
    if found:
        more = f", and {len(found) - 1} more such things" if len(found) > 1 else ""
        raise ArchiveError(f"{archive} holds {found[0]}{more}, expected plain files and folders; do not unpack it.")
    return members


def finding_of(member: Member) -> str | None:
    """Why a member may not be extracted, as the end of a sentence."""
    parts = parts_of(member.name)
    if not parts and not member.is_folder:
        return "is no name"
    if parts and folded(parts[0]) == COMPLETE:
        return "takes the place of the mark that we set"
    return member.finding or path_finding(member.name)


def clashes(members: Sequence[Member]) -> list[str]:
    """Members that would share a place with others, also where case does not count."""
    places: dict[str, tuple[str, bool]] = {}
    found = []
    for member in members:
        for place in places_of(member):
            before = places.get(folded(place[0]))
            if before and not (place == before and place[1]):  # only a folder may be there twice, spelled alike
                found.append(f"{shown(member.name)}, which takes the place of {shown(before[0])}")
                break
            places[folded(place[0])] = place
    return found


def places_of(member: Member) -> Iterable[tuple[str, bool]]:
    """The folders that a member lies in, and its own place; whether each is a folder."""
    parts = parts_of(member.name)
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count]), count < len(parts) or member.is_folder


def parts_of(name: str) -> list[str]:
    """The parts of a member's path below the folder."""
    return [part for part in name.split("/") if part not in ("", ".")]


def require_space(folder: Path, members: Sequence[Member]) -> None:
    """Refuse to begin what the disk cannot hold."""
    size, free = sum(member.size for member in members), shutil.disk_usage(folder.parent).free
    if size > free:
        raise RegEnvError(
            f"{folder.parent} has {free} bytes free, expected {size} for {folder.name}; free space or choose another "
            f"folder."
        )


def write_all(reader: Reader, members: Sequence[Member], folder: Path, quiet: bool) -> None:
    """Write members that have been judged into a folder that is new."""
    total = sum(member.size for member in members)
    with tqdm(total=total, desc=f"extract {folder.name}", unit="B", unit_scale=True, disable=quiet) as bar:
        for member in members:
            target = folder.joinpath(*parts_of(member.name))
            if member.is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            write(chunks(reader, member), target, bar)


def chunks(reader: Reader, member: Member) -> Iterator[bytes]:
    """The bytes of a file, exactly as many as the list gave; ValueError if the archive cannot be read so far."""
    left = member.size
    try:
        with reader.open(member) as source:
            while left >= 0 and (chunk := source.read(CHUNK)):
                left -= len(chunk)
                yield chunk[: len(chunk) + min(left, 0)]
    except OSError as error:  # not the disk that is written to: a place in the archive that it does not have
        raise ValueError(first_line(error)) from error
    if left:
        raise ValueError(f"{shown(member.name)} has not the {member.size} bytes of the list")


def write(chunks: Iterable[bytes], target: Path, bar: tqdm) -> None:
    """Write one file that is not there yet, through no link."""
    with create(target) as file:
        for chunk in chunks:
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def create(target: Path) -> IO[bytes]:
    """A file that did not exist, open for writing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return open(os.open(target, flags, 0o666), "wb")


def write_marker(path: Path, digest: str) -> None:
    """Note which archive a folder was made from."""
    with create(path) as file:
        file.write(f"{digest}\n".encode())
        file.flush()
        os.fsync(file.fileno())
