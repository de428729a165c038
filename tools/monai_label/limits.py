"""Whom the server listens to, and how much a client may send."""

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Gate"]

ANY = "*"
TOO_LARGE = 413


class Gate:
    """ASGI middleware that answers before anything of a request is on the disk: 400 to a host that is not the server's,
    413 to a body above a limit.

    A page in a browser can make its own name mean 127.0.0.1, and then read what a server there says; it cannot change
    the name that it asks for.

    Args:
        app: what comes after.
        hosts: names under which the server may be called; "*" is any.
        limit_mib: of a request's body. One that does not say its length is counted while it comes.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], limit_mib: int) -> None:
        self.app = app
        self.hosts = hosts
        self.limit = limit_mib * 2**20

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        found = self._refusal(headers)
        if found is None:
            await self._counted(scope, receive, send)
        else:
            await found(scope, receive, send)

    def _refusal(self, headers: dict[str, str]) -> JSONResponse | None:
        """The answer to a request that is refused by its headers."""
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if ANY not in self.hosts and host not in self.hosts:
            text = f"the server was called '{host[:80]}', expected {' or '.join(self.hosts)}; use its own address."
            return JSONResponse({"detail": text}, 400)
        stated = headers.get("content-length", "0")
        if stated.isdigit() and int(stated) <= self.limit:
            return None
        return JSONResponse({"detail": self._too_large}, TOO_LARGE)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and stop where its body goes past the limit."""
        counted = 0

        async def counting() -> Message:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if counted > self.limit:
                raise HTTPException(TOO_LARGE, self._too_large)  # FastAPI answers it, as it does its own
            return message

        await self.app(scope, counting, send)

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self.limit // 2**20} MiB, expected less; raise --max-upload-mib."
