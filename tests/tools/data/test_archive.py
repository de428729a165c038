import gzip
import hashlib
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import RegEnvError, RegInputError
from tools.data.archive import COMPLETE, extract
from tools.data.hashes import hashes_of

REPOSITORY = Path(__file__).parents[3]
FILES = {"data/readme.txt": b"scans\n", "data/a/scan 1.nii": os.urandom(2_500_000), "data/b/empty": b""}


def info_of(name, mode=0, **fields):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def make_zip(path, *members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for info, content in members:
            archive.writestr(info, content, compress_type=method)
    return path


def tar_info(name, kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def make_tar(path, *members):
    mode = "w" if path.name.endswith(".tar") else "w:gz"
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def ordinary(path):
    if path.name.lower().endswith(".zip"):
        return make_zip(path, *[(info_of(name), content) for name, content in FILES.items()])
    return make_tar(path, *[(tar_info(f"./{name}"), content) for name, content in FILES.items()])


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpack(archive, folder, **options):
    return extract(archive, folder, quiet=True, **options)


def refused(archive, words, kind=RegInputError, **options):
    """The sentence of a failed call, which leaves the archive alone in its folder."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(kind, match=words) as caught:
        unpack(archive, archive.parent / "out", **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.isprintable() and sentence.endswith(".")
    assert sorted(archive.parent.rglob("*")) == before
    return sentence


@pytest.mark.parametrize("name", ["scans.zip", "scans.tar", "scans.tar.gz", "scans.tgz", "SCANS.ZIP"])
def test_what_was_packed_comes_out_beside_the_archives_hash(tmp_path, name):
    archive = ordinary(tmp_path / name)
    folder = unpack(archive, tmp_path / "out")
    assert folder == tmp_path / "out"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert tree(folder) == FILES | {COMPLETE: f"{digest}\n".encode()}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out"])


def test_a_single_file_in_gzip_loses_its_ending(tmp_path):
    archive = tmp_path / "pairs.csv.gz"
    archive.write_bytes(gzip.compress(b"a,b\n"))
    assert tree(unpack(archive, tmp_path / "out"))["pairs.csv"] == b"a,b\n"


def test_an_archive_in_an_archive_is_extracted_by_another_call(tmp_path):
    inner = ordinary(tmp_path / "inner_volumes.tar.gz")
    outer = make_zip(tmp_path / "outer.zip", (info_of("all/inner_volumes.tar.gz"), inner.read_bytes()))
    first = unpack(outer, tmp_path / "out")
    second = unpack(first / "all" / "inner_volumes.tar.gz", tmp_path / "inner")
    assert FILES.items() <= tree(second).items()


def test_what_is_extracted_is_not_extracted_again(tmp_path):
    archive = ordinary(tmp_path / "scans.zip")
    folder = unpack(archive, tmp_path / "out")
    (folder / "data" / "readme.txt").write_text("mine")
    unpack(archive, folder)
    assert (folder / "data" / "readme.txt").read_text() == "mine"


@pytest.mark.parametrize("mark", [None, "0" * 64])
def test_a_folder_of_something_else_is_left_alone(tmp_path, mark):
    archive = ordinary(tmp_path / "scans.zip")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    if mark:
        (tmp_path / "out" / COMPLETE).write_text(mark)
    refused(archive, "move it away")


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert FILES.items() <= tree(unpack(ordinary(tmp_path / "scans.tar"), tmp_path / "out")).items()


def test_a_file_in_the_folders_place_is_left_alone(tmp_path):
    (tmp_path / "out").write_text("mine")
    refused(ordinary(tmp_path / "scans.zip"), "is a file")


def test_rights_of_others_are_not_taken_over(tmp_path):
    members = [(tar_info("run", mode=0o6777), b"1"), (tar_info("sub", tarfile.DIRTYPE, mode=0o000), b"")]
    folder = unpack(make_tar(tmp_path / "scans.tar", *members), tmp_path / "out")
    assert stat.S_IMODE((folder / "run").stat().st_mode) & 0o7111 == 0
    assert os.access(folder / "sub", os.W_OK)


NAMES = {
    "../evil": "leads out",
    "a/../../evil": "leads out",
    "/etc/evil": "absolute",
    "//server/evil": "absolute",
    "C:/evil": "drive letter",
    "C:evil": "drive letter",
    "..\\evil": "backslash",
    "a\x1b[31m": "control character",
    "line\nfeed": "control character",
    "scan\u202egpj.exe": "control character",
    "sub/CON": "Windows",
    "nul.txt": "Windows",
    "sub./a": "Windows",
    "a ": "Windows",
    "x" * 256: "longer than 255",
    "y/" * 600 + "a": "longer than 1024",
    "é" * 128: "longer than 255",
    COMPLETE: "mark that we set",
    ".Complete/a": "mark that we set",
    ".": "no name",
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(("name", "words"), NAMES.items(), ids=[ascii(name[:20]) for name in NAMES])
def test_names_that_lead_elsewhere_are_refused(tmp_path, kind, name, words):
    sound = "data/a"
    if kind == "zip":
        archive = make_zip(tmp_path / "evil.zip", (info_of(sound), b"1"), (info_of(name), b"2"))
    else:
        archive = make_tar(tmp_path / "evil.tar", (tar_info(sound), b"1"), (tar_info(name), b"2"))
    refused(archive, words)


def test_a_name_that_goes_on_behind_a_nul_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("scan.niiX/../../evil"), b"1"))
    archive.write_bytes(archive.read_bytes().replace(b"scan.niiX", b"scan.nii\0"))
    refused(archive, "leads out|control character")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    refused(make_tar(tmp_path / "evil.tar", (tar_info("scan\udcff"), b"1")), "UTF-8")


@pytest.mark.parametrize(
    "both",
    [("a/scan", "a/scan"), ("a/Scan", "a/scan"), ("A/one", "a/two"), ("a", "a/b"), ("a/b", "a"), ("\u00e9", "e\u0301")],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_in_one_place_are_refused(tmp_path, kind, both):
    if kind == "zip":
        archive = make_zip(tmp_path / "evil.zip", *[(info_of(name), b"1") for name in both])
    else:
        archive = make_tar(tmp_path / "evil.tar", *[(tar_info(name), b"1") for name in both])
    refused(archive, "takes the place")


def test_a_folder_may_be_listed_twice(tmp_path):
    members = [(tar_info("a", tarfile.DIRTYPE), b""), (tar_info("a/b"), b"1"), (tar_info("a", tarfile.DIRTYPE), b"")]
    assert tree(unpack(make_tar(tmp_path / "scans.tar", *members), tmp_path / "out"))["a/b"] == b"1"


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


def test_every_finding_is_counted(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", *[(info_of(f"../{count}"), b"1") for count in range(3)])
    refused(archive, "'../0', which leads out of the folder, and 2 more")


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz", "bomb.gz"])
def test_an_archive_that_swells_is_refused(tmp_path, name):
    zeros, archive = bytes(40 << 20), tmp_path / name
    if name == "bomb.zip":
        make_zip(archive, (info_of("zeros"), zeros))
    elif name == "bomb.tar.gz":
        make_tar(archive, (tar_info("zeros"), zeros))
    else:
        archive.write_bytes(gzip.compress(zeros))
    refused(archive, "unpacks to more than", max_entries=10)
    refused(archive, "unpacks to more than 1000 bytes", max_entries=10, max_bytes=1000, max_ratio=2000)
    folder = unpack(archive, tmp_path / "out", max_ratio=2000, max_entries=10)
    assert [zeros] == [content for name, content in tree(folder).items() if name != COMPLETE]


@pytest.mark.parametrize("name", ["many.zip", "many.tar"])
def test_too_many_members_are_refused(tmp_path, name):
    members = [f"a/{count}" for count in range(11)]
    if name == "many.zip":
        archive = make_zip(tmp_path / name, *[(info_of(member), b"") for member in members])
    else:
        archive = make_tar(tmp_path / name, *[(tar_info(member), b"") for member in members])
    refused(archive, "more than 10 members", max_entries=10)


def test_a_zip_that_understates_a_size_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("a"), b"12345678"), method=zipfile.ZIP_STORED)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<LL", 8, 8), struct.pack("<LL", 8, 4)))
    refused(archive, "damaged")


def test_a_zip_that_points_outside_of_itself_is_refused(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", (info_of("a"), b"1"))
    content = bytearray(archive.read_bytes())
    offset = content.index(b"PK\x01\x02") + 42
    content[content.index(b"PK\x05\x06") + 16] += 1  # the list begins a byte later: every place moves by one
    content[offset : offset + 4] = struct.pack("<L", 0)
    archive.write_bytes(content)
    refused(archive, "damaged")


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


def test_a_disk_that_is_too_small_is_not_filled(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    refused(ordinary(tmp_path / "scans.zip"), "10 bytes free", RegEnvError)


CHILD = """
import sys
from pathlib import Path
import resource, signal
from tools.data.archive import extract
import tools.data.archive as archive
if sys.argv[3] == "slow":
    write = archive.write
    def slowly(chunks, target, bar):
        write(chunks, target, bar)
        print(target, flush=True)
        sys.stdin.readline()
    archive.write = slowly
elif sys.argv[3] == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    extract(Path(sys.argv[1]), Path(sys.argv[2]), quiet=True)
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def child(archive, folder, mode):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(archive), str(folder), mode],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_extraction_leaves_no_folder_of_that_name_and_is_cleared_by_the_next(tmp_path):
    archive = ordinary(tmp_path / "scans.zip")
    process = child(archive, tmp_path / "out", "slow")
    assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out").exists() and len(names(tmp_path)) > 1
    assert FILES.items() <= tree(unpack(archive, tmp_path / "out")).items()
    assert names(tmp_path) == ["out", "scans.zip"]


def test_a_disk_that_fills_up_costs_one_sentence_and_leaves_nothing(tmp_path):
    error = child(ordinary(tmp_path / "scans.zip"), tmp_path / "out", "full").communicate()[1]
    assert error.startswith("RegEnvError: ") and error.count("\n") == 1
    assert names(tmp_path) == ["scans.zip"]


def test_the_second_of_two_processes_waits_and_takes_what_the_first_made(tmp_path):
    archive = ordinary(tmp_path / "scans.zip")
    first = child(archive, tmp_path / "out", "slow")
    assert first.stdout.readline()
    second = child(archive, tmp_path / "out", "fast")
    time.sleep(0.2)
    assert second.poll() is None
    for process, words in ((first, "\n" * 10), (second, "")):
        assert process.communicate(words)[1] == "" and process.returncode == 0
    assert FILES.items() <= tree(tmp_path / "out").items()
    assert names(tmp_path) == ["out", "scans.zip"]


def test_hashes_are_those_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    found = hashes_of(tmp_path / "abc", quiet=True)
    assert found.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found.md5 == "900150983cd24fb0d6963f7d28e17f72"
