"""Running another package's registration over pairs: one field and the seconds of each, in inference's layout."""

import csv
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from common.files import save_atomically
from common.transform_files import read_displacement, write_displacement

from .predictions import FIELD, TIMES, Folder, Pair

__all__ = ["register_pairs"]

Register = Callable[[Pair, Path], tuple[str | Path, float]]
"""Registers one pair, may write into a folder that is then removed, and returns the path of an ITK displacement field
on the fixed grid, and the seconds that the registration took, reading and writing left out."""


def register_pairs(pairs: Sequence[Pair], out: Path, register: Register) -> Folder:
    """Register every pair into ``out``, ``metrics.csv`` last.

    Raises:
        RegEnvError: if ``out`` cannot be written; errors of ``register`` pass.
    """
    rows = []
    for pair in pairs:
        with tempfile.TemporaryDirectory() as work:
            field, seconds = register(pair, Path(work))
            ddf_mm, _ = read_displacement(field)
        write_displacement(out / pair.name / FIELD, ddf_mm, pair.fixed_grid.affine)
        rows.append({"fixed": pair.fixed.name, "moving": pair.moving.name, "seconds": seconds})
    save_atomically(lambda path: write_rows(path, rows), out / TIMES)
    return Folder(out)


def write_rows(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
