"""The bytes of one file from a server into its ``.part``: resumed, tried again, never past a limit.

Five tries in a row without real progress end it. What has arrived is asked for again only under the entity tag or
date that it came with (``If-Range``), so that two versions of a file are never put together; a server that ignores
the range, or has another version by now, sends everything and we begin anew.
"""

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from requests import Response, Session
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from common.errors import RegEnvError, RegInputError, first_line

from ..source import RemoteFile
from .part import Part
from .web import PATIENCE, Patience, TransientError, ask, new_session

__all__ = ["announced_size", "answer_finding", "too_large", "transfer"]

CHUNK = 1 << 20
SLOWEST = 1024  # bytes a second; what drips slower would take days for a scan
PROGRESS = 64 << 20  # bytes further than ever before: after so many, failed tries count from the beginning
RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
HTML = (".html", ".htm")


class Span(NamedTuple):
    """Which bytes of a file an answer brings."""

    start: int
    total: int | None
    """Size of the whole file; None if the server does not say."""


def transfer(
    file: RemoteFile,
    part: Part,
    bar: tqdm,
    *,
    max_bytes: int,
    allow_http: bool = False,
    patience: Patience = PATIENCE,
) -> None:
    """Bring ``part`` to the whole file; what was there before is kept if the server still has the same version.

    Args:
        file: of a publisher, with an https address.
        part: where it arrives.
        bar: moved along with the bytes.
        max_bytes: of the file, if its size is not known.
        allow_http: also plain http, to this machine.
        patience: limits of waiting and of tries.

    Raises:
        RegInputError: if what the server sends is not the file.
        RegEnvError: if the server refuses, or has failed in every try.
        OSError: if the disk is full, or similar.
    """
    tries, farthest = 0, part.size()
    with new_session() as session:
        while not has_all(file, part):
            try:
                attempt(session, file, part, bar, max_bytes, allow_http, patience)
                return
            except TransientError as trouble:
                tries = 1 if part.size() >= farthest + PROGRESS else tries + 1
                farthest = max(farthest, part.size())
                if tries >= patience.tries:
                    raise RegEnvError(
                        f"{file.url} could not be fetched in {tries} tries ({trouble}), expected all of it; try again "
                        f"later: what can be resumed is kept."
                    ) from trouble
                time.sleep(patience.before(tries, trouble.pause_s))


def has_all(file: RemoteFile, part: Part) -> bool:
    """Whether a run that was killed had only the check and the rename left to do."""
    return file.size is not None and file.size > 0 and part.size() == file.size


def attempt(
    session: Session, file: RemoteFile, part: Part, bar: tqdm, max_bytes: int, allow_http: bool, patience: Patience
) -> None:
    """One request, from where the last one stopped; returns when the file is whole."""
    version = part.version(file.url)
    have = part.size() if version else 0
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have and version else {}
    with ask(session, "GET", file.url, headers, hosts=file.hosts, allow_http=allow_http, patience=patience) as response:
        span = judge(response, file, part, have)
        if span is None:
            return
        limit = file.size or span.total or max_bytes
        if limit > max_bytes and not file.size:
            raise too_large(file, limit, max_bytes)
        if span.start == 0:
            part.begin(file.url, version_of(response))
        show(bar, span)
        receive(response, part, limit, file, bar, patience)
        require_end(response, file, part, span)


def judge(response: Response, file: RemoteFile, part: Part, have: int) -> Span | None:
    """What an answer brings; None if nothing is missing, an error if it is not what was asked for."""
    if response.status_code == 416 and have:
        if announced_size(response) == have:
            return None
        part.remove()
        raise TransientError("it has another size by now")
    finding = answer_finding(response, file)
    if finding:
        kind = RegEnvError if response.status_code >= 300 else RegInputError
        raise kind(f"{file.url} {finding}; ask its publisher, or fetch the file by hand.")
    span = Span(have if response.status_code == 206 else 0, announced_size(response))
    if response.status_code == 206 and not continues(response, span.start, part.version(file.url)):
        part.remove()
        raise TransientError("it sent another part than was asked for")
    if span.total is None and not knows_end(response) and not (file.size or file.sha256 or file.md5):
        raise RegInputError(
            f"{file.url} comes without a size, expected one to know its end by; fetch the file by hand."
        )
    return span


