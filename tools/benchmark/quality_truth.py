"""Which rows of ``regbundles benchmark quality`` are registrations that worked, and which are not, by their labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .quality_cases import CONDITIONAL, GOOD

__all__ = ["Judged", "judged"]

GAINED = 0.02  # of mean Dice
NEARER = 0.1  # of the landmark error before
LOST = 0.1  # of the overlap that the same pair reaches when it succeeds
FARTHER = 1.5  # times the landmark error that it reaches then

Row = Mapping[str, str]


class Judged(NamedTuple):
    """A row, and whether its registration worked: True, False, or None where that cannot be said."""

    row: Row
    worked: bool | None


def judged(rows: Sequence[Row]) -> list[Judged]:
    """Every row with what its labels or landmarks say.

    A good pair has worked if its mean Dice rose by 0.02 or its landmarks came nearer by a tenth. Spoiled and broken
    registrations have failed; where they may have got over it, only if a tenth of the overlap of the good registration
    of the same two scans is lost, or their landmarks are half as far again.
    """
    best = {scans_of(row): row for row in reversed(rows) if row["kind"] == GOOD and not row["spoil"]}
    return [Judged(row, worked(row, best.get(scans_of(row)))) for row in rows]


def scans_of(row: Row) -> tuple[str, ...]:
    """What tells one pair of scans from another."""
    return row["organ"], row["fixed"], row["moving"]


def worked(row: Row, best: Row | None) -> bool | None:
    """See :func:`judged`; ``best`` is the good row of the same scans."""
    if row["kind"] == GOOD:
        return improved(row)
    if row["kind"] not in CONDITIONAL:
        return False
    lost = worse(row, best)
    return False if lost else None  # got over it, or nothing is known


def improved(row: Row) -> bool | None:
    """Whether the overlap rose or the landmarks came nearer; None if that is in doubt."""
    if row["dice"]:
        return float(row["dice"]) >= float(row["dice_before"]) + GAINED or None
    return float(row["tre_mm"]) <= (1 - NEARER) * float(row["tre_mm_before"]) or None


def worse(row: Row, best: Row | None) -> bool:
    """Whether a row is clearly worse than the good one."""
    if best is None:
        return False
    if row["dice"] and best["dice"]:
        return float(row["dice"]) < (1 - LOST) * float(best["dice"])
    if row["tre_mm"] and best["tre_mm"]:
        return float(row["tre_mm"]) > FARTHER * float(best["tre_mm"])
    return False
