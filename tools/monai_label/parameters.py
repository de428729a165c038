"""What a client may ask for. Every value is checked; ids are names of studies, never paths."""

import json
import re
from pathlib import PurePath
from typing import Any, NamedTuple

from common.errors import RegInputError

__all__ = [
    "AFFINES",
    "EXTENSIONS",
    "MOST_SIMILAR",
    "Asked",
    "Training",
    "checked_id",
    "extension_of",
    "read_object",
    "read_params",
]

ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")  # no separator, and no dot at the start
MOST_SIMILAR = "most similar"
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
AFFINES = ("auto", "rigid", "none")  # the first alignment: by content, six parameters of it, or by the headers alone
RESULTS = (".nii.gz", ".nii", ".nrrd")
DEVICE = re.compile(r"cpu|cuda(:\d{1,2})?")
MAX_ATLASES = 20
MAX_EPOCHS = 1000


class Asked(NamedTuple):
    """One inference.

    Attributes:
        moving: id of the study whose label is carried over; None: the most similar ones.
        atlases: how many of these; None: as many as the server was told.
        affine: the first alignment, one of ``AFFINES``.
        save_label: put the result into the studies folder.
        label_tag: under which tag.
        store: put the transform, the warped image and the report beside it.
        extension: of the result's file.
        device: such as "cpu"; None: the bundle's own choice.
    """

    moving: str | None = None
    atlases: int | None = None
    affine: str = AFFINES[0]
    save_label: bool = False
    label_tag: str = "original"
    store: bool = False
    extension: str = ".nii.gz"
    device: str | None = None


class Training(NamedTuple):
    """One fine-tuning: epochs, the share of the studies that only validates, and the device as in :class:`Asked`."""

    max_epochs: int = 5
    val_split: float = 0.25
    device: str | None = None

    @classmethod
    def read(cls, params: dict[str, Any]) -> "Training":
        """Check what a client sent; what is not known here is not looked at."""
        values = Reader(params)
        split = values.number("val_split", cls().val_split)
        if not 0 < split <= 0.5:
            raise RegInputError(f"val_split is {split}, expected a share above 0, at most 0.5; correct it.")
        epochs = values.whole("max_epochs", cls().max_epochs, MAX_EPOCHS)
        return cls(epochs, split, values.device())


def read_params(text: str) -> Asked:
    """The form field ``params`` of an inference: a JSON object; what is not known here is not looked at.

    Raises:
        RegInputError: for the first value that is not what it has to be.
    """
    values = Reader(read_object(text))
    moving = values.choice("moving")
    return Asked(
        moving=None if moving in (None, MOST_SIMILAR) else checked_id(moving, "moving"),
        atlases=values.whole("atlases", None, MAX_ATLASES),
        affine=values.one_of("affine", AFFINES),
        save_label=values.flag("save_label"),
        label_tag=values.tag(),
        store=values.flag("store"),
        extension=values.one_of("result_extension", RESULTS),
        device=values.device(),
    )


def read_object(text: str) -> dict[str, Any]:
    """A JSON object, {} for an empty text."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RegInputError(f"params is no JSON ({error}), expected an object; correct it.") from error
    if not isinstance(found, dict):
        raise RegInputError(f"params is a JSON {type(found).__name__}, expected an object; correct it.")
    return found


def checked_id(value: object, name: str) -> str:
    """``value``, if it can be the id of a study or a label's tag."""
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise RegInputError(
            f"{name} is {shown(value)}, expected an id of letters, digits, '.', '_' and '-', no dot first; it is no "
            "path."
        )
    return value


def extension_of(filename: str | None, name: str) -> str:
    """The extension of an uploaded file."""
    found = next((e for e in EXTENSIONS if PurePath(filename or "").name.lower().endswith(e)), None)
    if found is None:
        raise RegInputError(f"the {name} is {shown(filename)}, expected a file {', '.join(EXTENSIONS)}; convert it.")
    return found


def shown(value: object) -> str:
    """A value as a message quotes it: short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Reader:
    """Typed values of a JSON object; lists stand for their first entry, as options do in MONAI Label."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def choice(self, key: str) -> object:
        """The value, or the first of a list; None where it is left open."""
        value = self.params.get(key)
        if isinstance(value, list):
            value = value[0] if value else None
        return None if value == "" else value

    def number(self, key: str, default: float) -> float:
        """A number, also where a form sent it as text."""
        value = self.choice(key)
        if value is None:
            return default
        try:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        except (TypeError, ValueError):
            raise RegInputError(f"{key} is {shown(value)}, expected a number; correct it.") from None

    def whole(self, key: str, default: int | None, most: int) -> int | None:
        """A whole number from 1 to ``most``."""
        if self.choice(key) is None:
            return default
        value = self.number(key, 0)
        if not 1 <= value <= most or value != int(value):
            raise RegInputError(
                f"{key} is {shown(self.choice(key))}, expected a whole number from 1 to {most}; correct it."
            )
        return int(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self.choice(key)
        known = {None: False, "true": True, "false": False}
        if isinstance(value, bool):
            return value
        if not isinstance(value, str | None) or (value and value.lower()) not in known:
            raise RegInputError(f"{key} is {shown(value)}, expected true or false; correct it.")
        return known[value and value.lower()]

    def tag(self) -> str:
        """``label_tag``."""
        value = self.choice("label_tag")
        return "original" if value is None else checked_id(value, "label_tag")

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        """One of the known texts, by default the first."""
        value = self.choice(key)
        if value is None:
            return known[0]
        if value not in known:
            raise RegInputError(f"{key} is {shown(value)}, expected one of {', '.join(known)}; choose one.")
        return value

    def device(self) -> str | None:
        """``device``; None where it is left open."""
        value = self.choice("device")
        if value is not None and not (isinstance(value, str) and DEVICE.fullmatch(value)):
            raise RegInputError(f"device is {shown(value)}, expected cpu, cuda or cuda:<number>; choose one.")
        return value
