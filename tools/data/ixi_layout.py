"""What TransMorph's release of IXI holds: the atlas, the split by folders, and which of its 46 labels are scored."""

import re
from pathlib import Path

from common.errors import RegInputError
from common.preflight import refuse

from .aseg import ASEG_NAMES
from .transmorph import PickledBrain, find_pickles

__all__ = ["ATLAS", "COUNTS", "NAMES", "NUMBERS", "SCORED", "find_brains"]

LAYOUT = "atlas.pkl and, in Train, Val and Test, subject_<number>.pkl"
ATLAS = "atlas"
PARTS = {"Train": "training", "Val": "validation", "Test": "testing"}
COUNTS = {"training": 403, "validation": 58, "testing": 115}
SUBJECT = re.compile(r"subject_\d+")

NUMBERS = (0, *ASEG_NAMES)
"""The files' numbers; evaluation in the papers, and the prepared files, use their places in this list, 0 to 45."""
NAMES = {NUMBERS.index(value): name for value, name in ASEG_NAMES.items()}
UNSCORED = (5, 26, 30, 44, 58, 62, 72, 77, 80, 85, 251, 252, 253, 254, 255)  # small, or not in everybody
SCORED = tuple(NUMBERS.index(value) for value in ASEG_NAMES if value not in UNSCORED)
"""The 30 structures of the papers' tables, by the prepared numbers."""


def find_brains(raw: Path, partial: bool = False) -> dict[str, list[PickledBrain]]:
    """The brains below ``raw`` by section, in the order of their numbers; the atlas alone is in the section "atlas".

    Args:
        raw: the unpacked release, at any depth.
        partial: accept fewer scans than the release has.

    Raises:
        RegInputError: with every finding: no atlas or two, a file in no part of the split, a subject in two parts,
            fewer or more scans than published.
    """
    brains: dict[str, list[PickledBrain]] = {ATLAS: [], **{part: [] for part in COUNTS}}
    sentences, seen = [], {}
    for path in find_pickles(raw):
        part = PARTS.get(path.parent.name)
        if path.stem == ATLAS:
            brains[ATLAS].append(PickledBrain(ATLAS, path))
        elif part is None or not SUBJECT.fullmatch(path.stem):
            sentences.append(f"{path} is in no part of the release, expected {LAYOUT}; move it away.")
        elif path.stem in seen:
            sentences.append(f"{path} is there as {seen[path.stem]} too, expected once; remove one.")
        else:
            brains[part].append(PickledBrain(path.stem, path))
            seen[path.stem] = path
    if not seen:
        raise RegInputError(f"no subject found under {raw}, expected {LAYOUT}; unpack the release there.")
    refuse(sentences + count_findings(raw, {part: len(found) for part, found in brains.items()}, partial))
    return brains


def count_findings(raw: Path, counts: dict[str, int], partial: bool) -> list[str]:
    """What is wrong with the numbers of scans."""
    sentences = []
    if counts[ATLAS] != 1:
        sentences.append(f"{raw} has {counts[ATLAS]} files atlas.pkl, expected one; unpack the whole release.")
    for part, expected in COUNTS.items():
        if counts[part] != expected and not (partial and counts[part] < expected):
            sentences.append(
                f"{raw} has {counts[part]} scans for {part}, expected {expected}; unpack the whole release, or say "
                f"--partial for fewer."
            )
    return sentences
