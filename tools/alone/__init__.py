"""MONAI's commands in a process where nothing of this repository can be imported, as on another person's machine."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .loopback import served
from .packages import modules_beside

__all__ = ["FOLDER", "Command", "alone_environment", "modules_beside", "run_alone", "served"]

FOLDER = Path(__file__).parent
"""Goes on PYTHONPATH: its ``sitecustomize.py`` shuts the repository out."""


class Command(NamedTuple):
    """One call of ``python -m monai.bundle``."""

    cwd: str
    argv: list[str]
    hidden: Sequence[str] = ()
    """Top-level modules that cannot be imported, unless an earlier command did; see :func:`modules_beside`."""


def alone_environment() -> dict[str, str]:
    """This process's environment without the repository: only the blocker on PYTHONPATH, no byte code written.

    And no proxy between a process and its own machine.
    """
    quiet = {"PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "no_proxy": "127.0.0.1"}
    return {**os.environ, "PYTHONPATH": str(FOLDER), **quiet}


def run_alone(commands: Sequence[Command], timeout_s: float = 900) -> list[str | None]:
    """Run the commands one after the other, each with its own imports, in one process without the repository.

    One process, because importing torch and MONAI takes longer than the work.

    Args:
        commands: what to run and where.
        timeout_s: all of it is stopped after that many seconds.

    Returns:
        For each command ``None``, or what it failed with: the error and the end of what was printed.

    Raises:
        subprocess.TimeoutExpired: after ``timeout_s``.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        process = subprocess.run(
            [sys.executable, str(FOLDER / "commands.py"), str(results)],
            input=json.dumps([command._asdict() for command in commands]),
            cwd=folder,
            env=alone_environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if results.is_file():
            return json.loads(results.read_text())
    return [f"the process ended with {process.returncode}: {process.stderr[-2000:]}"] * len(commands)
