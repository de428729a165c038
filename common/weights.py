"""Whether weights are those that were published, and whether they are a network's: looked at before anything is filled.

A bundle's ``large_files.yml`` may state the hash of its weights; MONAI compares it where it downloads them, and never
again.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from .errors import RegInputError, first_line

__all__ = ["LARGE_FILES", "check_published", "fill", "large_files"]

LARGE_FILES = "large_files.yml"  # in a bundle's root
HASHES = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}  # that MONAI knows, by their hexadecimal digits
SHOWN = 3  # names in a message


def large_files(folder: Path) -> dict[str, dict]:
    """The entries of a bundle's large_files.yml by their path; empty where there is no such file.

    Raises:
        RegInputError: if it is none.
    """
    path = folder / LARGE_FILES
    if not path.is_file():
        return {}
    try:
        listed = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("large_files") or []
        return {entry["path"]: dict(entry) for entry in listed}
    except (OSError, ValueError, yaml.YAMLError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise RegInputError(
            f"{path} is no list of large files ({type(error).__name__}: {first_line(error)}), expected MONAI's form; "
            "correct it."
        ) from error


def check_published(path: Path) -> None:
    """Hold a file against the hash that the bundle around it states, if it states one.

    Args:
        path: in the bundle's root or one folder below, as ``models/model.pt`` is.

    Raises:
        RegInputError: if it has another hash, or the entry cannot be used.
    """
    path = Path(path).absolute()
    for folder in path.parents[:2]:
        entry = large_files(folder).get(path.relative_to(folder).as_posix())
        if entry is not None and entry.get("hash_val"):
            check_hash(path, entry, folder / LARGE_FILES)


def check_hash(path: Path, entry: Mapping[str, Any], stated_in: Path) -> None:
    """Raise RegInputError unless a file has the hash of its entry."""
    stated = str(entry["hash_val"]).lower()
    kind = str(entry.get("hash_type") or HASHES.get(len(stated))).lower()
    if kind not in HASHES.values():
        raise RegInputError(
            f"{stated_in} has the hash_type '{kind}', expected one of {', '.join(HASHES.values())}; correct it."
        )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != stated:
        raise RegInputError(
            f"{path} has the {kind} {found}, {stated_in.name} states {stated}; fetch it again, or, if you trained it, "
            "put it elsewhere and name it by --ckpt_path."
        )


def fill(network: nn.Module, state: Any) -> None:
    """Fill a network with a state dict that has its keys and shapes, no others, and finite values.

    Raises:
        RegInputError: if it is none; the clause says what differs. The network is as it was then.
    """
    finding = misfit(network.state_dict(), state)
    if finding:
        raise RegInputError(finding)
    network.load_state_dict(state)


def misfit(own: Mapping[str, Tensor], state: Any) -> str | None:
    """What keeps a state dict from being that of a network, whose own is given; None if nothing does."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return f"a {type(state).__name__}, expected tensors by name and nothing else"
    missing, extra = [key for key in own if key not in state], [key for key in state if key not in own]
    if missing or extra:
        return f"it lacks {listed(missing)} and has besides {listed(extra)}"
    other = [f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in own]
    other = [text for text, key in zip(other, own, strict=True) if state[key].shape != own[key].shape]
    if other:
        return f"other shapes: {listed(other)}"
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    return f"NaN or infinite values in {listed(broken)}" if broken else None


def listed(names: list[str]) -> str:
    """The first of some names, and how many there are."""
    shown = ", ".join(str(name) for name in names[:SHOWN]) or "nothing"
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
