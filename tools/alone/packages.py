"""Which installed modules a person would not have who installed what a bundle's metadata name, and nothing else."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement

__all__ = ["modules_beside"]

OURS = "registration-bundles"  # is shut out by itself, and a bundle's own package has to be found


def modules_beside(packages: Iterable[str]) -> list[str]:
    """Top-level modules of installed packages that are neither among ``packages`` nor needed by one of these.

    Args:
        packages: names of distributions, such as "pytorch-ignite"; extras in brackets count.
    """
    needed = {OURS} | {name for name, _ in with_dependencies(packages)}
    owners = modules_of_packages()
    return sorted(module for module, names in owners.items() if not needed.intersection(names))


@cache
def modules_of_packages() -> dict[str, frozenset[str]]:
    """The packages that bring each top-level module; a namespace has several."""
    return {module: frozenset(map(canonical, names)) for module, names in packages_distributions().items()}


def with_dependencies(packages: Iterable[str]) -> set[tuple[str, str]]:
    """``(name, extra)`` of the packages and of all that they need here, "" where no extra is asked for."""
    found: set[tuple[str, str]] = set()
    open_ends = [end for package in packages for end in ends_of(Requirement(package))]
    while open_ends:
        name, extra = open_ends.pop()
        if (name, extra) not in found:
            found.add((name, extra))
            open_ends += [end for needed in needs(name, extra) for end in ends_of(needed)]
    return found


def needs(name: str, extra: str) -> list[Requirement]:
    """What an installed package asks for on this machine; nothing of one that is not installed."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    asked = [Requirement(line) for line in lines]
    return [one for one in asked if one.marker is None or one.marker.evaluate({"extra": extra})]


def ends_of(requirement: Requirement) -> list[tuple[str, str]]:
    """A requirement's package, alone and with each of its extras."""
    return [(canonical(requirement.name), extra) for extra in ("", *requirement.extras)]


def canonical(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()
