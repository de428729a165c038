"""Archives that were made to do harm, or that came to harm, each around the files that a command expects."""

import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.reliability.fetching import Tool, sound_zip
from tests.tools.data.fetch.archives import info_of, make_tar, make_zip, tar_info

__all__ = ["ATTACKS", "Attack", "sound"]

Make = Callable[[Tool, Path, Path], Any]
MANY = 200_001
ZEROS = bytes(48 << 20)


class Attack(NamedTuple):
    """One attack.

    Attributes:
        make: writes the archive for a tool at a path; the third argument is a folder that nobody may touch.
        words: what the refusal says; ``None``: the archive is harmless to who does not open what is in it.
        is_tar: it needs a tar, which only data come in.
        prepare: what lies in the way before, by the place that the archive is to be unpacked to and that folder.
    """

    make: Make
    words: str | None
    is_tar: bool = False
    prepare: Callable[[Path, Path], Any] = lambda place, outside: None


def holding(name: str, mode: int = 0, content: bytes = b"evil") -> Make:
    """A zip with one member more, of this name below the sound ones' folder unless it leads elsewhere."""
    return lambda tool, path, outside: sound_zip(tool, path, (info_of(f"{tool.final}/{name}", mode), content))


def leading_to(name: str) -> Make:
    """A zip with one member of exactly this name, ``{outside}`` being the folder that nobody may touch."""
    return lambda tool, path, outside: sound_zip(tool, path, (info_of(name.format(outside=outside)), b"evil"))


def through_a_link(tool: Tool, path: Path, outside: Path) -> None:
    """A zip with a link that leads out, and a file behind it."""
    link = info_of(f"{tool.final}/x", stat.S_IFLNK | 0o777)
    sound_zip(tool, path, (link, str(outside).encode()), (info_of(f"{tool.final}/x/evil"), b"evil"))


def tar_with(kind: bytes, linkname: str = "") -> Make:
    """A tar with one member that is no file."""
    return lambda tool, path, outside: make_tar(
        path, (tar_info("a.nii"), b"1"), (tar_info("x", kind, linkname=linkname.format(outside=outside)), b"")
    )


def swelling(tool: Tool, path: Path, outside: Path) -> None:
    """A zip of 48 kB that unpacks to 48 MB."""
    make_zip(path, (info_of(f"{tool.final}/readme.txt"), b"a scan"), (info_of(f"{tool.final}/zeros"), ZEROS))


def claiming(tool: Tool, path: Path, outside: Path) -> None:
    """A tar whose only header says 8 TiB."""
    path.write_bytes(tar_info("a.nii", size=8 << 40).tobuf(tarfile.GNU_FORMAT) + bytes(10_240))


def crowded(tool: Tool, path: Path, outside: Path) -> None:
    """A zip whose list names one empty file 200,001 times, by other names."""
    make_zip(path, (info_of("0"), b""), method=zipfile.ZIP_STORED)
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    head = bytearray(content[start : start + 46])
    struct.pack_into("<H", head, 28, 8)
    listed = b"".join(bytes(head) + b"%08d" % number for number in range(MANY))
    tail = bytearray(content[end:])
    struct.pack_into("<LL", tail, 12, len(listed), start)
    path.write_bytes(content[:start] + listed + tail)


def damaged(change: Callable[[bytes], bytes], method: int = zipfile.ZIP_STORED) -> Make:
    """A sound zip, its bytes changed."""

    def make(tool: Tool, path: Path, outside: Path) -> None:
        make_zip(path, *[(info_of(name), content) for name, content in tool.members.items()], method=method)
        path.write_bytes(change(path.read_bytes()))

    return make


