"""Persons who are in more than one data set under other names: what was trained on must not be tested on.

What is known, and from where:

* MALC's 35 scans show 30 persons of OASIS-1: 15 in the training set, 15 in the testing set, of whom five were scanned
  twice. The OASIS-1 numbers of either set, for testing in the order of the scans: github.com/trypag/
  pytorch-unet-segnet, issue 1, after the workshop's proceedings. That 1023, 1024, 1025, 1038 and 1039 are second scans,
  which are the very places where that list repeats itself: github.com/MIRTK/REPEAT, etc/dataset/oasis.sh.
* Mindboggle's OASIS-TRT-20 are the 20 persons whom OASIS-1 scanned again within 90 days (Klein and Tourville 2012,
  doi:10.3389/fnins.2012.00171; Marcus et al. 2007, doi:10.1162/jocn.2007.19.9.1498).

What is not known: which of the OASIS-TRT-20 is which person, which of MALC's training scans is which person, and the
numbers of seven of the 20 (thirteen second scans, _MR2, are named in public files; all thirteen are in MALC too).
Learn2Reg's and TransMorph's OASIS number their scans anew, and LUMIR, which has scans of OASIS too, names none of them:
:func:`untold` says so.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Overlap", "excluded_from_oasis", "persons_of", "second_scans", "shared", "untold"]

MALC_TRAINING = (
    *("0061", "0080", "0092", "0145", "0150", "0156", "0191", "0202"),
    *("0230", "0236", "0239", "0249", "0285", "0353", "0368"),
)
MALC_TWICE = {"0101": "1003 1023", "0111": "1004 1024", "0117": "1005 1025", "0379": "1018 1038", "0395": "1019 1039"}
MALC_ONCE = dict(
    zip(
        ("0091", "0417", "0040", "0282", "0331", "0456", "0300", "0220", "0113", "0083"),
        map(str, range(1101, 1129, 3)),
        strict=True,
    )
)
MALC_TESTING = {scan: person for person, scans in (MALC_TWICE | MALC_ONCE).items() for scan in scans.split()}
MALC_TRAINING_SCANS = (*map(str, range(1000, 1003)), *map(str, range(1006, 1016)), "1017", "1036")
SCANNED_AGAIN = (
    *("0061", "0080", "0101", "0111", "0117", "0145", "0239"),
    *("0249", "0285", "0353", "0368", "0379", "0395"),
)  # of the reliability set's 20
SHOWN = 8  # persons that a sentence names
OASIS_NAME = re.compile(r"OAS1_(\d{4})", re.IGNORECASE)
CHALLENGE_NAME = re.compile(r"([A-Za-z]+)_(\d{4})_000\d")  # Learn2Reg's: task, patient, phase or modality
TRT_NAME = re.compile(r"OASIS-TRT-20-\d+", re.IGNORECASE)


class Overlap(NamedTuple):
    """Persons who are, or may be, in two sections."""

    first: str
    second: str
    persons: tuple[str, ...]
    """OAS1 ids, or names that both sections use."""

    def text(self) -> str:
        """The finding as a sentence."""
        count = len(self.persons)
        some = ", ".join(self.persons[:SHOWN]) + f" and {count - SHOWN} more" * (count > SHOWN)
        return f"{self.first} and {self.second} show, or may show, {count} same persons: {some}."


def excluded_from_oasis() -> dict[str, str]:
    """OASIS-1 id ("OAS1_0061") -> the data set's part that shows the same person, for all that are known.

    To be left out of training on OASIS where MALC or Mindboggle is what is tested on, as arXiv 2404.04244 does.
    """
    reasons = {number: "MALC training" for number in MALC_TRAINING}
    reasons |= {number: "MALC testing" for number in MALC_TESTING.values()}
    for number in SCANNED_AGAIN:
        reasons[number] += ", Mindboggle OASIS-TRT-20"
    return {f"OAS1_{number}": reasons[number] for number in sorted(reasons)}


def second_scans() -> dict[str, str]:
    """MALC's second scan of a person -> the first: a pair of the two is no pair of two persons."""
    return {second: first for first, second in (scans.split() for scans in MALC_TWICE.values())}


def persons_of(name: str, subject: str) -> frozenset[str]:
    """Who a scan shows, or may show: OAS1 ids, or the scan's own name in its data set where nothing more is known.

    Args:
        name: the data set, as its datalist has it.
        subject: a scan's name in it, such as "1003", "OASIS_OAS1_0001_MR1" or "OASIS-TRT-20-7".
    """
    if match := OASIS_NAME.search(subject):
        return frozenset({f"OAS1_{match[1]}"})
    if TRT_NAME.search(subject):
        return frozenset(f"OAS1_{number}" for number in SCANNED_AGAIN)
    if name == "malc" and subject in (*MALC_TESTING, *MALC_TRAINING_SCANS):
        numbers = [MALC_TESTING[subject]] if subject in MALC_TESTING else MALC_TRAINING
        return frozenset(f"OAS1_{number}" for number in numbers)
    if match := CHALLENGE_NAME.fullmatch(subject):
        return frozenset({f"{match[1]} {match[2]}"})
    return frozenset({f"{name} {subject}"})


def name_within(name: str, subject: str) -> frozenset[str]:
    """The one name of a person in a data set, whichever of the scans it is."""
    if name == "malc":
        return frozenset({second_scans().get(subject, subject)})
    return frozenset({subject}) if TRT_NAME.search(subject) else persons_of(name, subject)


def untold(name: str, subjects: Iterable[str]) -> str | None:
    """Why nobody can say by name whom of OASIS a data set shows, as a sentence; None if that is known.

    Args:
        name: the data set, as its datalist has it.
        subjects: names of its scans.
    """
    if name.lower().startswith("lumir"):
        return f"{name} has scans of OASIS and names none of them: who is in other data sets too cannot be told."
    if name.lower().startswith("oasis") and not all(OASIS_NAME.search(subject) for subject in subjects):
        return f"{name} numbers its scans anew: who is in MALC or Mindboggle too cannot be told."
    return None


def shared(
    first: Mapping[str, Iterable[str]], second: Mapping[str, Iterable[str]], names: tuple[str, str]
) -> list[Overlap]:
    """Which sections of two data sets show, or may show, the same persons.

    Args:
        first: section -> names of its scans.
        second: the same of the other data set, or of the same one.
        names: of the two data sets. If they are equal, scans are compared by their names, a person's second scan by
            that of the first; else by who the person is.

    Returns:
        An entry for each two sections that have a person in common.
    """
    who = name_within if names[0] == names[1] else persons_of
    sides = [
        {section: frozenset().union(*(who(name, scan) for scan in scans)) for section, scans in parts.items()}
        for name, parts in zip(names, (first, second), strict=True)
    ]
    return [
        Overlap(f"{names[0]} {a}", f"{names[1]} {b}", tuple(sorted(people & others)))
        for a, people in sides[0].items()
        for b, others in sides[1].items()
        if people & others
    ]
