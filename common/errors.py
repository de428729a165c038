"""The three ways in which a person's request can fail; each carries one sentence and an exit status.

The sentence says what was found, what was expected and what to do. `regbundles` prints it alone and exits with
``exit_status``; under ``monai.bundle run`` it is the last line.
"""

import errno
import sys
from types import TracebackType

__all__ = [
    "RegEnvError",
    "RegError",
    "RegInputError",
    "RegNumericsError",
    "first_line",
    "in_one_line",
    "mendable",
    "print_sentence_last",
    "sentence_of",
]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no quota, no larger file


class RegError(Exception):
    """Base of the errors that a person can mend; never raised itself."""

    exit_status = 1

    def __str__(self) -> str:
        """The sentence on one line: what names and files bring along that cannot be printed is written out."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class RegInputError(RegError, ValueError):
    """A file or an argument is not what it has to be."""

    exit_status = 2


class RegEnvError(RegError, OSError):
    """The machine cannot do it: a full disk, a read-only folder, a missing package."""

    exit_status = 3


class RegNumericsError(RegError, ArithmeticError):
    """The computation left the finite numbers."""

    exit_status = 4


def mendable(error: BaseException | None) -> RegError | None:
    """The first RegError in a chain of causes; else one that says so where the disk was full; ``None`` otherwise."""
    full = None
    while error is not None and not isinstance(error, RegError):
        if isinstance(error, OSError) and error.errno in FULL:
            full = error
        error = error.__cause__ or error.__context__
    if error is None and full is not None:
        name = full.filename or "a file"
        return RegEnvError(f"{name} could not be written ({full.strerror}); free space or choose another folder.")
    return error


def sentence_of(error: BaseException | None) -> str | None:
    """The sentence of the first RegError in a chain of causes, ``None`` if it holds none."""
    found = mendable(error)
    return None if found is None else str(found)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def in_one_line(error: BaseException) -> str:
    """All that an error says, its line breaks as spaces, or its kind if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def print_sentence_last() -> None:
    """Let an uncaught error end with its RegError's sentence.

    MONAI's configuration parser wraps whatever a component raises; a config names this first under ``run``, so that
    the sentence stands below the traceback instead of in its middle. Replaces ``sys.excepthook`` for the process.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        sentence = sentence_of(error)
        if sentence:
            print(sentence, file=sys.stderr)

    sys.excepthook = hook
