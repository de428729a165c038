"""The command `regbundles fetch`: it parses, ``fetch.py`` works."""

from pathlib import Path
from typing import Annotated

import typer

from .arguments import Out, Timeout, Tries

__all__ = ["fetch_command"]


def fetch_command(
    bundle: Annotated[str, typer.Argument(metavar="NAME_OR_URL", help="a bundle, or the address of its zip")],
    out: Out = "downloads",
    source: Annotated[
        str | None, typer.Option(help="for a name: OWNER/REPO/TAG on GitHub, or a model_info.json by address or path")
    ] = None,
    version: Annotated[str | None, typer.Option(help="for a name; default the newest")] = None,
    sha256: Annotated[str | None, typer.Option(help="of the zip, if you know it; default as published")] = None,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="plain http to this machine, for tests")] = False,
    quiet: Annotated[bool, typer.Option(help="draw no bar")] = False,
    timeout: Timeout = 60.0,
    tries: Tries = 5,
) -> None:
    """Fetch a packed bundle and its weights, hashes checked, into OUT/<name>; what is there is never overwritten."""
    from .data.fetch.web import patience_of
    from .fetch import fetch_bundle

    options = {"allow_http": allow_http, "quiet": quiet, "patience": patience_of(timeout, tries)}
    print(fetch_bundle(bundle, Path(out), source=source, version=version, sha256=sha256, **options))
