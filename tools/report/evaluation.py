"""The rows of `pairs.csv`, which `regbundles evaluate` writes: joined with the folders of their registrations."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from .columns import KNOWN, number
from .pair import Gathered, Pair, printable
from .rows import read_rows

__all__ = ["ROWS", "add_rows"]

ROWS = "pairs.csv"
NEEDED = ("method", "pair", "fixed", "moving")
SAME = {"folds_percent": "folded_percent"}  # as metrics.json calls it


def add_rows(path: Path, place: str, found: Gathered) -> None:
    """Put a table's scores to the pairs whose folders are ``.../<method>/<pair>`` below it; make pairs of other rows.

    The table's scores stand before those of `metrics.json`: they are made by one rule for all methods. Several folders
    of a row, such as those of its prediction and of its report, become one pair.

    Args:
        path: of the table.
        place: its folder, relative, with slashes.
        found: the pairs that have folders; what is added to.
    """
    rows = read_rows(path, place, NEEDED, found)
    folders, double = by_row(place, found.pairs), set()
    for row in rows:
        if row["method"] and row["pair"]:
            others = join(row, folders.get((row["method"], row["pair"]), []), place, found)
            double.update(map(id, others))
    found.pairs = [pair for pair in found.pairs if id(pair) not in double]


def by_row(place: str, pairs: Iterable[Pair]) -> dict[tuple[str, str], list[Pair]]:
    """Pairs of folders below a table's own, by the last two names of their paths: method and pair."""
    above = PurePosixPath(place).parts
    found = defaultdict(list)
    for pair in pairs:
        parts = PurePosixPath(pair.folder or "").parts
        if len(parts) >= len(above) + 2 and parts[: len(above)] == above:
            found[parts[-2], parts[-1]].append(pair)
    return found


def join(row: Mapping[str, str], pairs: Sequence[Pair], place: str, found: Gathered) -> Sequence[Pair]:
    """One row of the table; returns the pairs that went into another one, which has more to look at."""
    if not pairs:
        name = PurePosixPath(place, row["method"], row["pair"]).as_posix()
        pairs = [Pair(printable(name), None, *(printable(row[key] or "") for key in ("fixed", "moving")))]
        found.pairs += pairs
    first, *others = sorted(pairs, key=lambda pair: len(pair.files), reverse=True)
    for other in others:
        first.numbers = other.numbers | first.numbers
        if first.verdict is None:
            first.verdict, first.reasons = other.verdict, other.reasons
    first.method = printable(row["method"])
    first.numbers |= scores_of(row)
    return others


def scores_of(row: Mapping[str, str]) -> dict[str, float]:
    """The known columns of a row, by the names that `metrics.json` has for them."""
    known = {column.key for column in KNOWN}
    named = {SAME.get(key, key): number(value) for key, value in row.items()}
    return {key: value for key, value in named.items() if key in known and value is not None}
