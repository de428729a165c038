"""A bundle's package as it lies in one folder, for a while: no other place's, and no trace afterwards."""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["importable"]


@contextlib.contextmanager
def importable(root: Path) -> Iterator[None]:
    """The bundle's package taken from ``root`` inside the block; afterwards as if it had never been imported."""
    package = f"{root.name}_bundle"

    def take_out() -> dict:
        return {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == package}

    kept = take_out()
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        take_out()
        sys.modules.update(kept)
