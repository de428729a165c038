"""Whether every source still answers, and with the size that is recorded; nothing is downloaded."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from requests import Response, Session

from common.errors import RegInputError

from ..source import RemoteFile
from .drive import drive_page, is_on_drive
from .transfer import announced_size, answer_finding
from .web import Patience, TransientError, ask, new_session

__all__ = ["Link", "check_links"]

AT_ONCE = 4  # servers are asked side by side, each publisher's seldom more than once
HEAD_REFUSED = {400, 403, 404, 405, 501}  # what servers answer to HEAD that would answer to GET
PATIENCE = Patience(connect_s=10.0, read_s=20.0, tries=2)


class Link(NamedTuple):
    """What a source answers today."""

    file: RemoteFile
    status: int | None
    """Of HTTP; None if there is no answer."""
    size: int | None
    """Bytes; None if the server does not say."""
    finding: str | None
    """What is wrong, as the end of a sentence that begins with the address; None if all is well."""


def check_links(files: Sequence[RemoteFile], *, allow_http: bool = False, patience: Patience = PATIENCE) -> list[Link]:
    """What each file's server answers, in their order; no body is read.

    Google Drive tells whether a file's page is there, not how large the file is.

    Args:
        files: of any number of data sets.
        allow_http: also plain http, to this machine.
        patience: limits of waiting and of tries.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(partial(check_link, allow_http=allow_http, patience=patience), files))


def check_link(file: RemoteFile, *, allow_http: bool, patience: Patience) -> Link:
    """What one file's server answers, after as many tries as it needs."""
    reason = ""
    with new_session() as session:
        for _ in range(patience.tries):
            try:
                return look(session, file, allow_http, patience)
            except TransientError as trouble:
                reason = str(trouble)
            except RegInputError as error:  # it leads where nobody should follow
                return Link(file, None, None, str(error).removeprefix(file.url).strip(" .,;"))
    return Link(file, None, None, f"does not answer ({reason})")


def look(session: Session, file: RemoteFile, allow_http: bool, patience: Patience) -> Link:
    """One answer: to HEAD, or to a request for the first byte where HEAD is refused or tells no size."""
    if is_on_drive(file):
        with ask(session, "HEAD", drive_page(file), {}, patience=patience) as response:
            return page_link(file, response)
    options = {"hosts": file.hosts, "allow_http": allow_http, "patience": patience}
    with ask(session, "HEAD", file.url, {}, **options) as response:
        if response.status_code not in HEAD_REFUSED and announced_size(response) is not None:
            return file_link(file, response)
    with ask(session, "GET", file.url, {"Range": "bytes=0-0"}, **options) as response:
        return file_link(file, response)


def file_link(file: RemoteFile, response: Response) -> Link:
    """The row of a file that has an address of its own."""
    size, finding = announced_size(response), answer_finding(response, file)
    if finding is None and size is None and file.size is not None:
        finding = f"states no size, expected {file.size} bytes"
    return Link(file, response.status_code, size, finding)


def page_link(file: RemoteFile, response: Response) -> Link:
    """The row of a file that has a page, which is there or not."""
    status = response.status_code
    finding = None if status == 200 else f"answers {status} {response.reason}, expected the page {drive_page(file)}"
    return Link(file, status, None, finding)
