"""Commands killed at any moment: the next run ends as one that was never killed, and cleans up."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.reliability.commands import Command, prepare_command, register_command
from tests.reliability.results import hidden, same_whenever
from tests.reliability.warm import PATIENCE_S, KillAfter, KillBefore, NoteRenames, run, start, warm_server


@dataclass(frozen=True)
class Subject:
    """What is killed.

    Attributes:
        make: the command, by the folder for its data.
        kills: how many.
        has_begun: whether it is at its work, by its output folder; from then on it is killed at random times.
    """

    make: Callable[[Path], Command]
    kills: int
    has_begun: Callable[[Path], bool] = lambda out: True


SUBJECTS = {
    "kills: prepare": Subject(prepare_command, 50),
    # Workers take seconds to import what they need and a moment to work.
    "kills: prepare by two workers": Subject(
        partial(prepare_command, subjects=6, workers=2), 4, lambda out: any(out.rglob("*.nii.gz"))
    ),
    "kills: register": Subject(register_command, 50),
}


@dataclass(frozen=True)
class Reference:
    """A command that was left in peace: what it wrote, and the seconds of work and renames that it took."""

    subject: Subject
    command: Command
    result: dict
    seconds: float
    renames: int


@pytest.fixture(scope="module", autouse=True)
def server():
    with warm_server():
        yield


@pytest.fixture(scope="module", params=list(SUBJECTS))
def subject(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def reference(subject, tmp_path_factory) -> Reference:
    folder, killed = tmp_path_factory.mktemp("reference"), SUBJECTS[subject]
    command = killed.make(folder)
    process = start(command.words(folder / "out"), folder / "said", NoteRenames(folder / "renames"))
    began = begin_of(process, killed, folder / "out")
    process.join(PATIENCE_S)
    seconds = time.monotonic() - began
    assert process.exitcode == 0, (folder / "said").read_text()
    return Reference(killed, command, same_whenever(folder / "out"), seconds, (folder / "renames").stat().st_size)


def begin_of(process: BaseProcess, subject: Subject, out: Path) -> float:
    """The moment when it is at its work, or ended before anybody saw it."""
    while process.exitcode is None and not subject.has_begun(out):
        time.sleep(0.001)
    return time.monotonic()


def kill_after(seconds: float, reference: Reference, folder: Path) -> None:
    """Start a command and kill it at its work; one that was faster is started anew and killed in half of the time."""
    while True:
        process = start(reference.command.words(folder / "out"), folder / "said")
        begin_of(process, reference.subject, folder / "out")
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
    for number in range(count(reference.subject.kills // 2, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        seconds = draw.uniform(0, reference.seconds)
        kill_after(seconds, reference, folder)
        case, right = f"after {seconds:.3f} s", finishes_alike(reference, folder)
        ledger.tell(subject, f"{number}: {seconds / reference.seconds:.0%} of its time", right)
        wrong += [] if right else [case]
    assert wrong == []


@pytest.mark.slow
def test_a_run_killed_about_a_rename_is_finished_by_the_next(ledger, count, subject, reference, tmp_path):
    draw, wrong = random.Random(1), []
    places = [(kill, rename) for rename in range(reference.renames) for kill in (KillBefore, KillAfter)]
    kills = reference.subject.kills - reference.subject.kills // 2
    for number, (kill, rename) in enumerate(draw.choices(places, k=count(kills, 2))):
        folder = tmp_path / str(number)
        folder.mkdir()
        status = run(reference.command.words(folder / "out"), folder / "said", kill(rename))
        case = f"{kill.__name__} rename {rename}"
        right = status == -signal.SIGKILL and finishes_alike(reference, folder)
        ledger.tell(subject, f"{number}: {case}", right)
        wrong += [] if right else [case]
    assert wrong == []
