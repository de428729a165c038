"""`regbundles new`: it parses; ``tools/new.py`` works."""

from typing import Annotated

import typer

__all__ = ["new_command"]


def new_command(name: Annotated[str, typer.Argument(help="small letters, digits and underscores, as lku_net")]) -> None:
    """Make a new bundle: configs, docs, a small network that runs, and its tests; CONTRIBUTING.md says what follows."""
    from .new import new

    print("\n".join(map(str, new(name))))
    print("tests import it after `pip install --no-deps --editable .`, which `make test` does too")
