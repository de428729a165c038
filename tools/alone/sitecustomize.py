"""Python runs this at its start where this folder is on PYTHONPATH: the repository cannot be imported afterwards."""

import sys
from importlib.machinery import ModuleSpec, PathFinder

OURS = ("common", "tools")
HIDDEN: set[str] = set()
"""Top-level modules of other packages that are to look as if they were not installed."""


class Blocker(PathFinder):
    """Finds what is on the path, but for the repository's top-level packages and those in ``HIDDEN``.

    It answers that there is no such module and raises nothing: torch and MONAI ask for packages that they can do
    without.
    """

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As PathFinder; ``<bundle>_bundle.common`` has another full name than ``common``."""
        top = fullname.partition(".")[0]
        return None if top in OURS or top in HIDDEN else super().find_spec(fullname, path, target)


# an editable install offers `common` and every `<name>_bundle` of the checkout through a finder of its own
sys.meta_path[:] = [
    Blocker if finder is PathFinder else finder
    for finder in sys.meta_path
    if "__editable__" not in getattr(finder, "__module__", "")
]
