"""The scans of a folder that follows no standard: images with their labels, masks and landmarks beside them."""

import re
from pathlib import Path

from common.dicom import holds_dicom
from common.errors import RegInputError
from common.points import READERS
from common.preflight import refuse

from .scans import Scan, named

__all__ = ["find_plain"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mha", ".mhd", ".nrrd", ".nhdr")
ENDINGS = {
    "image": ("img", "image"),
    "label": ("label", "labels", "seg", "dseg"),
    "mask": ("mask", "brainmask"),
    "landmarks": ("landmarks", "points", "keypoints"),
}
ENDING = re.compile(rf"(.+)_({'|'.join(word for words in ENDINGS.values() for word in words)})", re.IGNORECASE)


def find_plain(folder: Path) -> list[Scan]:
    """The scans of a folder, by name: what belongs together has one name before the endings of ``ENDINGS``.

    ``p1.nii.gz`` or ``p1_img.nii.gz`` or a folder ``p1`` of DICOM is an image, ``p1_seg.nii.gz`` its labels,
    ``p1_mask.nii.gz`` its mask, ``p1_landmarks.csv`` its landmarks. Folders in it are not entered but for DICOM.

    Raises:
        RegInputError: if there is no image, or naming everything that is there twice or belongs to none.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (part := part_of(path)) is not None:
            kind, name = part
            found.setdefault(name, {}).setdefault(kind, []).append(path)
    if not any("image" in parts for parts in found.values()):
        raise RegInputError(
            f"{folder} holds no image, expected scans beside each other, a BIDS data set or a csv with the column "
            "image; name another."
        )
    findings = [
        f"{', '.join(map(str, paths))} would all be the {kind} of {name}, expected one; remove the others."
        for name, parts in found.items()
        for kind, paths in parts.items()
        if len(paths) > 1
    ]
    findings += [
        f"{paths[0]} belongs to no image, expected one called {name}; rename or remove it."
        for name, parts in found.items()
        if "image" not in parts
        for paths in parts.values()
    ]
    refuse(findings)
    return named(Scan(**{kind: paths[0] for kind, paths in parts.items()}) for parts in found.values())


def part_of(path: Path) -> tuple[str, str] | None:
    """What a file is and whose; None for what is no part of a data set, such as a text."""
    if path.name.startswith("."):
        return None
    if path.is_dir():
        return ("image", path.name) if holds_dicom(path) else None
    suffixes = (*IMAGE_SUFFIXES, *READERS)
    suffix = next((s for s in suffixes if path.name.lower().endswith(s)), None)
    if suffix is None:
        return None
    stem = path.name[: -len(suffix)]
    match = ENDING.fullmatch(stem)
    if match is None:
        return ("image", stem) if suffix in IMAGE_SUFFIXES else None
    kind = next(kind for kind, words in ENDINGS.items() if match[2].lower() in words)
    return (kind, match[1]) if (kind == "landmarks") == (suffix in READERS) else None
