"""Commands killed at any moment: the next run ends as one that was never killed, and cleans up."""

import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.reliability.commands import Command, prepare_command, register_command
from tests.reliability.results import hidden, same_whenever
from tests.reliability.warm import KillAfter, KillBefore, NoteRenames, run, start, warm_server

MAKERS = {"kills: prepare": prepare_command, "kills: register": register_command}
KILLS = 50


@dataclass(frozen=True)
class Reference:
    """A command that was left in peace: what it wrote, and the seconds and renames that it took."""

    command: Command
    result: dict
    seconds: float
    renames: int


@pytest.fixture(scope="module", autouse=True)
def server():
    with warm_server():
        yield


@pytest.fixture(scope="module", params=list(MAKERS))
def subject(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def reference(subject, tmp_path_factory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    command = MAKERS[subject](folder)
    started = time.monotonic()
    status = run(command.words(folder / "out"), folder / "said", NoteRenames(folder / "renames"))
    seconds = time.monotonic() - started
    assert status == 0, (folder / "said").read_text()
    return Reference(command, same_whenever(folder / "out"), seconds, (folder / "renames").stat().st_size)


def kill_after(seconds: float, words: list[str], folder: Path) -> None:
    """Start a command and kill it; one that was faster is started anew and killed in half of the time."""
    while True:
        process = start(words, folder / "said")
        process.join(seconds)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            return
        shutil.rmtree(folder / "out", ignore_errors=True)
        seconds /= 2


def finishes_alike(reference: Reference, folder: Path) -> bool:
    """Whether the next run over what a killed one left ends well, with the same files and no other."""
    status = run(reference.command.words(folder / "out"), folder / "said")
    return status == 0 and same_whenever(folder / "out") == reference.result and hidden(folder) == []


@pytest.mark.slow
def test_a_run_killed_at_any_moment_is_finished_by_the_next(ledger, count, subject, reference, tmp_path):
    draw, wrong = random.Random(0), []
    for number in range(count(KILLS // 2, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        seconds = draw.uniform(0, reference.seconds)
        kill_after(seconds, reference.command.words(folder / "out"), folder)
        case, right = f"after {seconds:.3f} s", finishes_alike(reference, folder)
        ledger.tell(subject, f"{number}: {seconds / reference.seconds:.0%} of its time", right)
        wrong += [] if right else [case]
    assert wrong == []


@pytest.mark.slow
def test_a_run_killed_about_a_rename_is_finished_by_the_next(ledger, count, subject, reference, tmp_path):
    draw, wrong = random.Random(1), []
    places = [(kill, rename) for rename in range(reference.renames) for kill in (KillBefore, KillAfter)]
    for number, (kill, rename) in enumerate(draw.choices(places, k=count(KILLS - KILLS // 2, 2))):
        folder = tmp_path / str(number)
        folder.mkdir()
        status = run(reference.command.words(folder / "out"), folder / "said", kill(rename))
        case = f"{kill.__name__} rename {rename}"
        right = status == -signal.SIGKILL and finishes_alike(reference, folder)
        ledger.tell(subject, f"{number}: {case}", right)
        wrong += [] if right else [case]
    assert wrong == []
