"""Whether prepared data sets are what their datalists say: every file read to its end, every finding told."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from tqdm import tqdm

from common.datalist import (
    SECTIONS,
    SUBJECT_KEYS,
    check_counts,
    check_keypoints,
    header_findings,
    load_json,
    missing_files,
    overlap_findings,
    structure_findings,
    subject_of,
)
from common.errors import RegInputError
from common.preflight import check_image, check_label, findings

from .leakage import Overlap, shared

__all__ = ["Checked", "check_datasets", "leaks", "summary"]

SPACING_ATOL = 1e-3  # mm: headers hold float32
EVALUATED = ("validation", "testing")
SHOWN = 8  # labels that a sentence names


class Checked(NamedTuple):
    """What is in a prepared data set, and what is wrong with it."""

    name: str
    sections: dict[str, tuple[int, int]]
    """Section -> (entries, scans in them)."""
    scans: dict[str, list[str]]
    """Section -> names of its scans; the atlas, which may be in several, is left out."""
    labels: tuple[int, int, list[int]]
    """Labels in the header's table, how many of them some scan shows, and values that scans show beside them."""
    findings: list[str]


class Seen(NamedTuple):
    """What one scan's files were found to be."""

    labels: frozenset[int]
    findings: list[str]


def check_datasets(folders: Iterable[str], quiet: bool = False) -> list[Checked]:
    """Check prepared data sets, the ones in ``folders``; a bar on standard error unless ``quiet``.

    Raises:
        RegInputError: if a folder has no ``datalist.json`` or it is no JSON object.
    """
    loaded = [load_json(folder) for folder in folders]
    return [check_content(root, content, quiet) for root, content in loaded]


def check_content(root: Path, content: Mapping[str, Any], quiet: bool) -> Checked:
    """Check one data set; its files are opened only where the datalist keeps its contract."""
    sections = {section: content[section] for section in SECTIONS if section in content}
    header = {key: value for key, value in content.items() if key not in SECTIONS}
    breaches = header_findings(header) + structure_findings(dict(content))
    if not sections:
        breaches.append(f"it has no section, expected at least one of {', '.join(SECTIONS)}")
    if breaches:
        return Checked(str(header.get("name")), {}, {}, (0, 0, []), [f"{root}: {text}." for text in breaches])
    breaches = overlap_findings(dict(content))
    breaches += [text for section, items in sections.items() for text in missing_files(root, items, section)]
    subjects = {section: subjects_in(items) for section, items in sections.items()}
    seen = look_at(root, [subject for part in subjects.values() for subject in part], header, quiet)
    found = frozenset().union(*(scan.labels for scan in seen)) - {0}
    named = {int(value) for value in header.get("labels", {})}
    if found and named - found:
        breaches.append(f"no scan shows the labels {shortened(sorted(named - found))} of the header's table")
    sentences = [f"{root}: {text}." for text in breaches] + [text for scan in seen for text in scan.findings]
    sentences += findings([(check_counts, *pair) for pair in keypoint_pairs(root, sections)])
    return Checked(
        name=header["name"],
        sections={section: (len(items), len(subjects[section])) for section, items in sections.items()},
        scans={
            section: [scan_name(subject["image"]) for subject in part if subject["image"] != header.get("atlas")]
            for section, part in subjects.items()
        },
        labels=(len(named), len(named & found), sorted(found - named) if named else []),
        findings=list(dict.fromkeys(sentences)),
    )


def subjects_in(items: Iterable[dict]) -> list[dict[str, str]]:
    """Every scan of a section once, with its files' paths, relative."""
    halves = [half for item in items for half in (both(item) if "fixed" in item else [item])]
    return list({tuple(half.get(key) for key in SUBJECT_KEYS): half for half in halves}.values())


def both(pair: dict) -> list[dict]:
    """The fixed and the moving scan of a pair."""
    return [subject_of(pair, role) for role in ("fixed", "moving")]


def scan_name(path: str) -> str:
    """A scan's name, by its file's."""
    return Path(path).name.split(".")[0]


