import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import RegEnvError, RegInputError
from tools.data.download import fetch
from tools.data.source import RemoteFile
from tools.data.web import Patience

from .loopback import in_turn, send, serve, status

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
QUICK = Patience(connect_s=10.0, read_s=20.0, tries=5, pause_s=0.01)  # a busy machine may take seconds
HASTY = QUICK._replace(read_s=0.3, tries=2)
REPOSITORY = Path(__file__).parents[3]


def remote(server, **known):
    return RemoteFile("scans.zip", f"{server.url}/scans.zip", **known)


def get(file, folder, **options):
    return fetch(file, folder, **{"allow_http": True, "quiet": True, "patience": QUICK} | options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(kind, words, file, folder, left=(), **options):
    """The one sentence of a failed call, which leaves only ``left`` in the folder."""
    with pytest.raises(kind, match=words) as caught:
        get(file, folder, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    assert names(folder) == sorted(left)
    return sentence


def put(folder, content):
    (folder / "scans.zip").write_bytes(content)


def half(size=100_000, tag='"v1"', **headers):
    """An answer that announces everything and breaks off."""

    def answer(handler, request):
        handler.head(200, {"Content-Length": str(len(CONTENT)), "ETag": tag} | headers)
        handler.body(CONTENT[:size], request)

    return answer


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


def test_what_broke_off_is_resumed_under_its_tag(tmp_path):
    with serve(in_turn(half(), send(CONTENT))) as server:
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert server.requests[1].headers["Range"] == "bytes=100000-"
        assert server.requests[1].headers["If-Range"] == '"v1"'
        assert server.sent(1) == len(CONTENT) - 100_000


def test_what_broke_off_is_resumed_by_its_date_where_the_tag_is_weak(tmp_path):
    date = "Sat, 28 Feb 2026 12:00:00 GMT"
    with serve(in_turn(half(tag='W/"v1"', **{"Last-Modified": date}), send(CONTENT, tag=date))) as server:
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert server.requests[1].headers["If-Range"] == date
        assert server.sent(1) == len(CONTENT) - 100_000


@pytest.mark.parametrize(
    "second",
    [
        send(CONTENT, tag='"v2"'),
        send(CONTENT, ranges=False),
        lambda handler, request: (
            handler.head(206, {"Content-Range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"}),
            handler.body(CONTENT[5:], request),
        ),
        lambda handler, request: (
            handler.head(206, {"Content-Range": f"bytes 100000-299999/{len(CONTENT)}", "ETag": '"v2"'}),
            handler.body(bytes(200_000), request),
        ),
        status(416, Content_Range="bytes */5"),
    ],
    ids=["changed tag", "ranges ignored", "another part", "part of another version", "too short by now"],
)
def test_two_versions_are_never_put_together(tmp_path, second):
    with serve(in_turn(half(tag='"v1"'), second, send(CONTENT, tag='"v2"'))) as server:
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert names(tmp_path) == ["scans.zip", "scans.zip.sha256"]


def test_a_server_that_gives_less_than_was_asked_for_is_asked_again(tmp_path):
    def some(handler, request):
        start = int(request.headers["Range"][6:-1])
        end = min(start + 70_000, len(CONTENT))
        handler.head(206, {"Content-Range": f"bytes {start}-{end - 1}/{len(CONTENT)}", "ETag": '"v1"'})
        handler.body(CONTENT[start:end], request)

    with serve(in_turn(half(), some)) as server:
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert len(server.requests) == 4


def test_a_body_without_an_end_of_its_own_is_complete_at_the_published_size(tmp_path):
    def short(handler, request):
        handler.head(200, {"ETag": '"v1"'})
        handler.body(CONTENT[:1000], request)

    with serve(in_turn(short, send(CONTENT))) as server:
        assert get(remote(server, size=len(CONTENT)), tmp_path).read_bytes() == CONTENT
        assert server.sent(1) == len(CONTENT) - 1000


def test_bytes_without_a_version_are_not_built_on(tmp_path):
    (tmp_path / "scans.zip.part").write_bytes(b"whatever")
    with serve(send(CONTENT)) as server:
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert "Range" not in server.requests[0].headers


@pytest.mark.parametrize("known", [{}, {"size": len(CONTENT)}], ids=["size unknown", "size known"])
def test_a_part_that_was_whole_already_is_checked_and_named(tmp_path, known):
    (tmp_path / "scans.zip.part").write_bytes(CONTENT)
    with serve(send(CONTENT)) as server:
        file = remote(server, sha256=SHA256, **known)
        (tmp_path / "scans.zip.part.json").write_text(f'{{"url": "{file.url}", "version": "\\"v1\\""}}')
        assert get(file, tmp_path).read_bytes() == CONTENT
        assert sum(map(server.sent, range(len(server.requests)))) == 0
        assert names(tmp_path) == ["scans.zip"]


def test_four_failures_are_forgiven(tmp_path):
    with serve(in_turn(*[status(code) for code in (500, 502, 503, 429)], send(CONTENT))) as server:
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert len(server.requests) == 5


def test_the_fifth_failure_is_told(tmp_path):
    with serve(status(500)) as server:
        refused(RegEnvError, "5 tries .*500", remote(server), tmp_path)
        assert len(server.requests) == 5


def test_a_server_that_asks_for_a_pause_gets_it(tmp_path):
    with serve(in_turn(status(503, Retry_After="1"), send(CONTENT))) as server:
        began = time.monotonic()
        get(remote(server), tmp_path)
        assert time.monotonic() - began >= 1


def stalling(handler, request):
    handler.head(200, {"Content-Length": str(len(CONTENT))})
    handler.body(CONTENT[:1000], request)
    handler.stall()


def dripping(handler, request):
    handler.head(200, {"Content-Length": str(len(CONTENT))})
    for byte in CONTENT[:100]:
        handler.body(bytes([byte]), request, pause_s=0.05)


def silent(handler, request):
    handler.stall()


def reset(handler, request):
    handler.connection.close()


def cut_chunks(handler, request):
    handler.protocol_version = "HTTP/1.1"
    handler.head(200, {"Transfer-Encoding": "chunked"})
    handler.wfile.write(b"1000\r\n" + CONTENT[:100])
    handler.close_connection = True


@pytest.mark.parametrize(
    ("bad", "words", "left"),
    [
        (stalling, "timed out", ["scans.zip.part"]),
        (dripping, "bytes in|timed out", ["scans.zip.part"]),
        (silent, "timed out", []),
        (reset, "tries", []),
        (half(), "broke off after 100000 of 300000 bytes|IncompleteRead", ["scans.zip.part", "scans.zip.part.json"]),
        (cut_chunks, "tries", None),
    ],
)
def test_a_server_that_never_gives_everything_costs_one_sentence(tmp_path, bad, words, left):
    with serve(bad) as server:
        with pytest.raises(RegEnvError, match=words) as caught:
            get(remote(server), tmp_path, patience=HASTY)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "scans.zip").exists()
        assert left is None or names(tmp_path) == left


def test_a_server_that_goes_on_a_little_each_time_is_followed_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.data.transfer.PROGRESS", 20_000)

    def little(handler, request):
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"Content-Length": str(len(CONTENT) - start), "ETag": '"v1"'}
        headers |= {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if start else {}
        handler.head(206 if start else 200, headers)
        handler.body(CONTENT[start : start + 40_000], request)

    with serve(little) as server:
        assert get(remote(server), tmp_path).read_bytes() == CONTENT
        assert len(server.requests) == 8


def test_a_server_that_always_breaks_off_at_the_same_place_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.data.transfer.PROGRESS", 20_000)
    with serve(half()) as server:
        with pytest.raises(RegEnvError, match="5 tries"):
            get(remote(server), tmp_path)
        assert len(server.requests) <= 6


def endless(handler, request):
    handler.head(200, {})
    while not handler.server_log.over.is_set():
        handler.body(CONTENT, request)


def endless_redirect(handler, request):
    handler.head(302, {"Location": "file:///etc/passwd"})
    while not handler.server_log.over.is_set():
        handler.body(CONTENT, request)


def coded(handler, request):
    handler.head(200, {"Content-Length": "5", "Content-Encoding": "gzip"})
    handler.body(b"12345", request)


def page(handler, request):
    handler.head(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": "6"})
    handler.body(b"<html>", request)


def disguised(handler, request):
    handler.head(200, {"Content-Type": "application/zip", "Content-Length": "23"})
    handler.body(b"\n<!DOCTYPE HTML>log in!!", request)


def without_end(handler, request):
    handler.head(200, {})
    handler.body(CONTENT[:1000], request)


@pytest.mark.parametrize(
    ("bad", "known", "words"),
    [
        (endless, {"size": 1000}, "expected at most 1000 bytes"),
        (endless, {"sha256": SHA256}, "expected at most 1000000 bytes"),
        (send(b"0" * 1_000_001), {}, "has 1000001 bytes, expected at most 1000000 bytes"),
        (send(CONTENT), {"size": 7}, "has 300000 bytes, expected 7"),
        (send(b""), {}, "is empty"),
        (coded, {}, "coding gzip"),
        (page, {}, "web page.*login"),
        (disguised, {}, "is a web page"),
        (without_end, {}, "without a size"),
        (without_end, {"sha256": SHA256}, "SHA-256"),
        (status(302, Location="file:///etc/passwd"), {}, "leads to .file:///etc/passwd"),
        (endless_redirect, {}, "leads to .file:///etc/passwd"),
        (status(301, Location="http://example.org/scans.zip"), {}, "leads to .http://example.org"),
        (status(307, Location="ftp://example.org/scans.zip"), {}, "https"),
        (status(302, Location="https://10.0.0.1/scans.zip"), {}, "not a public https address"),
        (status(302, Location="https://[half"), {}, "not a public https address"),
        (status(302, Location="/again"), {}, "leads on 6 times"),
    ],
)
def test_what_is_not_the_file_is_refused_in_one_sentence(tmp_path, bad, known, words):
    with serve(bad) as server:
        refused(RegInputError, words, remote(server, **known), tmp_path, max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("answer", "words"), [(status(404), "404"), (status(403), "login"), (status(204), "204"), (status(410), "410")]
)
def test_a_refusal_is_told_at_once(tmp_path, answer, words):
    with serve(answer) as server:
        try:
            refused((RegEnvError, RegInputError), words, remote(server), tmp_path)
        finally:
            assert len(server.requests) == 1


def test_five_redirects_are_followed(tmp_path):
    on = [status(302, Location=f"/{count}") for count in range(5)]
    with serve(in_turn(*on, send(CONTENT))) as server:
        assert get(remote(server, sha256=SHA256), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a", "https://127.0.0.1/a", "http://example.org/a", "file:///etc/passwd", "https:///a"]
)
def test_only_public_https_is_asked(tmp_path, url):
    refused(RegInputError, "https", RemoteFile("a", url), tmp_path, allow_http=False)


def test_a_server_that_nobody_runs_is_named_with_the_cause(tmp_path):
    with serve(status(200)) as server:
        pass
    assert "refused" in refused(RegEnvError, "2 tries", remote(server), tmp_path, patience=QUICK._replace(tries=2))


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
from tools.data.download import fetch
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
