"""What the MALC archive holds: subject ids, file names, the label table, and the labels that are scored."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import RegInputError
from common.preflight import refuse

__all__ = ["LABELS", "SPLIT", "SPLITS", "Subject", "find_label_names", "find_split", "find_subjects"]

LAYOUT = (
    "training-images/<id>_3.nii.gz with training-labels/<id>_3_glm.nii.gz (and testing-...), or <id>_SS.nii.gz with "
    "<id>_glm.nii.gz, and the label table as .csv"
)
IMAGE_NAME = re.compile(r"(\d{4})_(?:3|SS)\.nii(?:\.gz)?")
LABEL_NAME = re.compile(r"(\d{4})(?:_3)?_glm\.nii(?:\.gz)?")

TRAINING = ("1000", "1001", "1002", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1014", "1036")
VALIDATION = ("1013", "1015", "1017")  # with the twelve above the official training set of 15
TESTING = (
    *("1003", "1004", "1005", "1018", "1019", "1023", "1024", "1025", "1038", "1039"),
    *("1101", "1104", "1107", "1110", "1113", "1116", "1119", "1122", "1125", "1128"),
)  # the official test set of 20
SPLIT = {"training": TRAINING, "validation": VALIDATION, "testing": TESTING}
OFFICIAL = tuple(sorted((*TRAINING, *VALIDATION)))
SPLITS = {
    "collection": SPLIT,  # three of the official training set are held out for validation, which the challenge lacks
    "official": {"training": OFFICIAL, "testing": TESTING},
    "one-fixed": {"testing": (*OFFICIAL, *TESTING)},  # 1000 and the other 34, all for testing
}
"""Subject ids of each section. arXiv 2404.04244 tests on one fixed scan, drawn at random and not named, and 34 moving
ones: here it is 1000, whose person no other scan shows."""

# The protocol's numbers that the challenge scores: 36 inside, 98 of the cortex. Left out are vessels (63, 64), the
# cerebral exterior (42, 43), the rare 15, 65, 66 and 74, and ten cortical numbers that no scan has.
INNER = (4, 11, 23, *range(30, 33), *range(35, 42), *range(44, 53), *range(55, 63), 69, *range(71, 74), 75, 76)
UNUSED_CORTEX = (110, 111, 126, 127, 130, 131, 158, 159, 188, 189)
LABELS = (*INNER, *(value for value in range(100, 208) if value not in UNUSED_CORTEX))


@dataclass(frozen=True)
class Subject:
    """One scan of the archive and its manual labels."""

    name: str
    image: Path
    label: Path


def find_split(name: str) -> dict[str, tuple[str, ...]]:
    """One of ``SPLITS``.

    Raises:
        RegInputError: if there is none of this name.
    """
    if name not in SPLITS:
        raise RegInputError(f"split is '{name}', expected one of {', '.join(SPLITS)}; choose one.")
    return SPLITS[name]


def find_subjects(raw: Path) -> list[Subject]:
    """The subjects below ``raw`` by their file names, sorted by id.

    Raises:
        RegInputError: if there is none (the message names the expected layout), or naming every scan without labels,
            labels without a scan and id that is there twice.
    """
    images, labels = find_files(raw, IMAGE_NAME), find_files(raw, LABEL_NAME)
    if not images:
        raise RegInputError(f"no subject found under {raw}, expected {LAYOUT}; unpack the archive there.")
    sentences = [
        f"subject {name} is there {len(paths)} times ({', '.join(map(str, paths))}), expected once; remove the others."
        for files in (images, labels)
        for name, paths in files.items()
        if len(paths) > 1
    ]
    for have, lack, kind in ((images, labels, "labels"), (labels, images, "scan")):
        sentences += [
            f"{have[name][0]} has no {kind}, expected one with the same id; add or remove it."
            for name in sorted(set(have) - set(lack))
        ]
    refuse(sentences)
    return [Subject(name, images[name][0], labels[name][0]) for name in sorted(images)]


def find_files(raw: Path, pattern: re.Pattern[str]) -> dict[str, list[Path]]:
    """Files below ``raw`` whose whole name fits the pattern, by the id in it."""
    found: dict[str, list[Path]] = {}
    for path in sorted(raw.rglob("*.nii*")):
        if match := pattern.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
    return found


def find_label_names(raw: Path) -> dict[int, str]:
    """Label number -> name out of the one table below ``raw`` that names all of ``LABELS``.

    Raises:
        RegInputError: if no ``.csv`` file does.
    """
    for path in sorted(raw.rglob("*.csv")):
        names = read_label_table(path)
        if set(LABELS) <= set(names):
            return names
    raise RegInputError(
        f"no .csv under {raw} names all {len(LABELS)} labels, expected the challenge's label table (number, name); put "
        f"it there."
    )


def read_label_table(path: Path) -> dict[int, str]:
    """Rows of number, name, anything; other rows, such as the heading, are passed over."""
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) > 1 and row[0].strip().isdecimal()]
    return {int(number): " ".join(name.split()) for number, name, *_ in rows}
