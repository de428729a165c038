"""Cases that are measured one after the other inside a limit of time, and kept as soon as they are.

A sheet is a csv; a case is one row of it, or some. What a sheet holds is not measured again, a case that fails costs a
row of reasons, and one that the limit cut off is left for the next run. All cases share one process as long as none
fails: a GPU's start and torch's imports are longer than most measurements.
"""

import csv
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.errors import in_one_line

from .measuring import write

__all__ = ["Case", "CaseError", "Sheet", "Worker", "run_cases"]

LEAST_S = 10.0
"""Seconds that have to be left for a case to be begun."""


class CaseError(Exception):
    """Why a case has no result."""


class Case(NamedTuple):
    """One measurement: where it belongs, what tells it from others, and the call that makes its rows."""

    part: str
    key: Mapping[str, Any]
    measure: Callable[..., dict | list[dict]]
    arguments: tuple
    limit_s: float = 120.0

    def __str__(self) -> str:
        return " ".join((self.part, *map(str, self.key.values())))


@dataclass
class Sheet:
    """A csv that is whole after every row.

    Attributes:
        path: of the csv.
        stack: columns that end each row.
        derive: completes the rows by what follows from others; may be handed numbers as text.
    """

    path: Path
    stack: Mapping[str, Any] = field(default_factory=dict)
    derive: Callable[[list[dict]], None] = lambda rows: None

    def rows(self) -> list[dict]:
        """What is there."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def holds(self, key: Mapping[str, Any]) -> bool:
        """Whether a row has these values."""
        return any(all(row.get(name) == str(value) for name, value in key.items()) for row in self.rows())

    def add(self, rows: Sequence[dict]) -> None:
        """Put rows at the end, in one step."""
        whole = [*self.rows(), *({**row, **self.stack} for row in rows)]
        self.derive(whole)
        partial = self.path.with_name(f".{self.path.name}")
        write(partial, whole)
        partial.replace(self.path)


class Worker:
    """A process that measures, replaced once it has failed."""

    def __init__(self) -> None:
        self.process = None

    def call(self, seconds: float, function: Callable, *arguments: Any) -> Any:
        """The function's answer; TimeoutError after so many seconds, CaseError for whatever else ended it."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs,))
            self.process.start()
            theirs.close()
        self.pipe.send((function, arguments))
        try:
            if not self.pipe.poll(seconds):
                raise TimeoutError
            answer, reason = self.pipe.recv()
        except (TimeoutError, EOFError) as error:
            self.end()
            if isinstance(error, TimeoutError):
                raise
            raise CaseError("its process ended without an answer: killed for memory, or by a fault") from None
        if reason is not None:
            self.end()  # an error inside of a kernel stays with the process
            raise CaseError(reason)
        return answer

    def end(self, patience: float = 0.0) -> None:
        """Let the process end by itself for so many seconds, then kill it and what it has started."""
        if self.process is not None:
            self.pipe.close()
            self.process.join(patience)
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):  # not yet the first of its group
                self.process.kill()
            self.process.join()
            self.process = None


def serve(pipe: Connection) -> None:
    """Call what is asked for until nobody asks."""
    os.setsid()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = function(*arguments), None
        except Exception as error:
            answer = None, f"{type(error).__name__}: {in_one_line(error)}"[:400]
        if "torch._dynamo" in sys.modules:
            torch._dynamo.reset()  # what one case compiled must not count against the next one's limit of variants
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        pipe.send(answer)


def run_cases(
    cases: Sequence[Case], sheets: Mapping[str, Sheet], failures: Sheet, deadline: float, say: Callable[[str], None]
) -> list[Case]:
    """Measure what no sheet holds, in this order, until the deadline.

    Args:
        cases: what there is to measure.
        sheets: the csv of each part.
        failures: takes the parts and reasons of those that have failed or passed their own limit.
        deadline: on the clock of ``time.monotonic``.
        say: is handed a line for each case that was measured.

    Returns:
        What is left.
    """
    left, worker = [], Worker()
    try:
        for case in cases:
            if sheets[case.part].holds(case.key) or failures.holds({"part": case.part, "case": str(case)}):
                continue
            started = time.monotonic()
            seconds = deadline - started
            if seconds < LEAST_S:
                left.append(case)
                continue
            try:
                rows = worker.call(min(seconds, case.limit_s), case.measure, *case.arguments)
            except (CaseError, TimeoutError) as error:
                if isinstance(error, TimeoutError) and seconds < case.limit_s:
                    left.append(case)
                    continue
                reason = str(error) or f"not finished within {case.limit_s:g} s"
                failures.add([{"part": case.part, "case": str(case), "reason": reason}])
                say(f"{case}: failed: {reason}")
                continue
            rows = rows if isinstance(rows, list) else [rows]
            sheets[case.part].add([{**case.key, **row} for row in rows])
            say(f"{case}: {told(rows[0])}({time.monotonic() - started:.0f} s)")
    finally:
        worker.end(patience=5.0)
    return left


def told(row: Mapping[str, Any]) -> str:
    """The seconds and the memory of a row, for a line."""
    return "".join(f"{name} {row[name]} " for name in row if name.endswith(("_s_median", "_mib", "passed", "failed")))
