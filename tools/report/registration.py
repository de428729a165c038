"""A pair as its folder tells of it: `metrics.json`, the report and the pictures beside it."""

import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import first_line

from .columns import number
from .pair import VERDICTS, Gathered, LeftOut, Pair, printable

__all__ = ["METRICS", "add_registration"]

METRICS = "metrics.json"
LARGEST = 2**24  # bytes; no registration says more of itself
FILES = {"report": ("report.html",), "thumbnail": ("thumbnail.jpg",), "picture": ("registration.png", "figure.png")}
NO_SCORES = ("fixed", "moving", "verdict", "reasons", "signals", "seconds_by_step", "settings", "fingerprint", "files")


def add_registration(path: Path, place: str, files: Sequence[str], found: Gathered) -> None:
    """Add the pair of a `metrics.json`, or why there is none.

    Args:
        path: of the file.
        place: its folder, relative, with slashes.
        files: names of all files in that folder.
        found: what is added to.
    """
    where = printable(path.name if place == "." else f"{place}/{path.name}")
    try:
        content = read_json(path)
    except FileNotFoundError:  # replaced while we look
        return
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        found.left_out.append(LeftOut(where, f"could not be read: {printable(why)}"))
        return
    if is_registration(content):
        name = printable(path.resolve().parent.name if place == "." else place)
        found.pairs.append(pair_of(content, name, place, files))
    else:
        found.left_out.append(LeftOut(where, "says nothing of a registration"))


def read_json(path: Path) -> object:
    """The content of a file that could be one of ours; ValueError if it could not."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise ValueError(f"no ordinary file of at most {LARGEST} bytes")
    return json.loads(path.read_bytes())


def is_registration(content: object) -> bool:
    """Whether it names the two images."""
    return isinstance(content, dict) and all(isinstance(content.get(key), str) for key in ("fixed", "moving"))


def pair_of(content: Mapping, name: str, place: str, files: Sequence[str]) -> Pair:
    """What `metrics.json` says, as far as it is what we expect; the rest is as if it were missing."""
    settings = content.get("settings")
    method = settings.get("bundle") if isinstance(settings, Mapping) else None
    verdict, reasons = content.get("verdict"), content.get("reasons")
    return Pair(
        name,
        place,
        printable(content["fixed"]),
        printable(content["moving"]),
        method=printable(method) if isinstance(method, str) else "",
        verdict=verdict if verdict in VERDICTS else None,
        reasons=tuple(printable(r) for r in reasons if isinstance(r, str)) if isinstance(reasons, list) else (),
        numbers=numbers_of(content),
        files=files_of(files),
    )


def numbers_of(content: Mapping) -> dict[str, float]:
    """Scores, signals that are not among them, and the seconds of all steps."""
    signals, steps = (content.get(key) for key in ("signals", "seconds_by_step"))
    values = dict(signals) if isinstance(signals, Mapping) else {}
    values |= {key: value for key, value in content.items() if key not in NO_SCORES}
    if isinstance(steps, Mapping):
        known = [value for value in map(number, steps.values()) if value is not None]
        values |= {"seconds_total": sum(known)} if known else {}
    found = {printable(key): number(value) for key, value in values.items() if not isinstance(value, str)}
    return {key: value for key, value in found.items() if value is not None}


def files_of(files: Sequence[str]) -> dict[str, str]:
    """What can be looked at, by its role; BIDS puts entities in front of the names."""
    found = {}
    for role, names in FILES.items():
        endings = tuple(f"_{name}" for name in names)
        fitting = sorted(file for file in files if file in names or file.endswith(endings))
        if fitting:
            found[role] = fitting[0]
    return found
