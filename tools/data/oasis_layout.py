"""What neurite-OASIS holds: which scans of OASIS-1, their files, label names, and two published ways to split it."""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from common.errors import RegInputError
from common.preflight import refuse

from .aseg import ASEG_NAMES
from .leakage import excluded_from_oasis

__all__ = ["SEG35_NAMES", "SPLITS", "SUBJECTS", "Scan", "Split", "find_label_names", "find_scans", "split_of"]

LAYOUT = "OASIS_OAS1_<number>_MR1/ with aligned_norm.nii.gz and aligned_seg35.nii.gz or aligned_seg4.nii.gz"
FOLDER = re.compile(r"OASIS_OAS1_(\d{4})_MR1")
ABSENT = {
    *(8, 24, 36, 48, 89, 93, 100, 118, 128, 149, 154, 171, 172, 175, 187, 194, 196, 215, 219, 225, 242, 245),
    *(248, 251, 252, 253, 257, 276, 297, 306, 320, 324, 334, 347, 360, 364, 369, 391, 393, 412, 414, 427, 436),
}  # of OASIS-1's first 457
SUBJECTS = tuple(f"OASIS_OAS1_{number:04}_MR1" for number in range(1, 458) if number not in ABSENT)
"""The release's 414 folders, in their order."""

SEG35 = (2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 26, 28, 30, 31)  # FreeSurfer's, left side and middle
SEG35 += (41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60, 62, 63)  # right side
SEG35_NAMES = {place: ASEG_NAMES[value] for place, value in enumerate(SEG35, 1)}
"""The release's own numbers, 1 to 35, of what FreeSurfer segments."""
LABEL_LINE = re.compile(r"\s*(\d+)\s+(\S+)\s+\d+\s+\d+\s+\d+\s+\d+\s*")  # of a FreeSurfer color table

SPLITS = ("learn2reg", "patch")
LEARN2REG_VALIDATION = 20  # the last scans
PATCH_TRAINING, PATCH_VALIDATION = 364, 6


class Scan(NamedTuple):
    """One subject's files."""

    name: str
    image: Path
    label: Path


class Split(NamedTuple):
    """Names of scans: subjects or pairs (fixed, moving) to train on, pairs to validate on."""

    training: list[str] | list[tuple[str, str]]
    validation: list[tuple[str, str]]

    @property
    def names(self) -> list[str]:
        """Every scan once, in the release's order."""
        members = [(item,) if isinstance(item, str) else item for item in (*self.training, *self.validation)]
        return sorted({name for member in members for name in member})


def split_of(kind: str) -> Split:
    """One of ``SPLITS``.

    "learn2reg": the first 394 scans train, the last 20 make 19 consecutive pairs (Learn2Reg 2021, task 3). "patch": 182
    pairs of 364 scans train, 6 make 5 consecutive pairs, and whom MALC or Mindboggle shows too is left out
    (arXiv 2404.04244, whose text has 362 images for the 182 pairs; which scans they are is not published: here the
    first 364 of those that are left, paired in their order, and the last 6).
    """
    if kind == "learn2reg":
        cut = len(SUBJECTS) - LEARN2REG_VALIDATION
        return Split(list(SUBJECTS[:cut]), list(pairwise(SUBJECTS[cut:])))
    excluded = excluded_from_oasis()
    kept = [name for name in SUBJECTS if name.removeprefix("OASIS_").removesuffix("_MR1") not in excluded]
    training, validation = kept[:PATCH_TRAINING], kept[-PATCH_VALIDATION:]
    return Split(list(zip(training[::2], training[1::2], strict=True)), list(pairwise(validation)))


def find_scans(raw: Path, labels: str, wanted: Sequence[str], partial: bool = False) -> list[Scan]:
    """The scans below ``raw`` that a split wants, in its order; others are passed over.

    Args:
        raw: the unpacked release, at any depth.
        labels: "seg35" or "seg4".
        wanted: names of folders.
        partial: accept fewer folders than wanted.

    Raises:
        RegInputError: naming every folder that is missing or there twice, and every file that one lacks.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(raw.rglob("OASIS_OAS1_*")):
        if path.is_dir() and FOLDER.fullmatch(path.name):
            found.setdefault(path.name, []).append(path)
    scans, sentences = [], []
    for name in (name for name in wanted if name in found):
        folder = found[name][0]
        scan = Scan(name, folder / "aligned_norm.nii.gz", folder / f"aligned_{labels}.nii.gz")
        sentences += [f"{path} is missing, expected {LAYOUT}; unpack it." for path in scan[1:] if not path.is_file()]
        if len(found[name]) > 1:
            places = ", ".join(map(str, found[name]))
            sentences.append(f"{name} is there {len(found[name])} times ({places}), expected once; remove the others.")
        scans.append(scan)
    if not scans:
        raise RegInputError(f"no subject of the split found under {raw}, expected {LAYOUT}; unpack the archive there.")
    absent = [name for name in wanted if name not in found]
    if absent and not partial:
        sentences.append(
            f"{raw} lacks {len(absent)} of the split's {len(wanted)} subjects, the first {absent[0]}; unpack the whole "
            f"release, or say --partial for fewer."
        )
    refuse(sentences)
    return scans


def find_label_names(raw: Path, labels: str) -> dict[int, str]:
    """Number -> name, without 0, out of the release's table ``<labels>_labels.txt``; of seg35 it may be missing.

    Raises:
        RegInputError: if seg4's is missing, or a table names nothing.
    """
    path = next(iter(sorted(raw.rglob(f"{labels}_labels.txt"))), None)
    if path is None and labels == "seg35":
        return SEG35_NAMES
    lines = [] if path is None else path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = {int(match[1]): match[2] for match in map(LABEL_LINE.fullmatch, lines) if match}
    names.pop(0, None)
    if not names:
        raise RegInputError(
            f"{path or raw} names no labels, expected {labels}_labels.txt with lines of number, name and color; unpack "
            f"it beside the subjects."
        )
    return names
