"""What a row of the table of bad inputs is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .study import Study

__all__ = ["EVERY", "Bad", "Good"]

EVERY = ("register", "prepare", "evaluate", "train", "infer")
"""Commands that read the image of a study."""


@dataclass(frozen=True)
class Bad:
    """An input that every command has to refuse in one sentence.

    Attributes:
        row: of the catalogue.
        what: it is.
        make: spoils a study and returns the path whose name the sentence has.
        found: pattern of what the sentence says was found.
        by: the commands that meet it.
        status: exit status of ``regbundles``.
        alone: whether the path is an image that whoever only reads it has to refuse, as bad_alone.py asks.
            A sound file that suits no registration, such as one of zeros or of another cohort, is none of these.
    """

    row: int
    what: str
    make: Callable[[Study], Path]
    found: str
    by: tuple[str, ...] = EVERY
    status: int = 2
    alone: bool = True


@dataclass(frozen=True)
class Good:
    """An input that looks odd and has to work, with the numbers of its plain twin.

    Attributes:
        row: of the catalogue.
        what: it is.
        make: makes a study odd.
        plain: makes another one plain with the same numbers; by default it is the sound one as it is.
        by: the commands that meet it.
        atol: by which results may differ: 0 where the voxels are the same.
        unlike: names of results that may differ altogether, such as warped voxels where the image has other values.
        said: pattern of the warning that has to be there.
        alone: whether it is odd for whoever only reads the image, as bad_alone.py has the libraries do.
    """

    row: int
    what: str
    make: Callable[[Study], object]
    plain: Callable[[Study], object] = lambda study: None
    by: tuple[str, ...] = EVERY
    atol: float = 0.0
    unlike: tuple[str, ...] = ()
    said: str = ""
    alone: bool = True
