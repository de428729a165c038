"""Downloads and extractions killed at any moment: the next run ends as one that was never killed, and cleans up."""

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from tests.reliability.fetching import DATA, TOOLS, Tool, sound_zip
from tests.reliability.fetching_runs import (
    Work,
    command_work,
    monai_download,
    monai_unpacking,
    offered,
    wide_zip,
)
from tests.reliability.warm import warm_server

KILLS = 50
PAUSE_S = 0.02  # every 16 kB of 300
RETRIES = 50  # a busy machine may be faster than it was

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def server():
    with warm_server():
        yield


def survived(work: Work, count: int, folder: Path) -> dict[str, bool]:
    """So many kills of some work at random moments between its begin and its end: does the next run make each good?"""
    draw, told = random.Random(0), {}
    folder.mkdir(exist_ok=True)
    result, seconds = work.in_peace(folder / "peace")
    for number in range(count):
        place = folder / str(number)
        share = kill(work, place, seconds, draw)
        told[f"{number}: {share:.0%} of its time"] = work.finishes(place, result)
        shutil.rmtree(place, ignore_errors=True)
    return told


def kill(work: Work, place: Path, seconds: float, draw: random.Random) -> float:
    """Kill it once while it lives; after which share of its time."""
    for _ in range(RETRIES):
        share = draw.random()
        if work.killed(place, share * seconds):
            return share
        shutil.rmtree(place)
    raise TimeoutError("it was never alive when it was to be killed")


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_a_download_killed_at_any_moment_is_finished_by_the_next(ledger, count, tool, tmp_path):
    content = sound_zip(tool, tmp_path / tool.zip).read_bytes()
    with offered(tool, content, PAUSE_S) as offer:
        told = survived(command_work(offer), count(KILLS, 5), tmp_path / "ours")
        for case, right in told.items():
            ledger.tell("kills: download", f"{tool.name} {case}", right)
        if ledger.kept and tool is DATA:
            for case, right in survived(monai_download(offer), count(KILLS, 5), tmp_path / "alone").items():
                ledger.tell_alone("kills: download", f"{tool.name} {case}", right, "MONAI")
    assert all(told.values()), told


def unpacked_from(tool: Tool, content: bytes) -> tuple[Path, Path]:
    """Below a tool's folder: its zip once that has come, and what is locked while it is unpacked."""
    if tool is DATA:
        return Path(tool.zip), Path(f"{tool.final}.lock")
    work = Path(f"{Path(tool.zip).stem}.{hashlib.sha256(content).hexdigest()[:12]}.part")
    return work / tool.zip, work / "unpacked.lock"


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_an_extraction_killed_at_any_moment_is_finished_by_the_next(ledger, count, tool, tmp_path):
    archive = tmp_path / tool.zip
    content = wide_zip(tool, archive).read_bytes()
    arrived, lock = unpacked_from(tool, content)

    def place(folder: Path) -> None:
        (folder / arrived).parent.mkdir(parents=True)
        (folder / arrived).write_bytes(content)

    with offered(tool, content) as offer:
        locked = lambda folder: (folder / lock).exists()  # noqa: E731
        work = command_work(offer)._replace(has_begun=locked, prepare=place)
        told = survived(work, count(KILLS, 5), tmp_path / "ours")
        assert offer.asked() == 0
    for case, right in told.items():
        ledger.tell("kills: extraction", f"{tool.name} {case}", right)
    if ledger.kept and tool is DATA:
        for case, right in survived(monai_unpacking(archive), count(KILLS, 5), tmp_path / "alone").items():
            ledger.tell_alone("kills: extraction", f"{tool.name} {case}", right, "MONAI")
    assert all(told.values()), told
