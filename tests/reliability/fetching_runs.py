"""The two commands that fetch, and MONAI's functions, as processes that are killed, starved or run side by side."""

import hashlib
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from tests.reliability.alone import download_alone, start_alone, unpack_alone
from tests.reliability.fetching import Tool, left_in, offer_data, sealed
from tests.reliability.warm import limit_files, start
from tests.tools.data.fetch.archives import info_of, make_zip
from tests.tools.data.fetch.loopback import Server, send, serve

__all__ = ["Offer", "Work", "command_work", "monai_download", "monai_unpacking", "offered", "said_by", "wide_zip"]

PATIENCE_S = 120


class Offer(NamedTuple):
    """A zip on a server.

    Attributes:
        tool: that asks for it.
        server: that has it.
        sha256: of it.
    """

    tool: Tool
    server: Server
    sha256: str

    @property
    def url(self) -> str:
        return f"{self.server.url}/{self.tool.zip}"

    def asked(self) -> int:
        """How often the zip was asked for since a run began."""
        return sum(request.path == f"/{self.tool.zip}" for request in self.server.requests)


@contextmanager
def offered(tool: Tool, content: bytes, pause_s: float = 0.0) -> Iterator[Offer]:
    """A zip on a server that pauses so long every 16 kB, for the while of a block."""
    with serve(sealed(tool, content, send(content, pause_s=pause_s))) as server:
        yield Offer(tool, server, hashlib.sha256(content).hexdigest())


def wide_zip(tool: Tool, path: Path, files: int = 40) -> Path:
    """A sound zip for a tool with so many further files of 16 kB."""
    draw = random.Random(0)
    more = [(f"{tool.final}/{number}.nii", draw.randbytes(1 << 14)) for number in range(files)]
    return make_zip(path, *[(info_of(name), content) for name, content in [*tool.members.items(), *more]])


class Work(NamedTuple):
    """Something that a process does to a folder.

    Attributes:
        start: begins it.
        has_begun: whether it is at what it is to be interrupted in.
        result: what of the folder has to be as if it had never been interrupted.
        prepare: makes what it is to find there.
    """

    start: Callable[[Path], BaseProcess]
    has_begun: Callable[[Path], bool]
    result: Callable[[Path], Any] = left_in
    prepare: Callable[[Path], Any] = lambda folder: None

    def in_peace(self, folder: Path) -> tuple[Any, float]:
        """What comes of it, and the seconds between its begin and its end."""
        self.prepare(folder)
        process = self.start(folder)
        began = self.wait(process, folder)
        process.join(PATIENCE_S)
        assert process.exitcode == 0, said_by(folder)
        return self.result(folder), time.monotonic() - began

    def killed(self, folder: Path, seconds: float) -> bool:
        """Kill it so long after its begin; whether it still lived."""
        self.prepare(folder)
        process = self.start(folder)
        self.wait(process, folder)
        process.join(seconds)
        alive = process.exitcode is None
        process.kill()
        process.join()
        return alive

    def finishes(self, folder: Path, result: Any) -> bool:
        """Whether the next process ends well, with this result."""
        process = self.start(folder)
        process.join(PATIENCE_S)
        return process.exitcode == 0 and self.result(folder) == result

    def wait(self, process: BaseProcess, folder: Path) -> float:
        """The moment when it has begun, or ended before anybody saw it."""
        while process.exitcode is None and not self.has_begun(folder):
            time.sleep(0.001)
        return time.monotonic()


def command_work(offer: Offer, *more: str, limit: int | None = None) -> Work:
    """The download of a zip by the tool's command, with further words; no file may grow beyond ``limit`` bytes."""
    tool = offer.tool

    def begin(folder: Path) -> BaseProcess:
        offer.server.requests.clear()
        words = [*tool.words(offer.server.url, folder), "--quiet", "--timeout", "30", *more]
        return start(words, said_file(folder), prepare, offer.url, offer.sha256, limit)

    return Work(begin, lambda folder: offer.asked() > 0)


def said_file(folder: Path) -> Path:
    """Where a command's words go that works on a folder."""
    return folder.with_name(f"{folder.name}.said")


def said_by(folder: Path) -> str:
    """What the commands said that worked on a folder."""
    return said_file(folder).read_text() if said_file(folder).exists() else ""


def prepare(url: str, sha256: str, limit: int | None) -> None:
    """Called in the process before the command."""
    warnings.filterwarnings("ignore", module="runpy")  # that the command is imported already
    offer_data(url, sha256=sha256)
    if limit is not None:
        limit_files(limit)


def monai_download(offer: Offer) -> Work:
    """The same download by MONAI's ``download_url``, which is told the hash."""

    def begin(folder: Path) -> BaseProcess:
        offer.server.requests.clear()
        return start_alone(download_alone, offer.url, folder / offer.tool.zip, offer.sha256, work=work_of(folder))

    return Work(begin, lambda folder: offer.asked() > 0)


def monai_unpacking(archive: Path) -> Work:
    """An extraction by MONAI's ``extractall``."""
    return Work(lambda folder: start_alone(unpack_alone, archive, folder, work=work_of(folder)), Path.exists)


def work_of(folder: Path) -> Path:
    """Where temporary files go."""
    return folder.with_name(f"{folder.name}.work")