def encrypted(content: bytes) -> bytes:
    """The first member's two flags say that it is."""
    changed = bytearray(content)
    changed[6] |= 1
    changed[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def flipped(content: bytes) -> bytes:
    """A bit of the first member's body."""
    changed = bytearray(content)
    changed[30 + content[26] + 2] ^= 1
    return bytes(changed)


def overstated(content: bytes) -> bytes:
    """The list gives the first member more bytes than it has."""
    changed = bytearray(content)
    place = content.index(b"PK\x01\x02") + 24
    struct.pack_into("<L", changed, place, struct.unpack_from("<L", content, place)[0] + 1000)
    return bytes(changed)


def with_nul(tool: Tool, path: Path, outside: Path) -> None:
    """A name that goes on behind its end."""
    sound_zip(tool, path, (info_of(f"{tool.final}/scan.niiX/../../evil"), b"evil"))
    path.write_bytes(path.read_bytes().replace(b"scan.niiX", b"scan.nii\0"))


def bomb_within(tool: Tool, path: Path, outside: Path) -> None:
    """A zip that swells, inside a zip that does not."""
    inner = make_zip(path.with_name("inner.zip"), (info_of("zeros"), ZEROS)).read_bytes()
    path.with_name("inner.zip").unlink()
    sound_zip(tool, path, (info_of(f"{tool.final}/inner.zip"), inner))


def sound(tool: Tool, path: Path, outside: Path) -> None:
    """A zip without fault; something else is in the way."""
    sound_zip(tool, path)


def taken(place: Path, outside: Path) -> None:
    """A file of somebody's in the folder."""
    place.mkdir(parents=True)
    (place / "readme.txt").write_bytes(b"mine")


def linked(place: Path, outside: Path) -> None:
    """A link in the folder's place that leads out."""
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / "empty")


ATTACKS = {
    "a path that leads out": Attack(leading_to("../../evil"), "leads out"),
    "a path that leads out on its way": Attack(holding("a/../../../evil"), "leads out"),
    "an absolute path": Attack(leading_to("{outside}/evil"), "absolute"),
    "backslashes": Attack(leading_to("..\\..\\evil"), "backslash"),
    "a drive letter": Attack(leading_to("C:/evil"), "drive letter"),
    "a symbolic link": Attack(holding("x", stat.S_IFLNK | 0o777, b"/etc/passwd"), "is a link"),
    "a file through a link": Attack(through_a_link, "is a link"),
    "a pipe": Attack(holding("x", stat.S_IFIFO | 0o666, b""), "pipe"),
    "a link in a tar": Attack(tar_with(tarfile.SYMTYPE, "{outside}"), "is a link", is_tar=True),
    "a hard link": Attack(tar_with(tarfile.LNKTYPE, "/etc/passwd"), "is a link", is_tar=True),
    "a device": Attack(tar_with(tarfile.CHRTYPE), "device", is_tar=True),
    "a bomb": Attack(swelling, "unpacks to more than"),
    "8 TiB by its word": Attack(claiming, "unpacks to more than", is_tar=True),
    "200,001 members": Attack(crowded, "holds more than"),
    "a bomb in an archive": Attack(bomb_within, None),
    "two files of one name": Attack(holding("readme.txt"), "takes the place"),
    "two files of one name but for case": Attack(holding("README.txt"), "takes the place"),
    "a file and a folder in one place": Attack(holding("readme.txt/evil"), "takes the place"),
    "a wrong checksum": Attack(damaged(flipped), "CRC"),
    "cut short": Attack(damaged(lambda content: content[: len(content) // 2]), "damaged"),
    "a size that is not so": Attack(damaged(overstated, zipfile.ZIP_DEFLATED), "damaged"),
    "encrypted": Attack(damaged(encrypted), "encrypted"),
    "a name of 300 bytes": Attack(holding("x" * 300), "longer than 255"),
    "a name that Windows keeps": Attack(holding("CON"), "Windows"),
    "a name with a NUL": Attack(with_nul, "leads out|control character"),
    "a name shown backwards": Attack(holding("scan\u202egpj.exe"), "control character"),
    "a link in the way": Attack(sound, "is a link", prepare=linked),
    "somebody's file in the way": Attack(sound, "move it away", prepare=taken),
}
