import time

import pytest

from common.errors import RegEnvError, RegInputError

from .fetching import CONTENT, HASTY, SHA256, get, half, names, refused, remote
from .loopback import in_turn, send, serve, status


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


@pytest.mark.parametrize("note", ["", "[1]", '{"url": "https://example.org/", "version": "1"}', '{"version": "1"}'])
def test_bytes_whose_version_or_address_is_not_known_are_not_built_on(tmp_path, note):
    (tmp_path / "scans.zip.part").write_bytes(b"whatever")
    (tmp_path / "scans.zip.part.json").write_text(note)
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
        (stalling, "timed out", []),
        (dripping, "bytes in|timed out", []),
        (silent, "timed out", []),
        (reset, "tries", []),
        (half(), "broke off after 100000 of 300000 bytes|IncompleteRead", ["scans.zip.part", "scans.zip.part.json"]),
        (cut_chunks, "tries", []),
    ],
)
def test_a_server_that_never_gives_everything_costs_one_sentence(tmp_path, bad, words, left):
    with serve(bad) as server:
        with pytest.raises(RegEnvError, match=words) as caught:
            get(remote(server), tmp_path, patience=HASTY)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "scans.zip").exists()
        assert names(tmp_path) == left


def test_a_server_that_goes_on_a_little_each_time_is_followed_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.data.fetch.transfer.PROGRESS", 20_000)

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
    monkeypatch.setattr("tools.data.fetch.transfer.PROGRESS", 20_000)
    with serve(half()) as server:
        with pytest.raises(RegEnvError, match="5 tries"):
            get(remote(server), tmp_path)
        assert len(server.requests) <= 6


def endless(handler, request):
    handler.head(200, {})
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
