"""The command `regbundles report`: it parses, the package ``report`` works."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report_command"]


def report_command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="results of register, inference or evaluate")],
    out: Annotated[str | None, typer.Option(help="page to write; default DIR/index.html")] = None,
) -> None:
    """Write one page over all pairs below DIR, worst first: table, pictures, distributions; and index.csv beside it."""
    from .report.index import write_index

    root = Path(folder).expanduser().absolute()
    print(write_index(root, root / "index.html" if out is None else Path(out).expanduser().absolute()))
