"""Compressed streams read to their end, so that a cut or a flipped bit shows: most readers stop at the last voxel."""

import zlib
from pathlib import Path

from .errors import RegInputError

__all__ = ["stream_length"]

CHUNK = 1 << 20
EITHER = 32 + zlib.MAX_WBITS  # zlib's sign for a gzip or a zlib header, whichever is there
PADDING = b"\0\r\n"  # what writers leave behind a stream


def stream_length(path: Path, enough: int, offset: int = 0) -> int:
    """Length of the content of a gzip or zlib stream; its checksum is compared, of every member of a gzip file.

    Reading stops when the content is twice as long as ``enough`` bytes: a stream that goes on is no scan.

    Args:
        path: the file.
        enough: bytes that are expected.
        offset: where in the file the stream starts.

    Raises:
        RegInputError: if the stream is damaged, cut, much too long, or followed by something else than zeros.
    """
    total, stream = 0, zlib.decompressobj(wbits=EITHER)
    with open(path, "rb") as file:
        file.seek(offset)
        pending = file.read(CHUNK)
        while pending:
            try:
                total += len(stream.decompress(pending, CHUNK))
            except zlib.error as error:
                raise RegInputError(
                    f"{path} is damaged ({error}), expected a sound compressed stream; fetch it again."
                ) from None
            if total > 2 * enough + CHUNK:
                raise RegInputError(f"{path} unpacks to {total} bytes or more, expected {enough}; fetch it again.")
            pending = stream.unconsumed_tail or stream.unused_data or file.read(CHUNK)
            if stream.eof:
                if not pending.strip(PADDING):
                    return total
                stream = zlib.decompressobj(wbits=EITHER)  # another member, or what zlib will call an incorrect header
    raise RegInputError(f"{path} ends before its checksum, expected a whole file; fetch it again.")
