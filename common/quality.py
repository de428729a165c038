"""Whether a registration worked: ``ok``, ``check`` or ``failed``, with the reasons in a person's words.

Each of :data:`RULES` holds one signal against two limits. The limits stand in ``quality_limits.json``, which names the
measurement and the rule that some were chosen by, and why the others are plausible; what they catch and what they miss
is in ``docs/quality.md`` of the repository. A verdict says where to look; it is no proof, and no medical statement.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from .quality_signals import signals_of
from .quality_view import coarse_view
from .registration import Fields, Images

__all__ = [
    "RULES",
    "SIGNALS",
    "STATES",
    "Limit",
    "Rule",
    "Verdict",
    "read_limits",
    "self_check",
    "signals_of",
    "verdict",
]

STATES = ("ok", "check", "failed")
LIMITS_FILE = Path(__file__).with_name("quality_limits.json")

Signals = Mapping[str, float | None]


class Rule(NamedTuple):
    """What is said of a signal beyond its limit.

    Attributes:
        signal: its name.
        worse: 1 if more is worse, -1 if less is.
        sentence: a format of all signals by name and of ``limit``, from where on one should look.
    """

    signal: str
    worse: int
    sentence: str


class Limit(NamedTuple):
    """Beyond ``check`` a person should look, beyond ``failed`` the result is not to be used."""

    check: float
    failed: float


class Verdict(NamedTuple):
    """What is said of a registration.

    Attributes:
        state: one of :data:`STATES`.
        reasons: a sentence each, the worst first; none where all is well.
    """

    state: str
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.state}: {'; '.join(self.reasons)}" if self.reasons else self.state


RULES = (
    Rule("finite_percent", -1, "{finite_percent:.3g} % of the displacements are numbers, expected all"),
    Rule(
        "similarity",
        -1,
        "the warped image explains {similarity:.0%} of the fixed image's local contrast, expected at least {limit:.0%}",
    ),
    Rule(
        "similarity_gain",
        -1,
        "the warped image explains {similarity_gain:+.1%} of the local contrast that was unexplained before, expected "
        "at least {limit:+.1%}",
    ),
    Rule(
        "overlap",
        -1,
        "where the images have contrast they overlap with a Dice of {overlap:.3f}, expected at least {limit:.3f}",
    ),
    Rule(
        "inside_percent",
        -1,
        "{inside_percent:.0f} % of the fixed foreground lies inside the moving image, expected at least {limit:.0f} %",
    ),
    Rule(
        "displacement_percent",
        1,
        "1 % of the anatomy moves by {displacement_mm:.1f} mm or more after the initial alignment, "
        "{displacement_percent:.0f} % of its diameter, expected at most {limit:.0f} %",
    ),
    Rule(
        "volume_factor",
        1,
        "1 % of the anatomy swells or shrinks {volume_factor:.1f} times or more, expected at most {limit:.1f} times",
    ),
    Rule("folded_percent", 1, "the map folds in {folded_percent:.2g} % of the voxels, expected at most {limit:.2g} %"),
    Rule(
        "inverse_percent",
        1,
        "{inverse_percent:.2g} % of the moving voxels miss themselves by more than 0.05 mm after inverse and map, "
        "expected at most {limit:.2g} %",
    ),
    Rule(
        "starts_percent",
        1,
        "from another start 5 % of the anatomy ends {starts_mm:.1f} mm or more elsewhere, {starts_percent:.1f} % of "
        "its diameter, expected at most {limit:.1f} %",
    ),
    Rule(
        "initial_factor",
        1,
        "the initial alignment changes volumes {initial_factor:.1f} times, expected at most {limit:.1f} times",
    ),
    Rule("dice_change", -1, "the labels' Dice changes by {dice_change:+.3f}, expected no loss"),
)
SIGNALS = (*(rule.signal for rule in RULES), "displacement_mm", "starts_mm")
"""What rules look at, and what their sentences say besides."""


def self_check(
    fields: Fields,
    images: Images,
    answer: Tensor | Mapping[str, Tensor],
    network_affine: np.ndarray,
    scores: Mapping[str, object],
) -> dict[str, object]:
    """The verdict of a registration with its reasons and signals, as ``metrics.json`` has them.

    Args:
        fields: the map on the user's grids.
        images: the pair on the fixed grid.
        answer: what the network said; its "starts" count where there are any.
        network_affine: (N + 1, N + 1) of the network's grid.
        scores: of the registration, see :func:`common.registration.scores_of`.
    """
    signals = signals_of(coarse_view(fields, images, answer, network_affine), scores)
    found = verdict(signals)
    return {"verdict": found.state, "reasons": list(found.reasons), "signals": signals}


def verdict(signals: Signals, limits: Mapping[str, Limit] | None = None) -> Verdict:
    """Hold signals against limits.

    Args:
        signals: by name, see :func:`signals_of`; one that is missing or None gives no reason.
        limits: by signal; by default those of ``quality_limits.json``. A signal without limits gives no reason either.
    """
    limits = read_limits() if limits is None else limits
    found = [reason for rule in RULES if (reason := reason_of(rule, signals, limits.get(rule.signal))) is not None]
    found.sort(reverse=True)
    worst = max((state for state, *_ in found), default=0)
    return Verdict(STATES[worst], tuple(sentence for *_, sentence in found))


def reason_of(rule: Rule, signals: Signals, limit: Limit | None) -> tuple[int, float, str] | None:
    """The state that a signal asks for, how far it is beyond its limit, and the sentence; None within its limit."""
    value = signals.get(rule.signal)
    if value is None or limit is None or rule.worse * (value - limit.check) <= 0:
        return None
    state = "failed" if rule.worse * (value - limit.failed) > 0 else "check"
    beyond = abs(value - limit.check) / (abs(limit.failed - limit.check) or 1.0)
    return STATES.index(state), beyond, spaced(rule.sentence.format(limit=limit.check, **signals))


def spaced(sentence: str) -> str:
    """A sentence with a space between a number and its percent sign, which Python's format leaves out."""
    return re.sub(r"(?<=\d)%", " %", sentence)


@cache
def read_limits(path: Path = LIMITS_FILE) -> dict[str, Limit]:
    """The limits of a file by signal."""
    content = json.loads(path.read_text())
    return {name: Limit(limit["check"], limit["failed"]) for name, limit in content["limits"].items()}
