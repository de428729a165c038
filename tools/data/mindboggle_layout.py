"""What the Mindboggle-101 archive holds: cohorts, file names, the DKT labels, and which way a labelled brain lies."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import RegInputError
from common.preflight import refuse

from .fetch.archive import COMPLETE, extract
from .label_orientation import Structures

__all__ = ["DKT", "PROTOCOLS", "Subject", "find_subjects", "label_names", "relabel", "unpack_cohorts"]

IMAGE_NAME = "t1weighted_brain.MNI152.nii.gz"
LABEL_NAME = "labels.DKT31.manual.MNI152.nii.gz"
LAYOUT = f"<COHORT>_volumes/<SUBJECT>/{IMAGE_NAME} with {LABEL_NAME}, at any depth"
PACKED = ".tar.gz"
COHORT_FOLDER = re.compile(r"(.+)_volumes")
SIDES = {1000: "left", 2000: "right"}

NAMES = {
    **{2: "caudal anterior cingulate", 3: "caudal middle frontal", 5: "cuneus", 6: "entorhinal", 7: "fusiform"},
    **{8: "inferior parietal", 9: "inferior temporal", 10: "isthmus cingulate", 11: "lateral occipital"},
    **{12: "lateral orbitofrontal", 13: "lingual", 14: "medial orbitofrontal", 15: "middle temporal"},
    **{16: "parahippocampal", 17: "paracentral", 18: "pars opercularis", 19: "pars orbitalis"},
    **{20: "pars triangularis", 21: "pericalcarine", 22: "postcentral", 23: "posterior cingulate", 24: "precentral"},
    **{25: "precuneus", 26: "rostral anterior cingulate", 27: "rostral middle frontal", 28: "superior frontal"},
    **{29: "superior parietal", 30: "superior temporal", 31: "supramarginal", 34: "transverse temporal", 35: "insula"},
}
"""The 31 areas of a side, by the last two digits."""
MERGED = {10: 2, 23: 2, 26: 2, 27: 3, 19: 18, 20: 18}
MERGED_NAMES = {2: "cingulate", 3: "middle frontal", 18: "inferior frontal"}
PROTOCOLS = ("dkt31", "dkt25")
"""62 structures, or 50: each side's four parts of the cingulate, two of the middle and three of the inferior frontal
gyrus are one (Klein and Tourville 2012)."""


def both_sides(*areas: int) -> tuple[int, ...]:
    """The numbers of areas on the left and on the right."""
    return tuple(side + area for side in SIDES for area in areas)


DKT = Structures(
    left=tuple(1000 + area for area in NAMES),
    right=tuple(2000 + area for area in NAMES),
    brain_stem=both_sides(6, 7, 9, 16),  # the cortex has none: its lowest areas instead
    cerebellum=both_sides(5, 11, 13, 21),  # its hindmost ones
)
"""What tells the directions apart in a map of the cortex."""


@dataclass(frozen=True)
class Subject:
    """One scan of the archive and its manual labels."""

    name: str
    cohort: str
    image: Path
    label: Path


def unpack_cohorts(raw: Path) -> None:
    """Unpack each ``<COHORT>_volumes.tar.gz`` of the archive beside itself, unless that was done before.

    Raises:
        RegInputError: if one is damaged or holds what may not be extracted.
    """
    for archive in sorted(raw.rglob(f"*_volumes{PACKED}")):
        folder = archive.with_name(archive.name.removesuffix(PACKED))
        if not folder.is_dir() or (folder / COMPLETE).is_file():  # a person may have unpacked it by hand
            extract(archive, folder)


def find_subjects(raw: Path) -> list[Subject]:
    """The subjects below ``raw``, by cohort and number.

    Raises:
        RegInputError: if there is none (the message names the expected layout), or naming every subject that is there
            twice or lacks a file.
    """
    folders: dict[str, list[Path]] = {}
    for path in sorted(path.parent for name in (IMAGE_NAME, LABEL_NAME) for path in raw.rglob(name)):
        if path not in folders.setdefault(path.name, []):
            folders[path.name].append(path)
    if not folders:
        raise RegInputError(f"no subject found under {raw}, expected {LAYOUT}; unpack the archive there.")
    sentences = [
        f"subject {name} is there {len(paths)} times ({', '.join(map(str, paths))}), expected once; remove the others."
        for name, paths in folders.items()
        if len(paths) > 1
    ]
    sentences += [
        f"{folder} has no {name}, expected both files of a subject; complete the archive."
        for folder in (paths[0] for paths in folders.values())
        for name in (IMAGE_NAME, LABEL_NAME)
        if not (folder / name).is_file()
    ]
    refuse(sentences)
    subjects = [subject_at(paths[0]) for paths in folders.values()]
    return sorted(
        subjects, key=lambda s: (s.cohort, [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", s.name)])
    )


def subject_at(folder: Path) -> Subject:
    """The subject whose files lie in a folder."""
    cohorts = [match[1] for parent in folder.parents if (match := COHORT_FOLDER.fullmatch(parent.name))]
    return Subject(folder.name, cohorts[0] if cohorts else "", folder / IMAGE_NAME, folder / LABEL_NAME)


def label_names(protocol: str) -> dict[int, str]:
    """Label number -> name, left side first."""
    merged = protocol == "dkt25"
    areas = {area: MERGED_NAMES.get(area, name) if merged else name for area, name in NAMES.items()}
    kept = {area: name for area, name in areas.items() if not (merged and area in MERGED)}
    return {side + area: f"{word} {name}" for side, word in SIDES.items() for area, name in kept.items()}


def relabel(labels: np.ndarray, protocol: str) -> np.ndarray:
    """The labels of a protocol as int16, from those of all 62 areas; what is no such area becomes 0."""
    table = np.zeros(max(int(labels.max()), 3000) + 1, np.int16)
    for value in both_sides(*NAMES):
        area = value % 1000
        table[value] = value - area + (MERGED.get(area, area) if protocol == "dkt25" else area)
    return table[labels]
