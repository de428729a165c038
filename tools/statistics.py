"""What a table of scores says of each method, and of the first method against each other one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["COMPARED", "HIGHER_IS_BETTER", "Comparison", "Summary", "compare", "summarize"]

HIGHER_IS_BETTER = ("dice", "dice_linear")
COMPARED = ("dice", "dice_linear", "hd95_mm", "tre_mm", "sdlogj")
CONFIDENCE = 0.95


class Summary(NamedTuple):
    """One metric of one method over pairs.

    Attributes:
        n: pairs that have a value.
        mean: over them.
        std: sample standard deviation, n - 1; NaN for one pair.
        robust30: 30 % of the pairs are as bad or worse: the 30th percentile where more is better, else the 70th, linear
            between values; Learn2Reg's robustness.
    """

    n: int
    mean: float
    std: float
    robust30: float


class Comparison(NamedTuple):
    """The first method minus another over the pairs that both have a value for.

    Attributes:
        n: those pairs.
        difference: mean of the paired differences.
        low, high: its 95 % interval by Student's t; NaN for fewer than two pairs or infinite values.
        p: two-sided Wilcoxon signed-rank test of the differences; 1 where all are zero, NaN for fewer than two pairs.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float


def summarize(values: Sequence[float], higher_is_better: bool) -> Summary:
    """Summary of one metric's values, NaN left out.

    Args:
        values: one a pair.
        higher_is_better: which end ``robust30`` looks at.
    """
    array = known(values)
    if array.size == 0:
        return Summary(0, np.nan, np.nan, np.nan)
    with np.errstate(invalid="ignore"):  # infinite values leave no spread
        spread = float(array.std(ddof=1)) if array.size > 1 else np.nan
        robust = float(np.quantile(array, 0.3 if higher_is_better else 0.7))
        return Summary(array.size, float(array.mean()), spread, robust)


def compare(first: Sequence[float], other: Sequence[float]) -> Comparison:
    """Paired difference of two methods; entry k of both belongs to pair k."""
    with np.errstate(invalid="ignore"):  # two infinite values have no difference
        difference = known(np.subtract(first, other))
        mean = float(difference.mean()) if difference.size else np.nan
    if difference.size < 2 or not np.isfinite(difference).all():
        return Comparison(difference.size, mean, np.nan, np.nan, np.nan)
    low, high = t_interval(difference)
    p = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    return Comparison(difference.size, mean, low, high, p)


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean of at least two values by Student's t."""
    half = stats.t.ppf((1 + CONFIDENCE) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean() - half), float(values.mean() + half)


def known(values: Sequence[float]) -> np.ndarray:
    """Values that are not NaN."""
    array = np.asarray(values, dtype=np.float64)
    return array[~np.isnan(array)]


def share_images(pairs: Sequence[Mapping[str, str]]) -> bool:
    """Whether an image is in two pairs, so that these are not independent and intervals too narrow."""
    images = [pair[role] for pair in pairs for role in ("fixed", "moving")]
    return len(set(images)) < len(images)
