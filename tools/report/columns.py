"""The numbers that a page over many pairs shows, what they are called, and which pair is worse."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from common.quality import RULES
from common.quality_signals import NAMES

__all__ = ["KNOWN", "Column", "columns_of", "number", "worst_first"]

ORDER = ("failed", "check", None, "ok")  # of verdicts, the worst first; None: nobody judged
UNITS = {"_mm": " (mm)", "_percent": " (%)"}
SIMILARITY_GAIN = "similarity_gain"  # a signal of the self-check: the one measure that needs no labels
BETTER = {rule.signal: "low" if rule.worse > 0 else "high" for rule in RULES} | {"similarity_before": "high"}


class Column(NamedTuple):
    """A number of every pair.

    Attributes:
        key: as files on disk have it.
        label: as people read it, unit included.
        better: "high", "low", or "" where neither is.
    """

    key: str
    label: str
    better: str = ""


KNOWN = (
    Column("dice_before", "Dice before", "high"),
    Column("dice", "Dice", "high"),
    Column("dice_linear", "Dice linear", "high"),
    Column("hd95_mm_before", "HD95 before (mm)", "low"),
    Column("hd95_mm", "HD95 (mm)", "low"),
    Column("tre_mm_before", "TRE before (mm)", "low"),
    Column("tre_mm", "TRE (mm)", "low"),
    Column("error_limit_mm", "Error limit (mm)", "low"),
    Column("sdlogj", "SDlogJ", "low"),
    Column("ndv_percent", "NDV (%)", "low"),
    Column("folded_percent", "Folds (%)", "low"),
    Column("inverse_residual_mm", "Inverse (mm)", "low"),
    Column("inverse_residual_over_percent", "Inverse > 0.05 mm (%)", "low"),
    Column("n_missing", "Labels missing", "low"),
    Column("n_lost", "Labels lost", "low"),
    Column("seconds", "Seconds, network", "low"),
    Column("seconds_total", "Seconds, all steps", "low"),
    *(Column(key, name, BETTER.get(key, "low")) for key, name in NAMES.items() if key != "folded_percent"),
)


def columns_of(numbers: Sequence[Mapping[str, float]]) -> list[Column]:
    """The columns in which at least one pair has a value: known ones in their order, then others by name."""
    found = {key for row in numbers for key in row}
    known = [column for column in KNOWN if column.key in found]
    others = sorted(found - {column.key for column in KNOWN})
    return known + [Column(key, label(key)) for key in others]


def label(key: str) -> str:
    """A key as people read it: ``inverse_consistency_mm`` as "Inverse consistency (mm)"."""
    ending = next((ending for ending in UNITS if key.endswith(ending)), "")
    words = key.removesuffix(ending).replace("_", " ")
    return words[:1].upper() + words[1:] + UNITS.get(ending, "")


def worst_first(verdicts: Sequence[str | None], numbers: Sequence[Mapping[str, float]]) -> list[int]:
    """Indices of pairs, failed ones first, then those to check, without a verdict, and ok.

    Among equals those come first that are worse than most by their Dice, or by the similarity gain where they have no
    Dice; those that have neither come last, in the order given. Failed pairs without any number, of which there is no
    registration, come before all others.
    """
    among = {k: -1.0 for k, row in enumerate(numbers) if verdicts[k] == "failed" and not row}
    for key in (SIMILARITY_GAIN, "dice"):
        among |= standings(numbers, key)
    return sorted(range(len(verdicts)), key=lambda k: (ORDER.index(verdicts[k]), among.get(k, math.inf), k))


def standings(numbers: Sequence[Mapping[str, float]], key: str) -> dict[int, float]:
    """Which part of the pairs with a value has a smaller one, by the pair's index."""
    values = sorted((row[key], k) for k, row in enumerate(numbers) if key in row)
    return {k: rank / len(values) for rank, (_, k) in enumerate(values)}


def number(value: object) -> float | None:
    """A number of JSON or of csv; None for what is none, or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(found) else found
