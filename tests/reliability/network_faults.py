"""What servers and networks do to a download, each as an answer to whoever asks for a file."""

import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.tools.data.fetch.loopback import Answer, Handler, Request, send, status

__all__ = ["FAULTS", "Fault"]

TAG = '"v1"'


class Fault(NamedTuple):
    """One fault.

    Attributes:
        answer: by the file's bytes, how the server behaves.
        words: what the refusal says; ``None``: the file can be had all the same, and has to be.
        status: exit status of the refusal.
        timeout: seconds that the command is given for a byte; short where none comes.
        alone: whether MONAI's function is tried as well.
        sized: whether the data set's publisher told the size.
    """

    answer: Callable[[bytes], Answer]
    words: str | None
    status: int = 3
    timeout: float = 10.0
    alone: bool = True
    sized: bool = True


def in_turn(*answers: Answer) -> Answer:
    """The first who asks gets the first answer, and so on; the last answer stays."""
    left = list(answers)
    return lambda handler, request: (left.pop(0) if len(left) > 1 else left[0])(handler, request)


def saying(headers: dict[str, str], share: float = 1.0, code: int = 200) -> Callable[[bytes], Answer]:
    """An answer with these headers, ``{size}`` in them being the file's, and a share of the file as its body."""

    def answered(content: bytes) -> Answer:
        def answer(handler: Handler, request: Request) -> None:
            handler.head(code, {name: value.format(size=len(content)) for name, value in headers.items()})
            handler.body(content[: int(share * len(content))], request)

        return answer

    return answered


half = saying({"Content-Length": "{size}", "ETag": TAG}, 0.5)


def then(*answers: Callable[[bytes], Answer]) -> Callable[[bytes], Answer]:
    """Half of the file, then these in turn."""
    return lambda content: in_turn(half(content), *[answer(content) for answer in answers])


def leading(location: str, code: int = 302) -> Callable[[bytes], Answer]:
    """A redirect."""
    return lambda content: status(code, Location=location)


def wrong_place(content: bytes) -> Answer:
    """A part of the file that was not asked for, as the one that was."""

    def answer(handler: Handler, request: Request) -> None:
        handler.head(206, {"Content-Range": f"bytes 5-{len(content) - 1}/{len(content)}", "ETag": TAG})
        handler.body(content[5:], request)

    return answer


def other_version(content: bytes) -> Answer:
    """The second half of another file of the same size, which says so."""

    def answer(handler: Handler, request: Request) -> None:
        start = len(content) // 2
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.head(206, {"Content-Range": span, "ETag": '"v2"'})
        handler.body(bytes(len(content) - start), request)

    return answer


def reset(content: bytes) -> Answer:
    """The connection is torn down, by RST and not by FIN."""

    def answer(handler: Handler, request: Request) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return answer


def silent(content: bytes) -> Answer:
    return lambda handler, request: handler.stall()


def stalling(content: bytes) -> Answer:
    """A third of the file, and then nothing."""

    def answer(handler: Handler, request: Request) -> None:
        handler.head(200, {"Content-Length": str(len(content))})
        handler.body(content[: len(content) // 3], request)
        handler.stall()

    return answer


def dripping(content: bytes) -> Answer:
    """A byte every now and then."""

    def answer(handler: Handler, request: Request) -> None:
        handler.head(200, {"Content-Length": str(len(content))})
        for byte in content[:400]:
            handler.body(bytes([byte]), request, pause_s=0.05)

    return answer


def endless(content: bytes) -> Answer:
    """The file over and over, without a size."""

    def answer(handler: Handler, request: Request) -> None:
        handler.head(200, {})
        while not handler.server_log.over.is_set():
            handler.body(content, request)

    return answer


def other(content: bytes) -> Answer:
    """A file of the same size."""
    return send(bytes(len(content)))


def page(kind: str) -> Callable[[bytes], Answer]:
    """A web page that asks for a login."""
    text = b"<!DOCTYPE html><html><body>Please log in</body></html>"
    return lambda content: (
        lambda handler, request: (
            handler.head(200, {"Content-Type": kind, "Content-Length": str(len(text))}),
            handler.body(text, request),
        )
    )


FAULTS = {
    "404": Fault(lambda content: status(404), "404"),
    "403": Fault(lambda content: status(403), "403.*login"),
    "500": Fault(lambda content: status(500), "3 tries.*500"),
    "503, later": Fault(lambda content: status(503, Retry_After="1"), "3 tries.*503"),
    "503 once": Fault(lambda content: in_turn(status(503), send(content)), None),
    "reset": Fault(reset, "3 tries"),
    "silence": Fault(silent, "timed out", timeout=0.5),
    "a stall": Fault(stalling, "timed out", timeout=0.5),
    "a drip": Fault(dripping, "timed out|bytes in", timeout=0.5),
    "cut short": Fault(half, "3 tries"),
    "cut short, size untold": Fault(saying({}, 0.5), "SHA-256", 2, sized=False),
    "another file": Fault(other, "SHA-256", 2),
    "a login page": Fault(page("text/html"), "web page", 2),
    "a login page as a zip": Fault(page("application/zip"), "web page|expected", 2),
    "a redirect loop": Fault(leading("/again"), "leads on 6 times", 2),
    "to plain http": Fault(leading("http://example.org/a.zip"), "leads to", 2),
    "to another host": Fault(leading("https://example.org/a.zip"), "leads to", 2),
    "to a file": Fault(leading("file:///etc/passwd"), "leads to", 2),
    "ranges ignored": Fault(then(lambda content: send(content, ranges=False)), None),
    "another range": Fault(then(wrong_place, send), None),
    "another version": Fault(then(other_version, send), None),
    "nothing more": Fault(then(lambda content: status(416, Content_Range="bytes */7"), send), None),
    "in a coding": Fault(saying({"Content-Length": "{size}", "Content-Encoding": "gzip"}), "coding gzip", 2),
    "another name": Fault(
        saying({"Content-Length": "{size}", "Content-Disposition": 'attachment; filename="../../evil.zip"'}),
        None,
        alone=False,
    ),
    "without end": Fault(endless, "at most", 2),
}
