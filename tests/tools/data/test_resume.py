"""Workers and what becomes of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.data.resume import run_all

SLEEPERS = "import time; from tools.data.resume import run_all; run_all(time.sleep, [600, 600], 2, 'asleep')"
PATIENCE_S = 120


def children(process: int) -> set[int]:
    """The processes that one started, those of them that still run."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return {int(number) for number in listed.read_text().split()} if listed.exists() else set()


def is_working(process: int) -> bool:
    """Whether a process runs and has begun to work: it has a second thread, which looks after its parent."""
    task = Path(f"/proc/{process}/task")
    return task.exists() and len(list(task.iterdir())) > 1


def wait_until(met) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not met() and time.monotonic() < until:
        time.sleep(0.1)
    return met()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in /proc")
def test_workers_end_with_the_process_that_started_them():
    command = subprocess.Popen([sys.executable, "-c", SLEEPERS], stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: sum(map(is_working, children(command.pid))) >= 2)
        started = children(command.pid)
    finally:
        command.send_signal(signal.SIGKILL)
        command.wait()
    assert wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in started))


@pytest.mark.slow
def test_results_come_in_the_order_of_the_jobs():
    assert run_all(abs, [-3, -1, -2], 2, "numbers") == [3, 1, 2]
    assert os.getpid() not in run_all(process_of, [0, 1], 2, "processes")


def process_of(_: int) -> int:
    """Who works."""
    return os.getpid()
