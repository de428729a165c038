"""The limits of the self-check: some by what is plausible, the others by ``regbundles benchmark quality``.

The others are chosen by the calibration half of its csv. Every such limit lets through the same share of good
registrations, the largest at which no more than one in twenty of them is flagged by any signal. Bad registrations have
no say, so that the limits suit no kind of failure in particular.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import RegInputError
from common.files import save_atomically
from common.quality import RULES, SIGNALS, Limit, verdict

from .quality import read
from .quality_truth import judged

__all__ = ["FALSE_ALARMS", "choose_limits", "signals_of_row", "write_limits"]

FALSE_ALARMS = 0.05  # of the good registrations of the calibration half, at most
SHARES = np.linspace(FALSE_ALARMS, 0, 101)  # of good values beyond a signal's limit, tried in this order
BEYOND = 0.5  # of the way from the median to the worst good value
DIGITS = 3  # significant ones of a limit
RULE = (
    'Limits by "csv": check: of the good registrations of the calibration half, the same share lies beyond each of '
    f"them, the largest share at which at most {100 * FALSE_ALARMS:.0f} % are flagged by any limit, those by "
    f"plausibility among them. failed: farther out than the worst good one by {100 * BEYOND:.0f} % of its distance "
    "from their median. "
    'Limits by "plausibility" do not look at the csv.'
)


class Plausible(NamedTuple):
    """A limit by what is plausible, and why it is there."""

    limit: Limit
    why: str


FIXED = {
    "finite_percent": Plausible(Limit(100.0, 100.0), "a displacement that is no number is of no use"),
    "dice_change": Plausible(Limit(0.0, -0.1), "labels that are there are the truth"),
    "folded_percent": Plausible(
        Limit(0.5, 5.0), "the good fields of the csv do not fold; those of many a network do a little"
    ),
    "inverse_percent": Plausible(
        Limit(1.0, 10.0), "the good fields of the csv have an inverse; those of many a network miss a little of it"
    ),
    "initial_factor": Plausible(Limit(1.8, 4.0), "adults' brains differ by 1.6 times"),
    "displacement_percent": Plausible(Limit(20.0, 40.0), "a breath moves a liver by 30 mm, a sixth of it"),
    "volume_factor": Plausible(Limit(4.0, 10.0), "networks bend more than svf, and still raise the overlap"),
    "inside_percent": Plausible(Limit(90.0, 75.0), "what a scan leaves out is no matter of statistics"),
}
"""Limits by what is plausible: few organs and methods say little of how far others move and bend."""

Row = Mapping[str, str]


def write_limits(pairs: Path, path: Path) -> Path:
    """Choose limits by a csv of ``regbundles benchmark quality`` and write the json that ``common.quality`` reads.

    Raises:
        RegInputError: if the csv has no good registration of the calibration half.
    """
    limits = choose_limits(read(pairs))
    told = {name: {**limit._asdict(), **origin_of(name)} for name, limit in limits.items()}
    content = {"from": pairs.name, "rule": RULE, "limits": told}
    save_atomically(lambda target: target.write_text(json.dumps(content, indent=4) + "\n"), path)
    return path


def origin_of(signal: str) -> dict[str, str]:
    """By what a signal's limit was chosen, "csv" or "plausibility", and why."""
    return {"by": "plausibility", "why": FIXED[signal].why} if signal in FIXED else {"by": "csv"}


def choose_limits(rows: Sequence[Row]) -> dict[str, Limit]:
    """Limits by signal.

    Args:
        rows: of ``regbundles benchmark quality``; those of the calibration half that worked count.

    Raises:
        RegInputError: if there is none.
    """
    good = [signals_of_row(row) for row, worked in judged(rows) if worked and row["half"] == "calibration"]
    if not good:
        raise RegInputError(
            "no good registration of the calibration half, expected some; run `regbundles benchmark quality`."
        )
    tried = (limits_at(share, good) for share in SHARES)
    return next(limits for limits in tried if alarms(good, limits) <= FALSE_ALARMS)


def signals_of_row(row: Row) -> dict[str, float | None]:
    """The signals that need no labels: the check has none in use."""
    return {name: float(row[name]) if row[name] else None for name in SIGNALS if name != "dice_change"}


def alarms(good: Sequence[Mapping[str, float | None]], limits: Mapping[str, Limit]) -> float:
    """The share of registrations that are not "ok"."""
    return float(np.mean([verdict(signals, limits).state != "ok" for signals in good]))


def limits_at(share: float, good: Sequence[Mapping[str, float | None]]) -> dict[str, Limit]:
    """The limits beyond which a share of the good values of each signal lies."""
    found = {}
    for rule in RULES:
        if rule.signal in FIXED:
            found[rule.signal] = FIXED[rule.signal].limit
            continue
        values = [signals[rule.signal] for signals in good if signals.get(rule.signal) is not None]
        found[rule.signal] = limit_of(rule.worse * np.array(values), share, rule.worse)
    return found


def limit_of(values: np.ndarray, share: float, worse: int) -> Limit:
    """The limit of values of which more is worse, in the signal's own direction."""
    check = np.quantile(values, 1 - share, method="higher")
    failed = values.max() + BEYOND * (values.max() - np.median(values))
    return Limit(*(worse * outward(bound) for bound in (check, failed)))


def outward(bound: float) -> float:
    """Rounded to some digits, never down, so that no value on the bound comes to lie beyond it."""
    if bound == 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(abs(bound))) + 1 - DIGITS)
    return float(f"{np.ceil(bound / unit) * unit:.{DIGITS + 2}g}")
