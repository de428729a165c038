"""What `regbundles register` reaches on raw scans with no other flag than labels to score by: overlap, error, cost.

The pairs are those of ``raw_cases.py``. Each row is the command in a process of its own, start-up included.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from common.errors import RegInputError

from ..repository import commit
from .measuring import device_name, file_name, write
from .raw_cases import CASES, Case, find_cases
from .register import measure

__all__ = ["benchmark_raw"]

SCORES = ("dice_before", "dice", "sdlogj", "folded_percent", "inverse_residual_mm", "inverse_residual_over_percent")
COLUMNS = ("pair", *SCORES, "error_mm_before", "error_mm", "seconds", "cpu_seconds", "peak_gib")


def benchmark_raw(
    data: Path,
    out: Path,
    names: Sequence[str] = tuple(CASES),
    *,
    threads: int = 2,
    work: Path | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Register the named pairs and write the csv.

    Args:
        data: folder of ``lung_ct``, ``malc`` and ``mni152``.
        out: folder for the csv, whose name tells device and stack.
        names: of ``raw_cases.CASES``.
        threads: that the command may use.
        work: folder in which scans that are made and all results stay, pictures included; by default nothing stays.
        command: for the column of that name.
        say: gets a line after each row.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: for an unknown pair, a scan that is missing, or a folder ``work`` with content; before anything
            is registered.
    """
    stack = {"device": device_name("cpu"), "torch": torch.__version__, "threads": threads, "commit": commit()}
    rows = []
    with folder_for(work) as own:
        for name, case in find_cases(data, own, names).items():
            row = {"pair": name, **measure_case(case, own / name, threads)}
            rows.append({**{key: row.get(key, "") for key in COLUMNS}, **stack, "command": command})
            say(", ".join(f"{key} {row[key]}" for key in COLUMNS if key in row))
    return write(out / file_name("raw", "cpu", threads), rows)


def measure_case(case: Case, out: Path, threads: int) -> dict[str, float]:
    """Cost and scores of the command on one pair."""
    row = measure([case.fixed, case.moving], "svf", out, threads, case.flags)
    metrics = json.loads((out / "metrics.json").read_text())
    row |= {key: round(metrics[key], 4) for key in SCORES if metrics.get(key) is not None}
    if case.errors is not None:
        errors = case.errors(out / "displacement.nii.gz")
        row |= {key: round(error, 3) for key, error in zip(("error_mm_before", "error_mm"), errors, strict=True)}
    return row


@contextlib.contextmanager
def folder_for(work: Path | None) -> Iterator[Path]:
    """A new folder: the one that is given, or one that does not stay."""
    if work is None:
        with tempfile.TemporaryDirectory() as own:
            yield Path(own)
    else:
        if work.exists() and any(work.iterdir()):  # results of the same scans would be kept and not measured
            raise RegInputError(f"{work} has content, expected a new folder for the results; name another.")
        work.mkdir(parents=True, exist_ok=True)
        yield work
