"""Scans of one's own: an image with what comes along, whose subject it shows, and a name that no other scan has."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.naming import bids_name, stem

__all__ = ["Scan", "named", "subject_in"]


@dataclass(frozen=True)
class Scan:
    """One image and what the user has for it, as their files lie.

    Attributes:
        image: file or DICOM folder, of any format that ``common.volumes`` reads.
        subject: whom it shows; a split keeps a subject's scans together.
        label: integer map on the image's grid.
        mask: where the image counts; of a head, its brain. On the image's grid.
        landmarks: points in mm, or in voxels where the user says so.
        section: of the datalist, where the user names it.
        name: of its prepared files; :func:`named` gives it.
    """

    image: Path
    subject: str = ""
    label: Path | None = None
    mask: Path | None = None
    landmarks: Path | None = None
    section: str = ""
    name: str = ""

    @property
    def files(self) -> dict[str, Path]:
        """The files that are there, by what they are."""
        parts = {"image": self.image, "label": self.label, "mask": self.mask, "landmarks": self.landmarks}
        return {part: path for part, path in parts.items() if path is not None}


def named(scans: Iterable[Scan]) -> list[Scan]:
    """The scans, each with its name and, where the user gave none, its subject.

    The name is the image's without its ending; where two would share one, in capitals or not, the names of the folders
    above come in front.
    """
    scans = list(scans)
    names = unique_stems([Path(os.path.abspath(scan.image)) for scan in scans])
    return [
        replace(scan, name=name, subject=scan.subject or subject_in(name))
        for scan, name in zip(scans, names, strict=True)
    ]


def unique_stems(images: Sequence[Path]) -> list[str]:
    """A name for each image; the same one for the same path."""
    above = dict.fromkeys(images, 0)
    while True:
        names = {path: stem(path, count) for path, count in above.items()}
        shared = Counter(name.casefold() for name in names.values())
        clashing = [path for path, name in names.items() if shared[name.casefold()] > 1]
        if not clashing:
            return [names[path] for path in images]
        for path in clashing:
            above[path] += 1


def subject_in(name: str) -> str:
    """The subject that a BIDS name states (``sub-01`` of ``sub-01_ses-2_T1w``), else the name: a scan a subject."""
    found = bids_name(Path(name))
    return f"sub-{found.entities['sub']}" if found and "sub" in found.entities else name
