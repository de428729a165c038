"""One request to a publisher's server: https alone, every redirect judged, a limit to every wait."""

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
from requests import Response, Session

from common.errors import RegInputError, first_line

from .names import shown

__all__ = [
    "PATIENCE",
    "Patience",
    "TransientError",
    "ask",
    "is_web_page",
    "new_session",
    "patience_of",
    "require_address",
    "split",
]

MAX_REDIRECTS = 5
PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that a later try may not meet
MAX_PAUSE = 60.0  # s; a server may ask for more by Retry-After, but nobody waits longer at a prompt
PAGES = (b"<!doctype html", b"<html", b"<head")


class Patience(NamedTuple):
    """How long a server may take."""

    connect_s: float = 10.0
    read_s: float = 60.0
    """Without a byte; and with fewer than ``SLOWEST`` bytes a second."""
    tries: int = 5
    """In a row without real progress."""
    pause_s: float = 1.0
    """Before the second try; twice as long before each next one."""

    def before(self, tries: int, asked_s: float = 0.0) -> float:
        """Seconds to wait after ``tries`` tries, or as many as the server asked for."""
        return min(MAX_PAUSE, max(asked_s, self.pause_s * 2 ** (tries - 1)))


PATIENCE = Patience()


def patience_of(timeout_s: float, tries: int) -> Patience:
    """What a person grants a server: so long without a byte, so many tries; a connection stands after 10 s or never."""
    return PATIENCE._replace(connect_s=min(timeout_s, PATIENCE.connect_s), read_s=timeout_s, tries=tries)


class TransientError(Exception):
    """A failure that another try may not meet; ``pause_s`` is what the server asked to wait."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class PlainSession(Session):
    """A session that knows no redirects: requests would read the whole body of one, however long, before telling."""

    def get_redirect_target(self, resp: Response) -> None:
        """Nowhere; :func:`ask` follows."""


def new_session() -> Session:
    """A session that asks for files as they are; it honors the system's proxies and certificates."""
    session = PlainSession()
    session.headers.update({"User-Agent": "registration-bundles", "Accept-Encoding": "identity"})
    return session


def ask(
    session: Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    hosts: Collection[str] = (),
    allow_http: bool = False,
    patience: Patience = PATIENCE,
) -> Response:
    """The answer to a request after at most five redirects, its body unread; the caller closes it.

    Args:
        session: of :func:`new_session`.
        method: "GET" or "HEAD".
        url: where to begin.
        headers: sent to every server on the way.
        hosts: where it may lead on to, besides the host where it begins.
        allow_http: also plain http, to this machine.
        patience: limits of each wait.

    Raises:
        RegInputError: if the address, or one that it leads to, is not https, or is of a host that nobody named; after
            six redirects.
        TransientError: if the server does not answer, is overloaded or broken.
    """
    address = url
    for _ in range(MAX_REDIRECTS + 1):
        require_address(address, allow_http, url)
        require_host(address, url, hosts)
        response = send(session, method, address, headers, patience)
        if not response.is_redirect:
            return require_service(response)
        response.close()
        address = joined(address, response.headers["Location"])
    raise RegInputError(
        f"{url} leads on {MAX_REDIRECTS + 1} times, expected at most {MAX_REDIRECTS}; look for the file's new address."
    )


def send(session: Session, method: str, address: str, headers: Mapping[str, str], patience: Patience) -> Response:
    """One request, redirects not followed."""
    timeout = (patience.connect_s, patience.read_s)
    try:
        return session.request(method, address, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
    except requests.RequestException as error:
        raise TransientError(reason_of(error)) from error


def require_service(response: Response) -> Response:
    """The answer itself, unless its status says to come again."""
    if response.status_code not in PASSING:
        return response
    asked = response.headers.get("Retry-After", "")
    response.close()
    pause_s = float(asked) if asked.isascii() and asked.isdecimal() else 0.0
    raise TransientError(f"it answers {response.status_code} {response.reason}", pause_s)


def require_address(address: str, allow_http: bool, origin: str) -> None:
    """Refuse whatever is not https to a public host, or, if allowed, http to this machine.

    Names are not looked up: behind a proxy they cannot be, and a certificate is asked of every host.
    """
    parts = split(address)
    host = parts.hostname or ""
    if parts.scheme == "https" and host and is_public(host):
        return
    if allow_http and parts.scheme in ("http", "https") and is_loopback(host):
        return
    found = f"{origin} is" if address == origin else f"{origin} leads to {shown(address)},"
    raise RegInputError(f"{found} not a public https address, expected one; fetch the file by hand if you trust it.")


def require_host(address: str, origin: str, hosts: Collection[str]) -> None:
    """Refuse a redirect to a host that has nothing to do with the publisher."""
    known = (split(origin).hostname or "", *hosts)
    if split(address).hostname not in known:
        raise RegInputError(
            f"{origin} leads to {shown(address)}, expected an address at {' or '.join(known)}; fetch the file by hand "
            f"if you trust that host."
        )


def joined(address: str, location: str) -> str:
    """Where an answer leads, as it stands there if it is no address: it is judged next."""
    try:
        return urljoin(address, location)
    except ValueError:
        return location


def split(address: str) -> SplitResult:
    """The parts of an address; empty ones if it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return SplitResult("", "", "", "", "")


def is_public(host: str) -> bool:
    """Whether a host is a name other than localhost, or an address of the public network."""
    try:
        return ip_address(host).is_global
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_web_page(head: bytes) -> bool:
    """Whether a file that begins like this is HTML."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES)


def reason_of(error: Exception) -> str:
    """The innermost cause of a failed request in a few words; what requests says of it is several lines of nesting."""
    while (inner := getattr(error, "reason", None) or error.__cause__ or error.__context__) is not None:
        if not isinstance(inner, Exception):
            break
        error = inner
    return first_line(error)[:200]
