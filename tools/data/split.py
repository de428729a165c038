"""Which subjects are trained on, validated and tested: drawn by a seed, a subject never on two sides."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence

from common.errors import RegInputError

__all__ = ["divide", "groups_of", "torn_subjects"]


def divide(groups: Iterable[str], validation: int, testing: int, seed: int = 0) -> dict[str, str]:
    """The section of each group of subjects.

    The groups are put in the order of SHA-256 of ``<seed>:<group>``; the first ones are for testing, the next ones for
    validation, the others for training. So the choice depends on names and seed alone, and who joins later hardly
    moves the others.

    Args:
        groups: names, of subjects or of what :func:`groups_of` put together.
        validation: how many of them are for validation, 0 or more.
        testing: how many are for testing.
        seed: of the choice.

    Raises:
        RegInputError: if a number is below 0 or there are too few groups.
    """
    names = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    if min(validation, testing) < 0 or validation + testing > len(names):
        raise RegInputError(
            f"validation is {validation} and testing {testing}, expected at most the {len(names)} groups of subjects "
            "that are there in all; ask for fewer, or name sections in the table."
        )
    sections = ["testing"] * testing + ["validation"] * validation
    return {name: sections[k] if k < len(sections) else "training" for k, name in enumerate(names)}


def groups_of(links: Iterable[Sequence[str]]) -> dict[str, str]:
    """Subject -> its group: who shares a pair, directly or through others, is in one.

    Args:
        links: subjects that belong together, such as the two of a pair.

    Returns:
        The group is called by its first subject in alphabetical order.
    """
    members: dict[str, set[str]] = {}
    for link in links:
        joined = set(link).union(*(members.get(subject, set()) for subject in link))
        members |= dict.fromkeys(joined, joined)
    return {subject: min(group) for subject, group in members.items()}


def torn_subjects(sections: Iterable[tuple[str, Hashable]]) -> Mapping[str, list]:
    """Subjects that are in more than one section, and in which.

    Args:
        sections: (subject, section) of every scan.
    """
    found: dict[str, dict] = {}
    for subject, section in sections:
        found.setdefault(subject, {})[section] = None
    return {subject: list(places) for subject, places in found.items() if len(places) > 1}
