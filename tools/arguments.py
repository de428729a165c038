"""What commands read from their arguments."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.errors import RegInputError, mendable

__all__ = ["Force", "Out", "Timeout", "Tries", "Workers", "command_line", "decimals", "numbers", "ranges", "run"]

Out = Annotated[str, typer.Option(help="folder to write into")]
Workers = Annotated[int | None, typer.Option(help="processes; default one a processor")]
Force = Annotated[bool, typer.Option(help="prepare again what is finished")]
Timeout = Annotated[float, typer.Option(min=0.1, help="seconds without a byte after which a server is given up")]
Tries = Annotated[int, typer.Option(min=1, help="in a row without progress, with growing pauses between them")]


def numbers(text: str, separator: str, flag: str) -> list[int]:
    """Whole numbers between separators."""
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        raise RegInputError(f"{flag} got '{text}', expected whole numbers between '{separator}'.") from None


def ranges(text: str, flag: str) -> list[int]:
    """Whole numbers and ranges, both ends included, between commas."""
    ends = [numbers(part, "-", flag) for part in text.split(",")]
    if any(len(pair) > 2 for pair in ends):
        raise RegInputError(f"{flag} got '{text}', expected numbers and ranges such as 1,2,5-9.")
    return [value for pair in ends for value in range(pair[0], pair[-1] + 1)]


def decimals(text: str, flag: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RegInputError(f"{flag} got '{text}', expected numbers between commas.") from None


def command_line() -> str:
    """The command as it was typed, folders and absolute paths by name alone: a csv holds no private path."""
    words, private = ["regbundles"], False
    for word in sys.argv[1:]:
        name, equals, value = word.rpartition("=")  # of --method NAME=SOURCE and the like
        known = private or Path(value).is_absolute()
        words.append(name + equals + Path(value).name if known else word)
        private = word in ("--data", "--dataset-dir", "--out", "--results", "--work", "--weights")
    return shlex.join(words)


def run(app: typer.Typer) -> None:
    """Run a command; a RegError ends it with its sentence alone, and its exit status."""
    try:
        app()
    except Exception as error:
        found = mendable(error)
        if found is None:
            raise
        print(found, file=sys.stderr)
        sys.exit(found.exit_status)
