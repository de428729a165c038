import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import RegEnvError, RegInputError
from tools.data.source import RemoteFile

from .fetching import CONTENT, MD5, SHA256, get, names, refused, remote
from .loopback import in_turn, send, serve

REPOSITORY = Path(__file__).parents[4]


def put(folder, content):
    (folder / "scans.zip").write_bytes(content)


def test_a_file_arrives_whole_and_alone(tmp_path):
    with serve(send(CONTENT)) as server:
        path = get(remote(server, size=len(CONTENT), sha256=SHA256.upper()), tmp_path / "new")
        assert path == tmp_path / "new" / "scans.zip"
        assert path.read_bytes() == CONTENT
        assert names(path.parent) == ["scans.zip"]


def test_what_is_there_with_the_right_hash_is_not_asked_for(tmp_path):
    put(tmp_path, CONTENT)
    with serve(send(b"other")) as server:
        get(remote(server, sha256=SHA256), tmp_path)
        get(remote(server, md5=MD5), tmp_path)
        assert server.requests == []


def test_what_is_there_with_another_hash_is_named_with_both_and_replaced_by_force(tmp_path):
    put(tmp_path, b"other")
    with serve(send(CONTENT)) as server:
        file = remote(server, sha256=SHA256)
        sentence = refused(RegInputError, "force", file, tmp_path, ["scans.zip"])
        assert SHA256 in sentence and hashlib.sha256(b"other").hexdigest() in sentence
        assert get(file, tmp_path, force=True).read_bytes() == CONTENT


def test_a_wrong_hash_leaves_nothing_and_what_was_there_stays(tmp_path):
    with serve(send(CONTENT)) as server:
        refused(RegInputError, "SHA-256", remote(server, sha256="0" * 64), tmp_path)
        refused(RegInputError, "MD5", remote(server, md5="0" * 32), tmp_path)
        put(tmp_path, b"other")
        refused(RegInputError, "SHA-256", remote(server, sha256="0" * 64), tmp_path, ["scans.zip"], force=True)
        assert (tmp_path / "scans.zip").read_bytes() == b"other"


def test_the_first_hash_is_noted_and_compared_ever_after(tmp_path):
    with serve(in_turn(send(CONTENT), send(b"newer"))) as server:
        for known in ({}, {"md5": MD5}):
            path = get(remote(server, **known), tmp_path)
            assert (tmp_path / "scans.zip.sha256").read_text() == f"{SHA256}  scans.zip\n"
        path.write_bytes(b"damaged")
        refused(RegInputError, SHA256, remote(server), tmp_path, ["scans.zip", "scans.zip.sha256"])
        path.unlink()
        refused(RegInputError, "when it was first fetched", remote(server), tmp_path, ["scans.zip.sha256"])
        assert get(remote(server), tmp_path, force=True).read_bytes() == b"newer"
        assert hashlib.sha256(b"newer").hexdigest() in (tmp_path / "scans.zip.sha256").read_text()


def test_names_that_a_server_suggests_are_not_used(tmp_path):
    def evil(handler, request):
        handler.head(200, {"Content-Length": "5", "Content-Disposition": 'attachment; filename="../../evil.zip"'})
        handler.body(b"12345", request)

    with serve(evil) as server:
        get(remote(server), tmp_path / "folder")
        assert names(tmp_path) == ["folder"]
        assert names(tmp_path / "folder") == ["scans.zip", "scans.zip.sha256"]


@pytest.mark.parametrize("name", ["../scans.zip", "/scans.zip", "a\nb", "", ".."])
def test_a_catalog_that_names_a_path_is_refused(tmp_path, name):
    refused(RegInputError, "plain file name", RemoteFile(name, "https://example.org/"), tmp_path)


def test_bytes_are_written_through_no_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scans.zip.part").symlink_to(victim)
    (tmp_path / "data" / "scans.zip.part.json").write_text("{}")
    with serve(send(CONTENT)) as server:
        get(remote(server), tmp_path / "data")
    assert victim.read_bytes() == b"mine"


CHILD = """
import sys
from pathlib import Path
from tools.data.fetch.download import fetch
from tools.data.source import RemoteFile
url, folder, size = sys.argv[1:4]
if len(sys.argv) > 4:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    fetch(RemoteFile("scans.zip", url), Path(folder), allow_http=True, quiet=True)
except OSError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def child(server, folder, *arguments):
    command = [sys.executable, "-c", CHILD, f"{server.url}/scans.zip", str(folder), "0", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_download_is_taken_up_where_it_was(tmp_path):
    with serve(in_turn(send(CONTENT, pause_s=0.05), send(CONTENT))) as server:
        process = child(server, tmp_path)
        part = tmp_path / "scans.zip.part"
        wait_until(lambda: part.exists() and part.stat().st_size > 60_000)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        arrived = part.stat().st_size
        assert 60_000 < arrived < len(CONTENT)
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert server.sent(1) == len(CONTENT) - arrived
        assert names(tmp_path) == ["scans.zip", "scans.zip.sha256"]


def test_what_a_kill_left_beside_a_file_that_is_whole_goes_with_the_next_call(tmp_path):
    put(tmp_path, CONTENT)
    for name in ("scans.zip.lock", "scans.zip.part.json", ".999999999.writable"):
        (tmp_path / name).touch()
    get(RemoteFile("scans.zip", "https://example.org/", sha256=SHA256), tmp_path)
    assert names(tmp_path) == ["scans.zip"]


def test_two_processes_fetch_once(tmp_path):
    with serve(send(CONTENT, pause_s=0.03)) as server:
        processes = [child(server, tmp_path) for _ in range(2)]
        for process in processes:
            assert process.communicate()[1] == "" and process.returncode == 0
        assert len(server.requests) == 1
        assert (tmp_path / "scans.zip").read_bytes() == CONTENT
        assert names(tmp_path) == ["scans.zip", "scans.zip.sha256"]


def test_a_full_disk_costs_one_sentence_and_leaves_nothing(tmp_path):
    with serve(send(CONTENT)) as server:
        error = child(server, tmp_path, 100_000).communicate()[1]
    assert error.startswith("RegEnvError: ") and "free space" in error and error.count("\n") == 1
    assert names(tmp_path) == []


def test_a_file_larger_than_the_disk_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10))
    with serve(send(CONTENT)) as server:
        refused(RegEnvError, "10 bytes free", remote(server, size=len(CONTENT)), tmp_path)
        assert server.requests == []


def test_a_folder_that_cannot_be_made_costs_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with serve(send(CONTENT)) as server:
        with pytest.raises(RegEnvError, match="cannot be written"):
            get(remote(server), tmp_path / "file" / "folder")
        assert server.requests == []


def test_a_folder_in_the_files_place_is_refused(tmp_path):
    (tmp_path / "scans.zip").mkdir()
    refused(RegInputError, "is not a file", RemoteFile("scans.zip", "https://example.org/"), tmp_path, ["scans.zip"])


def test_the_bar_goes_to_standard_error(tmp_path, capsys):
    with serve(send(CONTENT)) as server:
        get(remote(server), tmp_path, quiet=False)
    out, error = capsys.readouterr()
    assert out == "" and "scans.zip" in error and "100%" in error
