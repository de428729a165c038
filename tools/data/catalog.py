"""Which data sets ``regbundles data`` knows, by name."""

from difflib import get_close_matches
from importlib import import_module

from common.errors import RegInputError

from .source import Source

__all__ = ["find_source", "sources"]

MODULES = (
    "abdomen_ct",
    "acdc",
    "challenge",
    "ixi",
    "ixi_raw",
    "lumir",
    "lung_ct",
    "malc",
    "mindboggle",
    "oasis",
    "oasis_pickles",
)
"""Of this package, each with its releases in SOURCES."""


def sources() -> list[Source]:
    """Every release of every data set, by name."""
    found = [source for module in MODULES for source in import_module(f".{module}", __package__).SOURCES]
    return sorted(found, key=lambda source: source.name)


def find_source(name: str) -> Source:
    """The release of this name; an underscore counts as a hyphen, upper case as lower case.

    Raises:
        RegInputError: if there is none; the sentence has the nearest names, or all if none is near.
    """
    known = {source.name: source for source in sources()}
    asked = name.lower().replace("_", "-")
    if asked not in known:
        near = get_close_matches(asked, known) or list(known)
        raise RegInputError(
            f"there is no data set '{name}', expected {' or '.join(near)}; `regbundles data list` names them all."
        )
    return known[asked]
