"""Tables of scans of one's own: a row a scan for ``prepare folder``, a row a pair for ``prepare pairs``."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.datalist import SECTIONS
from common.errors import RegInputError
from common.preflight import refuse

from .scans import Scan, named

__all__ = ["Pair", "read_pair_table", "read_scan_table"]

PARTS = ("label", "mask", "landmarks", "keypoints", "subject")
SCAN_COLUMNS = ("image", *PARTS, "section")
ROLES = ("fixed", "moving")
PAIR_COLUMNS = (*ROLES, *(f"{role}_{part}" for role in ROLES for part in PARTS), "subject", "section")
Rows = list[tuple[int, dict[str, str]]]


@dataclass(frozen=True)
class Pair:
    """Two scans to register, and the section that the user wants them in, if any."""

    fixed: Scan
    moving: Scan
    section: str = ""


def read_scan_table(path: Path) -> list[Scan]:
    """The scans of a csv (or, by its ending, tsv) file; its paths are relative to it.

    Args:
        path: with the columns image and, as wanted, label, mask, landmarks (or keypoints: the same), subject, section.

    Raises:
        RegInputError: with every finding: unknown columns, cells missing or left over, sections that do not exist,
            images that are there twice.
    """
    rows = read_rows(path, ("image",), SCAN_COLUMNS)
    findings = [text for line, cells in rows for text in row_findings(line, cells, ("",))]
    scans = named(scan_of(cells, path.parent) for _, cells in rows)
    findings += [
        f"line {rows[k][0]} has the image {scan.image} again, expected each once; remove the line."
        for k, scan in enumerate(scans)
        if scan.name in {other.name for other in scans[:k]}
    ]
    refuse([f"{path}: {text}" for text in findings])
    return scans


def read_pair_table(path: Path) -> list[Pair]:
    """The pairs of a csv (or, by its ending, tsv) file; its paths are relative to it.

    Args:
        path: with the columns fixed, moving and, as wanted, section, subject (of both) and, for each of the two roles,
            such as fixed_label: label, mask, landmarks (or keypoints: the same), subject.

    Raises:
        RegInputError: with every finding: as :func:`read_scan_table`, and scans that come with other files in another
            row, pairs that are there twice, an image paired with itself.
    """
    rows = read_rows(path, ROLES, PAIR_COLUMNS)
    findings = [text for line, cells in rows for text in row_findings(line, cells, [f"{role}_" for role in ROLES])]
    scans = iter(named(half_of(cells, role, path.parent) for _, cells in rows for role in ROLES))
    pairs = [Pair(next(scans), next(scans), cells.get("section", "")) for _, cells in rows]
    findings += clashes(pairs, [line for line, _ in rows])
    refuse([f"{path}: {text}" for text in findings])
    return pairs


def read_rows(path: Path, needed: Sequence[str], known: Sequence[str]) -> Rows:
    """The filled cells of each row with the line that it stands in; refuses what is no such table."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
            columns = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = columns
            rows = [(table.line_num, dict(row)) for row in table]
    except (OSError, ValueError, csv.Error) as error:
        raise RegInputError(f"{path} is no table ({error}), expected the columns {', '.join(known)}.") from error
    findings = [
        f"it has no column '{name}', expected {', '.join(needed)}; add it." for name in set(needed) - set(columns)
    ]
    findings += [
        f"it has the column '{name}' {columns.count(name)} times, expected some of {', '.join(known)}, each once; "
        "rename or remove it."
        for name in dict.fromkeys(columns)
        if name not in known or columns.count(name) > 1
    ]
    if not rows:
        findings.append("it has no row, expected one at least; add your files.")
    refuse([f"{path}: {text}" for text in findings])
    findings = [
        f"line {line} has more cells than columns, expected as many; quote its commas."
        for line, row in rows
        if None in row
    ]
    filled = [(line, {k: v.strip() for k, v in row.items() if k and v and v.strip()}) for line, row in rows]
    findings += [
        f"line {line} has no {name}, expected a file; fill it."
        for line, row in filled
        for name in needed
        if name not in row
    ]
    refuse([f"{path}: {text}" for text in findings])
    return filled


def row_findings(line: int, cells: Mapping[str, str], prefixes: Sequence[str]) -> list[str]:
    """What is wrong inside one row."""
    findings = [
        f"line {line} has {prefix}landmarks and {prefix}keypoints, which are the same here; keep one."
        for prefix in prefixes
        if {f"{prefix}landmarks", f"{prefix}keypoints"} <= set(cells)
    ]
    if cells.get("section", SECTIONS[0]) not in SECTIONS:
        findings.append(
            f"line {line} has the section '{cells['section']}', expected {', '.join(SECTIONS)}; correct it."
        )
    return findings


def scan_of(cells: Mapping[str, str], folder: Path) -> Scan:
    """The scan of a row's cells."""

    def path(*columns: str) -> Path | None:
        return next((folder / Path(cells[name]).expanduser() for name in columns if name in cells), None)

    return Scan(
        image=path("image") or folder,
        subject=cells.get("subject", ""),
        label=path("label"),
        mask=path("mask"),
        landmarks=path("landmarks", "keypoints"),
        section=cells.get("section", ""),
    )


def half_of(cells: Mapping[str, str], role: str, folder: Path) -> Scan:
    """The fixed or the moving scan of a row; the row's subject is that of both where they have none of their own."""
    own = {part: cells[f"{role}_{part}"] for part in PARTS if f"{role}_{part}" in cells}
    common = {"subject": cells["subject"]} if "subject" in cells else {}
    return scan_of({**common, **own, "image": cells[role]}, folder)


def clashes(pairs: Sequence[Pair], lines: Sequence[int]) -> list[str]:
    """What rows say of each other: scans with other files, pairs that are there twice or are no pairs."""
    findings, scans, seen = [], {}, {}
    for line, pair in zip(lines, pairs, strict=True):
        for scan in (pair.fixed, pair.moving):
            first_line, first = scans.setdefault(scan.name, (line, scan))
            if scan != first:
                findings.append(
                    f"lines {first_line} and {line} give {scan.image} with other files or another subject, expected "
                    "the same in both; make them equal."
                )
        names = (pair.fixed.name, pair.moving.name)
        if names[0] == names[1]:
            findings.append(
                f"line {line} has {pair.fixed.image} as fixed and moving, expected two images; name another."
            )
        if names in seen:
            findings.append(f"lines {seen[names]} and {line} hold the same pair, expected each once; remove one.")
        seen.setdefault(names, line)
    return findings
