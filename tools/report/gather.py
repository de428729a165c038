"""Find the pairs below a folder: every `metrics.json`, the rows of every `pairs.csv` and `failures.csv`."""

import os
from collections.abc import Iterator
from pathlib import Path

from common.errors import RegInputError

from .evaluation import ROWS, add_rows
from .failures import FAILURES, add_failures
from .pair import Gathered, LeftOut, printable
from .registration import METRICS, add_registration

__all__ = ["gather"]


def gather(root: Path) -> Gathered:
    """Read what `register`, a bundle's `inference.json` or `evaluate.json`, and `evaluate` left below a folder.

    Hidden folders are passed over, those that are just being filled among them; links are followed, and no folder is
    read twice. What vanishes meanwhile is left out without a word.

    Args:
        root: the folder.

    Raises:
        RegInputError: if there is no such folder, or no pair in it.
    """
    if not root.is_dir():
        raise RegInputError(f"{root} is no folder, expected one with the results of registrations; correct it.")
    found, tables = Gathered(), {ROWS: [], FAILURES: []}
    for folder, files in folders_below(root, found.left_out):
        place = folder.relative_to(root).as_posix()
        for name in sorted(file for file in files if is_metrics(file)):
            add_registration(folder / name, place, files, found)
        for name in tables.keys() & set(files):
            tables[name].append(place)
    for name, add in ((ROWS, add_rows), (FAILURES, add_failures)):
        for place in tables[name]:
            add(root / place / name, place, found)
    if not found.pairs:
        unread = f" ({found.left_out[0].path}: {found.left_out[0].why})" if found.left_out else ""
        raise RegInputError(
            f"{root} holds no registration{unread}, expected folders with a {METRICS} as `regbundles register` writes "
            f"them, or a {ROWS} of `regbundles evaluate`; name another folder."
        )
    return found


def is_metrics(name: str) -> bool:
    """Whether a file is called as the scores of a pair are, BIDS' entities in front or not."""
    return not name.startswith(".") and (name == METRICS or name.endswith(f"_{METRICS}"))


def folders_below(root: Path, left_out: list[LeftOut]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder and the names of its files, in the order of names."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            where = printable(Path(error.filename).relative_to(root).as_posix())
            left_out.append(LeftOut(where, f"could not be opened: {error.strerror}"))

    seen = set()
    for path, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        try:
            status = os.stat(path)
        except OSError:  # it went while we were elsewhere
            folders.clear()
            continue
        identity = (status.st_dev, status.st_ino)
        folders[:] = [] if identity in seen else sorted(name for name in folders if not name.startswith("."))
        if identity not in seen:
            seen.add(identity)
            yield Path(path), files
