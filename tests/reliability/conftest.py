"""How the tests of reliability are counted: ``--full`` for all cases, ``--ledger FILE`` for the table."""

import json
import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.reliability.ledger import Ledger, rows_of, uncounted, update
from tools.benchmark.measuring import device_name
from tools.repository import commit

FOLDER = "REGBUNDLES_LEDGER_FOLDER"  # how the controller tells its workers
THREADS = "OMP_NUM_THREADS"
TO_THE_END = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption("--full", action="store_true", help="all cases instead of a sample")
    group.addoption("--ledger", type=Path, help="csv to write what was tried, right and wrong into")


class Failed:
    """The names of the tests that ended otherwise than well, those of other processes among them."""

    def __init__(self) -> None:
        self.tests: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tests.add(report.nodeid)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--ledger", None) and not hasattr(config, "workerinput"):
        config.ledger_folder = tempfile.TemporaryDirectory()
        config.ledger_failed = Failed()
        config.pluginmanager.register(config.ledger_failed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    folder = getattr(node.config, "ledger_folder", None)
    node.workerinput[FOLDER] = folder.name if folder else None


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    """Where a test tells what it saw."""
    if hasattr(pytestconfig, "workerinput"):
        name = pytestconfig.workerinput.get(FOLDER)
    else:
        name = getattr(getattr(pytestconfig, "ledger_folder", None), "name", None)
    return Ledger(Path(name) if name else None)


@pytest.fixture(scope="session")
def count(pytestconfig: pytest.Config) -> Callable[[int, int], int]:
    """``count(all, some)``: how many cases to try, all of them under ``--full``."""
    full = pytestconfig.getoption("--full", False)
    return lambda all_of_them, some: all_of_them if full else some


def typed(words: Sequence[str]) -> str:
    """The command as somebody would type it, who does not know of this one's paths."""
    threads = [f"{THREADS}={os.environ[THREADS]}"] if THREADS in os.environ else []
    return shlex.join([*threads, "python", "-m", "pytest", *map(str, words)])


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    folder = getattr(session.config, "ledger_folder", None)
    if folder is None:
        return
    if exitstatus not in TO_THE_END:  # what was told until then would look like all there is
        print("\nno row: the run was broken off")
        return
    lines = [json.loads(line) for file in Path(folder.name).glob("*.jsonl") for line in file.read_text().splitlines()]
    missing = uncounted(session.config.ledger_failed.tests, lines)
    command = typed(session.config.invocation_params.args)
    told = {"device": device_name("cpu"), "commit": commit(), "command": command}
    rows = [row | told for row in rows_of(lines) if row["subject"] not in missing]
    update(session.config.getoption("--ledger"), rows, missing)
    folder.cleanup()
    if missing:
        print(f"\nno row for {', '.join(sorted(missing))}: a test failed otherwise than by a case that was told")
