"""Python runs this at its start where this folder is on PYTHONPATH: the repository cannot be imported afterwards."""

import importlib.abc
import sys

BLOCKED = ("common", "tools")


class Blocker(importlib.abc.MetaPathFinder):
    """Refuses the repository's top-level packages, wherever they might be found."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise for ``common`` and ``tools`` themselves; ``<bundle>_bundle.common`` has another full name."""
        if fullname.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{fullname} is blocked, as if it were not installed.", name=fullname)


# an editable install offers `common` and every `<name>_bundle` of the checkout through a finder of its own
sys.meta_path[:] = [Blocker(), *(f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", ""))]
