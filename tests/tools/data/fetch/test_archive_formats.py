import gzip
import io
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from common.errors import RegInputError
from tools.data.fetch.archive_formats import Bounded

from .archives import FILES, info_of, make_tar, make_zip, ordinary, refused, tar_info, tree, unpack


def test_a_name_that_goes_on_behind_a_nul_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("scan.niiX/../../evil"), b"1"))
    archive.write_bytes(archive.read_bytes().replace(b"scan.niiX", b"scan.nii\0"))
    refused(archive, "leads out|control character")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    refused(make_tar(tmp_path / "evil.tar", (tar_info("scan\udcff"), b"1")), "UTF-8")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
        (b"Z", "unknown kind"),
    ],
)
def test_a_tar_with_more_than_files_and_folders_is_refused(tmp_path, kind, words):
    info = tar_info("data/x", kind, linkname="/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else "")
    refused(make_tar(tmp_path / "evil.tar.gz", (tar_info("data/a"), b"1"), (info, b"")), words)


@pytest.mark.parametrize(
    ("mode", "words"),
    [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "pipe"), (stat.S_IFCHR, "device"), (stat.S_IFDIR, "folder")],
)
def test_a_zip_with_more_than_files_and_folders_is_refused(tmp_path, mode, words):
    refused(make_zip(tmp_path / "evil.zip", (info_of("data/x", mode | 0o777), b"/etc/passwd")), words)


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("a"), b"1"))
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    refused(archive, "encrypted")


def test_a_method_that_not_every_python_knows_is_refused(tmp_path):
    refused(make_zip(tmp_path / "evil.zip", (info_of("a"), b"1"), method=zipfile.ZIP_BZIP2), "method 12")


def test_a_zip_that_understates_a_size_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("a"), b"12345678"), method=zipfile.ZIP_STORED)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<LL", 8, 8), struct.pack("<LL", 8, 4)))
    refused(archive, "damaged")


def test_a_zip_that_overstates_a_size_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("a"), b"12345678"))
    content = bytearray(archive.read_bytes())
    struct.pack_into("<L", content, content.index(b"PK\x01\x02") + 24, 100)  # zipfile alone takes the 8 bytes
    archive.write_bytes(content)
    refused(archive, "not the 100 bytes of the list")


def test_a_zip_that_points_outside_of_itself_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("a"), b"1"))
    content = bytearray(archive.read_bytes())
    offset = content.index(b"PK\x01\x02") + 42
    content[content.index(b"PK\x05\x06") + 16] += 1  # the list begins a byte later: every place moves by one
    content[offset : offset + 4] = struct.pack("<L", 0)
    archive.write_bytes(content)
    refused(archive, "damaged")


def test_a_list_without_end_is_not_read_into_objects(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "many.zip", *[(info_of(f"a/{count}"), b"") for count in range(11)])
    made = []
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: made.append(1))
    refused(archive, "more than 10 members", max_entries=10)
    assert made == []


def test_a_member_that_looks_like_a_list_is_none(tmp_path):
    content = (b"PK\1\2" + bytes(42)) * 20
    archive = make_zip(tmp_path / "scans.zip", (info_of("a"), content), method=zipfile.ZIP_STORED)
    assert tree(unpack(archive, tmp_path / "out", max_entries=10))["a"] == content


def test_a_zip_with_a_wrong_checksum_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("a"), b"12345678"), method=zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"12345678", b"12345679"))
    refused(archive, "CRC")


def test_a_gzip_with_a_wrong_checksum_is_refused(tmp_path):
    archive = make_tar(tmp_path / "evil.tar.gz", (tar_info("a"), b"1" * 5000))
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1
    archive.write_bytes(content)
    refused(archive, "CRC")


@pytest.mark.parametrize("name", ["scans.zip", "scans.tar", "scans.tar.gz", "scans.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_an_archive_cut_short_is_refused(tmp_path, name, share):
    archive = tmp_path / name
    archive.write_bytes(gzip.compress(FILES["data/a/scan 1.nii"])) if name == "scans.gz" else ordinary(archive)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    refused(archive, "damaged")


def test_a_tar_cut_between_two_members_is_refused(tmp_path):
    archive = make_tar(tmp_path / "scans.tar", (tar_info("a"), b"1"), (tar_info("b"), b"2"))
    archive.write_bytes(archive.read_bytes()[:1024])
    refused(archive, "its end is missing")


def test_a_tar_with_a_broken_header_in_its_middle_is_refused(tmp_path):
    archive = make_tar(tmp_path / "scans.tar", (tar_info("a"), b"1"), (tar_info("b"), b"2"))
    content = bytearray(archive.read_bytes())
    content[1024 + 150] ^= 0xFF  # the second header's checksum
    archive.write_bytes(content)
    refused(archive, "broken")


def test_a_tar_with_an_endless_header_does_not_fill_the_memory(tmp_path):
    header = tar_info("x", tarfile.XHDTYPE, size=64 << 20).tobuf(tarfile.USTAR_FORMAT)
    archive = tmp_path / "evil.tar.gz"
    archive.write_bytes(gzip.compress(header + bytes(64 << 20)))
    refused(archive, "a header in it", max_ratio=1e9)


@pytest.mark.parametrize("name", ["scans.zip", "scans.tar", "scans.tar.gz", "scans.gz"])
def test_a_web_page_is_recognized(tmp_path, name):
    (tmp_path / name).write_bytes(b"<!DOCTYPE html><html>please log in</html>")
    refused(tmp_path / name, "web page.*login")


@pytest.mark.parametrize(("name", "words"), [("scans.rar", "no archive by its name"), ("absent.zip", "fetch it")])
def test_what_is_no_archive_is_refused(tmp_path, name, words):
    if name != "absent.zip":
        (tmp_path / name).write_bytes(b"Rar!")
    refused(tmp_path / name, words)


def test_a_compressed_stream_is_not_read_past_its_limit():
    stream = Bounded(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(bytes(5000)))), Path("bomb.gz"), 1000)
    assert stream.read(1000) == bytes(1000)
    for step in (lambda: stream.read(1), lambda: stream.seek(1001), lambda: stream.seek(1, io.SEEK_CUR)):
        with pytest.raises(RegInputError, match="more than 1000 bytes"):
            step()
        stream.stream.seek(1000)
