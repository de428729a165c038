"""`regbundles weights`: it parses; ``tools/weights.py`` works."""

from typing import Annotated

import typer

__all__ = ["weights_command"]


def weights_command(
    name: Annotated[str, typer.Argument(metavar="NAME|all", help="folder under bundles/")] = "all",
) -> None:
    """Train on the phantom what is not trained, into bundles/<name>/models; what was stopped goes on."""
    from .weights import make_weights

    print(make_weights(name))
