"""The rows of `failures.csv`: pairs that a run over many refused, or could not register; most have no folder."""

from pathlib import Path, PurePosixPath

from common.cohort import FAILURES, FailedPair

from .pair import Gathered, Pair, printable
from .rows import read_rows

__all__ = ["FAILURES", "add_failures"]


def add_failures(path: Path, place: str, found: Gathered) -> None:
    """Add the pairs of a table of failures, each with its sentence as the reason.

    A pair whose folder is there, from an earlier run, is called failed and keeps what its folder says.

    Args:
        path: of the table.
        place: its folder, relative, with slashes.
        found: what is added to.
    """
    folders = {pair.folder: pair for pair in found.pairs if pair.folder is not None}
    for row in read_rows(path, place, FailedPair._fields, found):
        failed = FailedPair(*(row[key] or "" for key in FailedPair._fields))
        folder = PurePosixPath(place, failed.pair).as_posix()
        pair = folders.get(folder)
        if pair is None:
            pair = Pair(printable(folder), None, printable(failed.fixed), printable(failed.moving))
            found.pairs.append(pair)
        pair.verdict, pair.reasons = "failed", (printable(failed.sentence), *pair.reasons)
