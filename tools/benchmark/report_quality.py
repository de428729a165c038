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

__all__ = ["NEITHER", "report_quality", "table_of"]

CONFIDENCE = 0.95
BAD = "any failure"
REGISTERED = f"{BAD}, registered"
NEITHER = "neither good nor failed"
SKULL_STRIPPED = "_SS"  # of the native scans' names: prepared ones are the same scans

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
    columns = ["registrations", "n", "scan pairs", "refused", "flagged", "of these failed", "%", "95 % interval"]
    keys = ("what", "n", "scan_pairs", "refused", "flagged", "failed", "percent")
    held_out = [row for row in table if row["half"] == HALVES[1]]
    cells = [[*(row[key] for key in keys), f"{row['low']} to {row['high']}"] for row in held_out]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (columns, ["---"] * len(columns), *cells))


def table_of(rows: Sequence[Row], limits: Mapping[str, Limit] | None = None) -> list[dict[str, object]]:
    """A row for the good registrations, in all and by organ, and for the bad ones, in all and by kind, of each half.

    Of the bad ones there is a row without those that were refused before a registration, which no signal judged; the
    last row has what is neither good nor failed.

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
        groups |= {BAD: bad, REGISTERED: chosen(bad, lambda row: not row[REFUSED])}
        groups |= {kind: chosen(bad, lambda row, kind=kind: row["kind"] == kind) for kind in KINDS}
        groups |= {NEITHER: [one for one in known if one.row["half"] == half and one.worked is None]}
        found += [{"half": half, "what": what, **counted(group, limits)} for what, group in groups.items() if group]
    return found


def chosen(group: Sequence[Judged], which: Callable[[Row], bool]) -> list[Judged]:
    """Those of a group whose row is wanted."""
    return [one for one in group if which(one.row)]


def counted(group: Sequence[Judged], limits: Mapping[str, Limit] | None) -> dict[str, int | float]:
    """How many, of how many distinct pairs of scans, how many refused and flagged, Wilson's interval in percent."""
    states = [state_of(row, limits) for row, _ in group]
    flagged = len(states) - states.count("ok")
    interval = binomtest(flagged, len(states)).proportion_ci(CONFIDENCE, method="wilson")
    percent = {"percent": flagged / len(states), "low": interval.low, "high": interval.high}
    return {
        "n": len(states),
        "scan_pairs": len({scans_of(row) for row, _ in group}),
        "refused": sum(bool(row[REFUSED]) for row, _ in group),
        "flagged": flagged,
        "failed": states.count("failed"),
        **{key: round(100 * value, 1) for key, value in percent.items()},
    }


def scans_of(row: Row) -> frozenset[str]:
    """The two scans of a row, whichever is fixed and at whatever resolution."""
    return frozenset(row[key].removesuffix(SKULL_STRIPPED) for key in ("fixed", "moving"))


def state_of(row: Row, limits: Mapping[str, Limit] | None) -> str:
    """The verdict; what is refused before it is registered has failed."""
    return "failed" if row[REFUSED] else verdict(signals_of_row(row), limits).state
