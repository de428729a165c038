import gzip
import zlib

import pytest

from common.errors import RegInputError
from common.streams import stream_length

CONTENT = bytes(range(256)) * 40


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_sound_stream_behind_a_header_has_its_length(tmp_path, compress):
    (tmp_path / "a").write_bytes(b"header" + compress(CONTENT) + b"\0\0\n")
    assert stream_length(tmp_path / "a", len(CONTENT), offset=6) == len(CONTENT)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize(
    "spoil", [lambda c: c[:-1], lambda c: c[:40] + bytes([c[40] ^ 1]) + c[41:], lambda c: c + b"x"]
)
def test_a_cut_a_flipped_bit_and_rubbish_behind_it_are_found(tmp_path, compress, spoil):
    (tmp_path / "a").write_bytes(spoil(compress(CONTENT)))
    with pytest.raises(RegInputError, match=r"is damaged|before its checksum"):
        stream_length(tmp_path / "a", len(CONTENT))


def test_a_bomb_is_not_unpacked(tmp_path):
    (tmp_path / "a").write_bytes(zlib.compress(bytes(20_000_000)))
    with pytest.raises(RegInputError, match="unpacks to"):
        stream_length(tmp_path / "a", 1000)
