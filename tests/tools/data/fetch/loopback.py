"""A server on this machine that behaves as badly as a test asks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import NamedTuple

CHUNK = 1 << 14


class Request(NamedTuple):
    """One request that came, and how much of a body was sent for it."""

    method: str
    path: str
    headers: dict[str, str]
    sent: list[int]


class Server:
    """The address, and what was asked of it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[Request] = []
        self.over = Event()

    def sent(self, index: int) -> int:
        """Bytes of body sent for one request."""
        return sum(self.requests[index].sent)


Answer = Callable[["Handler", Request], None]


class Handler(BaseHTTPRequestHandler):
    """Hands a request to the test's function."""

    server_log: Server
    answer: Answer

    def handle_request(self) -> None:
        request = Request(self.command, self.path, dict(self.headers), [])
        self.server_log.requests.append(request)
        with suppress(ConnectionError):
            type(self).answer(self, request)

    do_GET = do_HEAD = handle_request  # noqa: N815

    def head(self, status: int, headers: dict[str, str]) -> None:
        """Status and headers, sent."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def body(self, content: bytes, request: Request, pause_s: float = 0.0) -> None:
        """A body, counted as it goes."""
        for start in range(0, len(content), CHUNK):
            self.wfile.write(content[start : start + CHUNK])
            self.wfile.flush()
            request.sent.append(len(content[start : start + CHUNK]))
            if pause_s:
                time.sleep(pause_s)

    def stall(self) -> None:
        """Keep the connection and say nothing until the test is over."""
        self.server_log.over.wait(30)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@contextmanager
def serve(answer: Answer) -> Iterator[Server]:
    """A server for the while of a test; it answers every request by ``answer(handler, request)``."""
    handler = type("Bound", (Handler,), {"answer": staticmethod(answer)})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    handler.server_log = server = Server(http.server_address[1])
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        http.server_close()
        thread.join()


def send(
    content: bytes, *, tag: str = '"v1"', pause_s: float = 0.0, ranges: bool = True
) -> Callable[[Handler, Request], None]:
    """A server as it should be: sizes, an entity tag, ranges of the same version."""

    def answer(handler: Handler, request: Request) -> None:
        start = 0
        asked = request.headers.get("Range")
        if ranges and asked and request.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").split("-")[0])
        if start >= len(content) > 0:
            handler.head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        headers = {"Content-Length": str(len(content) - start), "ETag": tag}
        if start or (asked and ranges and request.headers.get("If-Range", tag) == tag):
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.head(206, headers)
        else:
            handler.head(200, headers)
        if request.method == "GET":
            handler.body(content[start:], request, pause_s)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """The first request gets the first answer, and so on; the last answer stays."""

    def answer(handler: Handler, request: Request) -> None:
        count = len(handler.server_log.requests)
        answers[min(count, len(answers)) - 1](handler, request)

    return answer


def status(code: int, **headers: str) -> Answer:
    """An answer without a body."""
    return lambda handler, request: handler.head(
        code, {"Content-Length": "0"} | {name.replace("_", "-"): value for name, value in headers.items()}
    )
