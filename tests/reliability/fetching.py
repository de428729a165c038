"""The two commands that fetch, offered one zip by a server on this machine: what they say and what they leave.

``regbundles data download`` and ``regbundles fetch`` alike, so that every attack and every fault can be tried on both.
"""

import hashlib
import io
import random
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from tests.tools.data.fetch.archives import info_of, make_zip, tree
from tests.tools.data.fetch.loopback import Answer, send
from tools import __main__ as command
from tools.data import acquire as acquire_module
from tools.data import catalog
from tools.data.acquire import acquire
from tools.data.source import RemoteFile, Source

__all__ = ["BUNDLE", "DATA", "TOOLS", "Said", "Tool", "left_in", "offer_data", "run", "sealed", "sound_zip"]


class Said(NamedTuple):
    """How a command ended.

    Attributes:
        status: exit status; 1 with a traceback.
        text: on standard error.
        seconds: that it took.
    """

    status: int
    text: str
    seconds: float

    def is_sentence(self, status: int) -> bool:
        """Whether it ended with one sentence and this status, within 15 s."""
        lines = self.text.splitlines()
        return self.status == status and len(lines) == 1 and lines[0].endswith(".") and self.seconds < 15


class Tool(NamedTuple):
    """One of the two commands.

    Attributes:
        name: what it is called in the ledger.
        zip: the file that it asks for; data may come in a tar as well.
        final: what it makes of that, below its folder.
        members: what a sound zip for it holds.
        words: of its command line, by the server's address and its folder.
    """

    name: str
    zip: str
    final: str
    members: Mapping[str, bytes]
    words: Callable[[str, Path], list[str]]


DATA = Tool(
    "data download",
    "scans.zip",
    "scans",
    {"scans/readme.txt": b"a scan", "scans/a.nii": random.Random(0).randbytes(300_000)},
    lambda url, folder: ["data", "download", "toy", "--raw", str(folder)],
)
BUNDLE = Tool(
    "fetch",
    "toy_v0.1.0.zip",
    "toy",
    {
        "toy/readme.txt": b"a bundle",
        "toy/configs/metadata.json": b'{"version": "0.1.0"}',
        "toy/large": random.Random(0).randbytes(300_000),
    },
    lambda url, folder: ["fetch", f"{url}/toy_v0.1.0.zip", "--out", str(folder), "--allow-http"],
)
TOOLS = (DATA, BUNDLE)


def sound_zip(tool: Tool, path: Path, *more: tuple[Any, bytes]) -> Path:
    """A zip as the tool expects it, and whatever else it is to hold."""
    return make_zip(path, *[(info_of(name), content) for name, content in tool.members.items()], *more)


def sealed(tool: Tool, content: bytes, answer: Answer | None = None) -> Answer:
    """A server that has the zip and, for bundles, its hash.

    Args:
        tool: that asks.
        content: of the zip; its hash is told.
        answer: what is answered to whoever asks for the zip; by default it is sent.
    """
    sums = send(f"{hashlib.sha256(content).hexdigest()}  {tool.zip}\n".encode())
    fault = answer or send(content)
    return lambda handler, request: (sums if request.path.endswith("SUMS") else fault)(handler, request)


def offer_data(url: str, **known: Any) -> None:
    """Let `data download toy` mean the archive at an address, of which ``known`` is published, in this process."""
    file = RemoteFile(url.rpartition("/")[2], url, **known)
    source = Source("toy", "", "", "", "", "", (file,), lambda raw, out: Path(out))
    catalog.sources = lambda: [source]
    acquire_module.acquire = partial(acquire, allow_http=True)


def run(tool: Tool, url: str, folder: Path, timeout: float = 10.0, **known: Any) -> Said:
    """The tool's command in this process, with three tries and hardly a pause between them."""
    words = [*tool.words(url, folder), "--quiet", "--timeout", str(timeout), "--tries", "3"]
    said, status, began = io.StringIO(), 0, time.monotonic()
    with (
        mock.patch.object(catalog, "sources", catalog.sources),
        mock.patch.object(acquire_module, "acquire", acquire),
        mock.patch.object(sys, "argv", ["regbundles", *words]),
        mock.patch("tools.data.fetch.web.Patience.before", lambda *_: 0.01),
        mock.patch("tools.fetch.MAX_ZIP", 16 << 20),  # as no end of a gigabyte takes long to reach
        redirect_stdout(io.StringIO()),
        redirect_stderr(said),
    ):
        offer_data(f"{url}/{tool.zip}", **known)
        try:
            command.main()
        except SystemExit as stop:
            status = stop.code or 0
        except Exception:
            status = 1
            traceback.print_exc()
    return Said(status, said.getvalue(), time.monotonic() - began)


def left_in(folder: Path) -> dict[str, bytes]:
    """Every file and link below a folder, by its path; of links, where they lead."""
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    return tree(folder) | {str(path.relative_to(folder)): str(path.readlink()).encode() for path in links}
