"""Hits and false alarms of the self-check on the half that its limits have not seen."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scipy.stats import binomtest

from common.errors import RegInputError
from common.quality import Limit, verdict

from .measuring import write
from .quality import REFUSED, read
from .quality_cases import GOOD, KINDS
from .quality_limits import signals_of_row
from .quality_scans import HALVES
from .quality_truth import Judged, judged

__all__ = ["report_quality", "table_of"]

CONFIDENCE = 0.95
BAD = "any failure"

Row = Mapping[str, str]


def report_quality(pairs: Path, out: Path) -> str:
    """Write ``quality-*.csv`` beside the pairs' csv and return the held-out half's table as Markdown.

    Args:
        pairs: csv of ``regbundles benchmark quality``.
        out: folder for the table.

    Raises:
        RegInputError: if the csv is missing.
    """
    rows = read(pairs)
    if not rows:
        raise RegInputError(f"{pairs} is missing, expected signals of pairs; run `regbundles benchmark quality`.")
    table = table_of(rows)
    write(out / pairs.name.replace("quality-pairs", "quality"), [{**row, "pairs": pairs.name} for row in table])
    columns = ["registrations", "n", "flagged", "of these failed", "%", "95 % interval"]
    cells = [
        [row["what"], row["n"], row["flagged"], row["failed"], row["percent"], f"{row['low']} to {row['high']}"]
        for row in table
        if row["half"] == HALVES[1]
    ]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (columns, ["---"] * len(columns), *cells))


def table_of(rows: Sequence[Row], limits: Mapping[str, Limit] | None = None) -> list[dict[str, object]]:
    """A row for the good registrations, in all and by organ, and for the bad ones, in all and by kind, of each half.

    Args:
        rows: of ``regbundles benchmark quality``.
        limits: of the verdict; by default those that the check has.
    """
    found, known = [], judged(rows)
    for half in HALVES:
        good = [one for one in known if one.row["half"] == half and one.worked]
        bad = [one for one in known if one.row["half"] == half and one.worked is False]
        organs = sorted({one.row["organ"] for one in good})
        groups = {GOOD: good}
        groups |= {f"{GOOD}, {organ}": chosen(good, lambda row, organ=organ: row["organ"] == organ) for organ in organs}
        groups |= {BAD: bad}
        groups |= {kind: chosen(bad, lambda row, kind=kind: row["kind"] == kind) for kind in KINDS}
        found += [{"half": half, "what": what, **counted(group, limits)} for what, group in groups.items() if group]
    return found


def chosen(group: Sequence[Judged], which: Callable[[Row], bool]) -> list[Judged]:
    """Those of a group whose row is wanted."""
    return [one for one in group if which(one.row)]


def counted(group: Sequence[Judged], limits: Mapping[str, Limit] | None) -> dict[str, int | float]:
    """How many the check flags, and Wilson's interval in percent."""
    states = [state_of(row, limits) for row, _ in group]
    flagged = len(states) - states.count("ok")
    interval = binomtest(flagged, len(states)).proportion_ci(CONFIDENCE, method="wilson")
    percent = {"percent": flagged / len(states), "low": interval.low, "high": interval.high}
    return {
        "n": len(states),
        "flagged": flagged,
        "failed": states.count("failed"),
        **{key: round(100 * value, 1) for key, value in percent.items()},
    }


def state_of(row: Row, limits: Mapping[str, Limit] | None) -> str:
    """The verdict; what is refused before it is registered has failed."""
    return "failed" if row[REFUSED] else verdict(signals_of_row(row), limits).state
