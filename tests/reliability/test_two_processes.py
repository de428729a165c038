"""Two processes at work in one folder at once: both end well, with what one alone would have written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles.pairwise import copy_of_bundle
from tests.reliability.commands import Command, evaluate_command, prepare_command, register_command
from tests.reliability.results import hidden, same_whenever
from tests.reliability.warm import PATIENCE_S, Meeting, run, start, warm_server

SUBJECT = "two processes"
MAKERS = {"prepare": prepare_command, "register": register_command, "evaluate": evaluate_command}


@pytest.fixture(scope="module", autouse=True)
def server():
    with warm_server():
        yield


@pytest.fixture(scope="module", params=list(MAKERS))
def finished(request, tmp_path_factory) -> tuple[Command, dict]:
    """A command and what it writes alone."""
    folder = tmp_path_factory.mktemp(request.param)
    command = MAKERS[request.param](folder)
    assert run(command.words(folder / "out"), folder / "said") == 0, (folder / "said").read_text()
    return command, same_whenever(folder / "out")


def both(words: Callable[[int], list[str]], folder: Path, rename: int) -> list[int | None]:
    """The exit statuses of two processes that meet before one of their renames."""
    processes = [
        start(words(number), folder / f"said{number}", Meeting(folder / "meeting", number, rename)) for number in (0, 1)
    ]
    for process in processes:
        process.join(PATIENCE_S)
        process.kill()
    shutil.rmtree(folder / "meeting", ignore_errors=True)
    return [process.exitcode for process in processes]


@pytest.mark.slow
def test_two_at_once_write_what_one_alone_does(ledger, count, finished, tmp_path):
    command, expected = finished
    wrong = []
    for rename in range(count(6, 2)):
        folder = tmp_path / str(rename)
        folder.mkdir()
        found = both(lambda _, out=folder / "out": command.words(out), folder, rename)
        right = found == [0, 0] and same_whenever(folder / "out") == expected and hidden(folder) == []
        ledger.tell(SUBJECT, f"{command.name}: one output folder, both at rename {rename}", right)
        wrong += [] if right else [(rename, found, [(folder / f"said{k}").read_text()[-600:] for k in (0, 1)])]
    assert wrong == []


@pytest.mark.slow
def test_two_at_once_replace_an_earlier_result(ledger, tmp_path):
    command = register_command(tmp_path, pairs=2)
    assert run(command.words(tmp_path / "out"), tmp_path / "said") == 0, (tmp_path / "said").read_text()
    changed = [*command.words(tmp_path / "alone"), "--no-inverse"]
    assert run(changed, tmp_path / "said") == 0, (tmp_path / "said").read_text()
    found = both(lambda _: [*command.words(tmp_path / "out"), "--no-inverse", "--force"], tmp_path, 0)
    right = found == [0, 0] and same_whenever(tmp_path / "out") == same_whenever(tmp_path / "alone")
    right = right and hidden(tmp_path) == []
    ledger.tell(SUBJECT, "register: an earlier result, both replace it", right)
    assert right, (found, [(tmp_path / f"said{k}").read_text()[-600:] for k in (0, 1)])


@pytest.mark.slow
def test_two_at_once_make_one_set_of_default_data(ledger, tmp_path):
    """The phantoms that a bundle makes once for itself, in its own folder."""
    bundle = copy_of_bundle("svf", tmp_path)
    ids = {"bundle_root": bundle, "dataset_dir::size": [16, 16, 16], "levels": [[2, 2, 2]], "check_starts": 0}
    ids |= {"picture": False, "report": False, "device": "cpu"}

    def words(number: int) -> list[str]:
        own = ids | {"output_dir": tmp_path / f"out{number}"}
        config = f"--config_file={bundle / 'configs' / 'inference.json'}"
        return ["monai.bundle", "run", config, *(f"--{key}={value}" for key, value in own.items())]

    found = both(words, tmp_path, 0)
    results = [same_whenever(tmp_path / f"out{number}") for number in (0, 1)]
    right = found == [0, 0] and results[0] == results[1] != {} and hidden(bundle) == []
    ledger.tell(SUBJECT, "default data: one folder, both make it", right)
    assert right, (found, [(tmp_path / f"said{k}").read_text()[-600:] for k in (0, 1)])