def answer_finding(response: Response, file: RemoteFile) -> str | None:
    """What shows in an answer's head that it is not the file, as the end of a sentence; None if all is well."""
    status, kind = response.status_code, response.headers.get("Content-Type", "").lower()
    if status in (401, 403):
        return f"answers {status} {response.reason}, expected the file without a login"
    if status not in (200, 206):
        return f"answers {status} {response.reason}, expected the file"
    if kind.startswith("text/html") and not file.name.lower().endswith(HTML):
        return f"answers with a web page, often one that asks for a login or for consent, expected {file.name}"
    coding = response.headers.get("Content-Encoding", "identity").lower()
    if coding != "identity" and not file.name.lower().endswith((".gz", ".tgz")):
        return f"answers in the coding {coding[:40]}, expected the bytes as they are"
    total = announced_size(response)
    if file.size is not None and total is not None and total != file.size:
        return f"has {total} bytes, expected {file.size}"
    return None


def announced_size(response: Response) -> int | None:
    """Size of the whole file by an answer's head; None if it does not say."""
    if response.status_code in (206, 416):
        found = RANGE.fullmatch(response.headers.get("Content-Range", ""))
        return int(found[3]) if found and found[3] != "*" else None
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdecimal() else None


def continues(response: Response, start: int, version: str | None) -> bool:
    """Whether a partial answer begins at ``start`` and is of the version that lies there."""
    found = RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or found[1] != str(start):
        return False
    name = "ETag" if version and version.startswith('"') else "Last-Modified"
    return version is None or response.headers.get(name, version) == version


def knows_end(response: Response) -> bool:
    """Whether a body without a size has an end of its own, so that one cut short is noticed."""
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def version_of(response: Response) -> str | None:
    """What ``If-Range`` may ask with: a strong entity tag, or else the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def show(bar: tqdm, span: Span) -> None:
    """Let the bar stand where the bytes begin."""
    if span.total is not None:
        bar.total = span.total
    bar.n = span.start
    bar.refresh()


def receive(response: Response, part: Part, limit: int, file: RemoteFile, bar: tqdm, patience: Patience) -> None:
    """Append an answer's body; never more than ``limit`` bytes in all."""
    left = limit - part.size()
    with part.open() as stream:
        for chunk in chunks(response, patience):
            left -= len(chunk)
            if left < 0:
                part.remove()
                raise too_large(file, None, limit)
            stream.write(chunk)
            bar.update(len(chunk))


def too_large(file: RemoteFile, found: int | None, limit: int) -> RegInputError:
    """The refusal of a file that is larger than ``limit`` bytes: of ``found`` bytes, or without an end in sight."""
    size = "goes on" if found is None else f"has {found} bytes"
    return RegInputError(f"{file.url} {size}, expected at most {limit} bytes; ask its publisher what it is.")


def chunks(response: Response, patience: Patience) -> Iterator[bytes]:
    """A body as it arrives, not decoded; TransientError if it breaks off, stalls or drips."""
    since, count = time.monotonic(), 0
    try:
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            yield chunk
            count += len(chunk)
            if (elapsed_s := time.monotonic() - since) > patience.read_s:
                if count < SLOWEST * elapsed_s:
                    raise TransientError(f"it sent {count} bytes in {elapsed_s:.0f} s")
                since, count = time.monotonic(), 0
    except HTTPError as error:
        raise TransientError(first_line(error)[:200]) from error


def require_end(response: Response, file: RemoteFile, part: Part, span: Span) -> None:
    """TransientError unless as many bytes are there as were announced."""
    expected = span.total if span.total is not None else file.size
    if expected is not None and part.size() < expected:
        raise TransientError(f"it broke off after {part.size()} of {expected} bytes")
