"""What was tried, what went right, and how the libraries alone fare with the same: one line a case, one row a subject.

Tests tell a :class:`Ledger` what they saw before they assert it. ``make reliability`` sums the lines up in
``results/reliability.csv``; without it nothing is written. A test that fails without having told a wrong case has left
something out, and the subjects of its file get no row.
"""

import csv
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

__all__ = ["COLUMNS", "Ledger", "rows_of", "uncounted", "update"]

COLUMNS = (
    "subject",
    "tried",
    "right",
    "wrong",
    "libraries",
    "libraries_tried",
    "libraries_right",
    "libraries_wrong",
    "device",
    "commit",
    "command",
)


class Ledger:
    """Lines of what happened, a file a process.

    Args:
        folder: where the lines go; ``None``: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    @property
    def kept(self) -> bool:
        """Whether anybody reads it: only then the libraries have to be tried as well."""
        return self.folder is not None

    def tell(self, subject: str, case: str, right: bool) -> None:
        """One case of ours: call it before the assertion, so that a failure counts."""
        self.write({"subject": subject, "case": case, "right": bool(right)})

    def tell_alone(self, subject: str, case: str, right: bool, libraries: str) -> None:
        """The same case by the libraries as they are, such as ``"nibabel, MONAI"``."""
        self.write({"subject": subject, "case": case, "right": bool(right), "libraries": libraries})

    def write(self, line: Mapping[str, object]) -> None:
        if self.folder is not None:
            line = {**line, "test": os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]}
            with (self.folder / f"{os.getpid()}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")


def rows_of(lines: Iterable[Mapping]) -> list[dict[str, object]]:
    """A row for each subject, in the order of their names; a case that was told twice counts once, by its last line."""
    ours: dict[str, dict[str, bool]] = {}
    alone: dict[str, dict[str, bool]] = {}
    names: dict[str, dict[str, None]] = {}  # in the order in which they came
    for line in lines:
        subject, case = line["subject"], line["case"]
        (alone if "libraries" in line else ours).setdefault(subject, {})[case] = line["right"]
        names.setdefault(subject, {}).update(dict.fromkeys(filter(None, line.get("libraries", "").split(", "))))
    return [
        counts(cases.values())
        | {"subject": subject, "libraries": with_versions(names[subject])}
        | {f"libraries_{name}": count for name, count in counts(alone.get(subject, {}).values()).items()}
        for subject, cases in sorted(ours.items())
    ]


def uncounted(failed: Collection[str], lines: Iterable[Mapping]) -> set[str]:
    """Subjects of the files in which one of these tests failed without having told a wrong case."""
    lines = list(lines)
    told = {line["test"] for line in lines if not line["right"] and "libraries" not in line}
    files = {test.partition("::")[0] for test in failed if test not in told}
    return {line["subject"] for line in lines if line["test"].partition("::")[0] in files}


def with_versions(names: Iterable[str]) -> str:
    """``["torch", "pickle"]`` as ``"torch 2.13.0, pickle"``: what is no package of its own has no version."""
    return ", ".join(" ".join([name, *version_of(name)]) for name in names)


def version_of(name: str) -> list[str]:
    """The version of an installed package, if there is one of this name."""
    try:
        return [metadata.version(name)]
    except metadata.PackageNotFoundError:
        return []


def counts(rights: Iterable[bool]) -> dict[str, int]:
    """How many were tried, right and wrong."""
    rights = list(rights)
    return {"tried": len(rights), "right": sum(rights), "wrong": len(rights) - sum(rights)}


def update(path: Path, rows: Sequence[Mapping[str, object]], without: Collection[str] = ()) -> None:
    """Write the table; subjects that are in neither ``rows`` nor ``without`` keep what an earlier run found."""
    known = {}
    if path.exists():
        with path.open(newline="") as file:
            known = {row["subject"]: row for row in csv.DictReader(file)}
    known = {subject: row for subject, row in known.items() if subject not in without}
    known |= {str(row["subject"]): row for row in rows}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(known[subject] for subject in sorted(known))
