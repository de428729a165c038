import re

import pytest

from tools.data.fetch.links import check_links
from tools.data.fetch.web import Patience
from tools.data.source import RemoteFile

from .loopback import send, serve, status

CONTENT = bytes(1000)
QUICK = Patience(connect_s=10.0, read_s=20.0, tries=2, pause_s=0.01)


def check(server, patience=QUICK, **known):
    (link,) = check_links([RemoteFile("a.zip", f"{server.url}/a.zip", **known)], allow_http=True, patience=patience)
    return link


def without_head(code):
    """A server that answers ranges, and HEAD with a status of its own."""
    answers = {"HEAD": status(code), "GET": send(CONTENT)}
    return lambda handler, request: answers[request.method](handler, request)


def test_a_source_of_the_recorded_size_is_well_and_no_body_is_sent():
    with serve(send(CONTENT)) as server:
        link = check(server, size=1000)
        assert (link.status, link.size, link.finding) == (200, 1000, None)
        assert [request.method for request in server.requests] == ["HEAD"]


@pytest.mark.parametrize("code", [403, 404, 405, 501])
def test_a_server_that_refuses_head_is_asked_for_one_byte(code):
    def one_byte(handler, request):
        if request.method == "HEAD":
            status(code)(handler, request)
        else:
            assert request.headers["Range"] == "bytes=0-0"
            handler.head(206, {"Content-Range": "bytes 0-0/1000", "Content-Length": "1"})
            handler.body(CONTENT[:1], request)

    with serve(one_byte) as server:
        link = check(server, size=1000)
        assert (link.status, link.size, link.finding) == (206, 1000, None)


def test_the_body_that_a_server_sends_in_spite_of_the_range_is_not_read():
    def everything(handler, request):
        if request.method == "HEAD":
            status(405)(handler, request)
            return
        handler.head(200, {"Content-Length": str(1 << 40)})
        while not handler.server_log.over.is_set():
            handler.body(CONTENT, request)

    with serve(everything) as server:
        assert check(server).size == 1 << 40


@pytest.mark.parametrize(
    ("answer", "known", "words"),
    [
        (send(CONTENT), {"size": 999}, "has 1000 bytes, expected 999"),
        (without_head(404), {"size": 1}, "has 1000 bytes, expected 1"),
        (status(404), {}, "404"),
        (status(403), {}, "login"),
        (status(500), {}, "does not answer .*500"),
        (status(302, Location="http://example.org/"), {}, "not a public https address"),
        (status(302, Location="/round"), {}, "leads on 6 times"),
        (lambda handler, request: handler.head(200, {}), {"size": 5}, "states no size, expected 5"),
        (lambda handler, request: handler.head(200, {"Content-Type": "text/html", "Content-Length": "9"}), {}, "page"),
        (lambda handler, request: handler.stall(), {}, "does not answer .*timed out"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(answer, known, words):
    patience = QUICK._replace(read_s=0.3) if "timed" in words else QUICK
    with serve(answer) as server:
        link = check(server, patience, **known)
    assert link.finding is not None and "\n" not in link.finding
    assert re.search(words, link.finding)


def test_sources_are_told_in_their_order():
    with serve(send(CONTENT)) as server:
        files = [RemoteFile(str(count), f"{server.url}/{count}", size=count) for count in (1, 1000, 2)]
        links = check_links(files, allow_http=True, patience=QUICK)
    assert [link.file for link in links] == files
    assert [link.finding is None for link in links] == [False, True, False]


def test_plain_http_is_not_asked():
    with serve(send(CONTENT)) as server:
        (link,) = check_links([RemoteFile("a.zip", f"{server.url}/a.zip")])
        assert "not a public https address" in link.finding
        assert server.requests == []
