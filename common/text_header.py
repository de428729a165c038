"""The text in front of a MetaImage's or NRRD's voxels: whether it states a position, where a compressed stream starts.

ITK reads these files; it accepts damaged compressed streams, though, and hands out what it could unpack.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CompressedVoxels", "compressed_voxels", "read_text_header", "states_position"]

MOST = 1 << 20  # bytes that are looked at; headers have a few hundred
POSITION_KEYS = ("transformmatrix", "orientation", "rotation", "offset", "position", "origin", "space directions")
COMPRESSED = ("gzip", "gz")  # NRRD's names for one encoding; bzip2 has checksums that ITK's NRRD reader compares


@dataclass(frozen=True)
class CompressedVoxels:
    """Where the voxels are, one zlib or gzip stream.

    Attributes:
        path: the file that holds them.
        offset: first byte of the stream.
    """

    path: Path
    offset: int


def read_text_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields in front of the voxels, their names in small letters, and the byte behind them.

    A MetaImage's fields are ``Key = Value`` up to ``ElementDataFile``, an NRRD's ``key: value`` up to an empty line.
    """
    fields, position = {}, 0
    with open(path, "rb") as file:
        content = file.read(MOST)
    nrrd = content.startswith(b"NRRD")
    while position < len(content):
        end = content.find(b"\n", position)
        line = content[position : end if end >= 0 else len(content)].decode("latin-1").strip()
        position = end + 1 if end >= 0 else len(content)
        key, _, value = line.partition(":" if nrrd else "=")
        fields[key.strip().lower()] = value.strip()
        if (nrrd and not line) or key.strip().lower() == "elementdatafile":
            break
    return fields, position


def states_position(fields: dict[str, str]) -> bool:
    """Whether a header says how the voxels lie in space, and not their size alone."""
    return any(key in fields for key in POSITION_KEYS)


def compressed_voxels(path: Path) -> CompressedVoxels | None:
    """The one compressed stream of a file; ``None`` if its voxels are not compressed or lie in several files."""
    fields, offset = read_text_header(path)
    compressed = fields.get("compresseddata", "").lower() == "true" or fields.get("encoding", "").lower() in COMPRESSED
    name = fields.get("elementdatafile") or fields.get("data file") or fields.get("datafile") or "LOCAL"
    if not compressed or name.upper().startswith("LIST") or "%" in name or fields.get("byte skip", "0") != "0":
        return None
    return CompressedVoxels(path, offset) if name.upper() == "LOCAL" else CompressedVoxels(path.parent / name, 0)
