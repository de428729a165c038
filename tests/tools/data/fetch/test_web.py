import pytest

from common.errors import RegEnvError, RegInputError
from tools.data.fetch.web import Patience, is_web_page
from tools.data.source import RemoteFile

from .fetching import CONTENT, QUICK, SHA256, get, refused, remote
from .loopback import in_turn, send, serve, status


def endless_redirect(handler, request):
    handler.head(302, {"Location": "file:///etc/passwd"})
    while not handler.server_log.over.is_set():
        handler.body(CONTENT, request)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (status(302, Location="file:///etc/passwd"), "leads to .file:///etc/passwd"),
        (endless_redirect, "leads to .file:///etc/passwd"),
        (status(301, Location="http://example.org/scans.zip"), "leads to .http://example.org"),
        (status(307, Location="ftp://example.org/scans.zip"), "https"),
        (status(302, Location="https://10.0.0.1/scans.zip"), "not a public https address"),
        (status(302, Location="https://[half"), "not a public https address"),
        (status(302, Location="https://example.org/scans.zip"), r"leads to .https://example\.org.*at 127\.0\.0\.1;"),
        (status(302, Location="https://127.0.0.1.example.org/a"), "expected an address at"),
        (status(302, Location="//example.org/scans.zip"), "leads to .http://example.org"),
        (status(302, Location="/again"), "leads on 6 times"),
    ],
)
def test_redirects_that_lead_elsewhere_are_not_followed(tmp_path, bad, words):
    with serve(bad) as server:
        refused(RegInputError, words, remote(server), tmp_path)


def test_only_hosts_that_are_named_may_be_led_to(tmp_path):
    with serve(send(CONTENT)) as other:
        port = other.url.rpartition(":")[2]
        with serve(status(302, Location=f"http://localhost:{port}/scans.zip")) as server:
            refused(RegInputError, "leads to .http://localhost", remote(server), tmp_path)
            assert other.requests == []
            file = remote(server, sha256=SHA256, hosts=("localhost",))
            assert get(file, tmp_path).read_bytes() == CONTENT


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


def test_pauses_double_and_end_at_a_minute():
    patience = Patience(pause_s=1.0)
    assert [patience.before(tries) for tries in range(1, 5)] == [1, 2, 4, 8]
    assert patience.before(1, asked_s=30.0) == 30
    assert patience.before(20) == patience.before(1, asked_s=1e9) == 60


@pytest.mark.parametrize(
    ("head", "page"),
    [(b"\xef\xbb\xbf\n <!DocType HTML>", True), (b"<html lang=en>", True), (b"PK\x03\x04", False), (b"", False)],
)
def test_a_web_page_is_known_by_its_beginning(head, page):
    assert is_web_page(head) is page
