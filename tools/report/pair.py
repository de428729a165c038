"""What is known of one registration, and of all below a folder."""

from dataclasses import dataclass, field

__all__ = ["VERDICTS", "Gathered", "LeftOut", "Pair", "printable"]

VERDICTS = ("failed", "check", "ok")


@dataclass
class Pair:
    """What the page says of one registration.

    Attributes:
        name: its folder below the one that was asked for, or what its table calls it.
        folder: relative path with slashes; None for a row of a table whose registration left no folder.
        fixed: name of the image file.
        moving: likewise.
        method: bundle, or the method's name in an evaluation; empty where nobody said it.
        verdict: "ok", "check", "failed", or None: nobody judged.
        reasons: sentences, the worst first.
        numbers: by key, finite or infinite, NaN left out; signals of the self-check among them.
        files: "report", "thumbnail" and "picture", those that there are: names in the folder.
    """

    name: str
    folder: str | None
    fixed: str
    moving: str
    method: str = ""
    verdict: str | None = None
    reasons: tuple[str, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not on the page, and why."""

    path: str
    why: str


@dataclass
class Gathered:
    """All pairs below a folder, and what could not be read."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def printable(text: str) -> str:
    """Text that any encoding can write: the bytes of a file's name that are no UTF-8 become question marks."""
    return text.encode(errors="replace").decode()
