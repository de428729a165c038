"""Run calls of ``python -m monai.bundle``, read as JSON from the standard input, one after the other in this process.

Usage: commands.py RESULTS < COMMANDS, with COMMANDS [{"cwd", "argv", "hidden"}, ...] and RESULTS a list of null or a
text. Imports nothing of the repository: it is started where that is shut out.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import sitecustomize  # this folder's, which Python ran at its start


def run(cwd: str, argv: list[str], hidden: list[str]) -> str | None:
    """Run one command as ``python -m`` would; ``None``, or its traceback and, as the last line, the first cause."""
    os.chdir(cwd)
    sitecustomize.HIDDEN = set(hidden)
    before = list(sys.path)
    sys.argv = ["monai.bundle", *argv]
    sys.path[0] = ""  # `python -m` looks into the working directory first
    try:
        runpy.run_module("monai.bundle", run_name="__main__")
    except SystemExit as ended:
        return f"it exited with {ended.code}" if ended.code else None
    except Exception as error:
        return f"{traceback.format_exc()[-3000:]}\n{first_cause(error)}"
    finally:
        sys.path[:] = before
        for module in [m for m in sys.modules if m.split(".")[0].endswith("_bundle")]:
            del sys.modules[module]
    return None


def first_cause(error: BaseException) -> str:
    """The error at the bottom of a chain, in one line: MONAI wraps what a component raises."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    results = Path(sys.argv[1]).absolute()
    results.write_text(json.dumps([run(**command) for command in json.load(sys.stdin)]))