def keypoint_pairs(root: Path, sections: Mapping[str, list[dict]]) -> list[tuple[str, str]]:
    """Tables of landmarks that have to correspond line by line, where both are there."""
    keys = ("fixed_keypoints", "moving_keypoints")
    pairs = [[str(root / item[key]) for key in keys if key in item] for items in sections.values() for item in items]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and all(Path(path).is_file() for path in pair)]


def look_at(root: Path, subjects: list[dict], header: Mapping[str, Any], quiet: bool) -> list[Seen]:
    """Read each scan's files that are there; the time goes into zlib and numpy, which let other threads run."""
    unique = list({tuple(subject.items()): subject for subject in subjects}.values())
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        work = pool.map(lambda subject: look_at_one(root, subject, header), unique)
        return list(tqdm(work, total=len(unique), desc=header["name"], unit="scan", disable=quiet))


def look_at_one(root: Path, subject: Mapping[str, str], header: Mapping[str, Any]) -> Seen:
    """Read one scan's files to their ends and hold them against each other and the header."""
    paths = {key: root / subject[key] for key in SUBJECT_KEYS if key in subject and (root / subject[key]).exists()}
    if "image" not in paths:
        return Seen(frozenset(), [])  # told as a missing file
    try:
        image = check_image(paths["image"])
    except RegInputError as error:
        return Seen(frozenset(), [str(error)])
    sentences = grid_findings(paths["image"], image.affine, header)
    checks = [(check_label, paths["mask"], image)] if "mask" in paths else []
    if "keypoints" in paths:
        checks.append((check_keypoints, str(paths["keypoints"]), image.voxels.shape))
    sentences += findings(checks)
    if "label" not in paths:
        return Seen(frozenset(), sentences)
    try:
        labels = check_label(paths["label"], image)
    except RegInputError as error:
        return Seen(frozenset(), [*sentences, str(error)])
    return Seen(frozenset(np.unique(labels.voxels).tolist()), sentences)


def grid_findings(path: Path, affine: np.ndarray, header: Mapping[str, Any]) -> list[str]:
    """Whether a scan's orientation and spacing are the header's."""
    ndim = len(header["orientation"])
    codes = "".join(code or "?" for code in aff2axcodes(affine))[:ndim]
    spacing = voxel_sizes(affine)[:ndim]
    if codes == header["orientation"] and np.allclose(spacing, header["spacing_mm"], atol=SPACING_ATOL):
        return []
    return [
        f"{path} has the orientation {codes} and voxels of {spacing.round(4).tolist()} mm, expected "
        f"{header['orientation']} and {header['spacing_mm']} as the datalist says; prepare it again."
    ]


def leaks(checked: list[Checked]) -> list[tuple[Overlap, bool]]:
    """Persons in two sections, of two data sets or of one; with whether the one is trained on and the other tested."""
    overlaps = [
        overlap
        for one, other in combinations(checked, 2)
        for overlap in shared(one.scans, other.scans, (one.name, other.name))
    ]
    for one in checked:
        for first, second in combinations(one.scans, 2):
            overlaps += shared({first: one.scans[first]}, {second: one.scans[second]}, (one.name, one.name))
    return [(overlap, tested_on(overlap)) for overlap in overlaps]


def tested_on(overlap: Overlap) -> bool:
    """Whether the sections are a training one and one that is evaluated."""
    parts = [text.rsplit(" ", 1)[1] for text in (overlap.first, overlap.second)]
    return "training" in parts and any(part in EVALUATED for part in parts)


def summary(checked: Checked) -> str:
    """What is in a data set, on one line."""
    parts = [
        f"{section} {scans} scans" if entries == scans else f"{section} {entries} pairs of {scans} scans"
        for section, (entries, scans) in checked.sections.items()
    ]
    named, found, beside = checked.labels
    labels = [f"{found} of {named} labels found"] if named else []
    labels += [f"beside them the values {shortened(beside)}"] if beside else []
    return f"{checked.name}: {'; '.join([*parts, *labels]) or 'not read'}"


def shortened(values: list) -> str:
    """The first few of a list."""
    text = ", ".join(map(str, values[:SHOWN]))
    return f"{text} and {len(values) - SHOWN} more" if len(values) > SHOWN else text
