import gzip
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import RegEnvError
from tools.data.fetch.archive import COMPLETE, create

from .archives import FILES, info_of, make_tar, make_zip, ordinary, refused, tar_info, tree, unpack

REPOSITORY = Path(__file__).parents[4]


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


def test_a_link_in_the_folders_place_is_not_filled(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    refused(ordinary(tmp_path / "scans.zip"), "is a link")


def test_a_link_to_what_was_extracted_elsewhere_is_taken(tmp_path):
    archive = ordinary(tmp_path / "scans.zip")
    (tmp_path / "out").symlink_to(unpack(archive, tmp_path / "large disk"))
    assert unpack(archive, tmp_path / "out") == tmp_path / "out"


def test_what_a_kill_left_beside_a_folder_that_is_whole_goes_with_the_next_call(tmp_path):
    archive = ordinary(tmp_path / "scans.zip")
    unpack(archive, tmp_path / "out")
    (tmp_path / "out.lock").touch()
    (tmp_path / ".999999999.old.out").mkdir()
    unpack(archive, tmp_path / "out")
    assert names(tmp_path) == ["out", "scans.zip"]


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


def test_nothing_that_is_there_is_written_to(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            create(tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b"mine" and not (tmp_path / "elsewhere").exists()


def test_every_finding_is_counted(tmp_path):
    archive = make_zip(tmp_path / "evil.zip", *[(info_of(f"../{count}"), b"1") for count in range(3)])
    refused(archive, "'../0', which leads out of the folder, and 2 more")


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tar.gz", "bomb.gz"])
def test_an_archive_that_swells_is_refused(tmp_path, name):
    zeros, archive = bytes(20 << 20), tmp_path / name
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


def test_a_disk_that_is_too_small_is_not_filled(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    refused(ordinary(tmp_path / "scans.zip"), "10 bytes free", RegEnvError)


CHILD = """
import sys
from pathlib import Path
import resource, signal
from tools.data.fetch.archive import extract
import tools.data.fetch.archive as archive
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
    extract(Path(sys.argv[1]), Path(sys.argv[2]), quiet=len(sys.argv) < 5)
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def child(archive, folder, *mode):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(archive), str(folder), *mode],
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
    second = child(archive, tmp_path / "out", "slow", "aloud")
    while "waiting for another process" not in (line := second.stderr.readline()):
        assert line
    first.communicate("\n" * 10)
    assert second.communicate("\n" * 10)[0] == ""  # not a file written
    assert first.returncode == second.returncode == 0
    assert FILES.items() <= tree(tmp_path / "out").items()
    assert names(tmp_path) == ["out", "scans.zip"]
