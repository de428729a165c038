"""``python -m tools.monai_label``, in the environment that ``make label-server`` makes."""

import logging
import socket
from pathlib import Path
from typing import Annotated

import typer

from common.errors import RegEnvError, RegInputError

from ..arguments import run
from .demonstration import write_demonstration
from .parameters import MAX_ATLASES
from .served import all_bundles, serve_bundles

LOCAL = "127.0.0.1"

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)


@app.command()
def serve(
    studies: Annotated[Path, typer.Option(help="folder of images; approved labels in labels/final")],
    bundle: Annotated[
        list[str] | None, typer.Option(help="name, or folder of a packed one; repeat it; default all with weights")
    ] = None,
    atlases: Annotated[int, typer.Option(help="labelled studies to fuse by vote where none is named")] = 1,
    host: Annotated[str, typer.Option(help="address to listen on; there is no password")] = LOCAL,
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one")] = None,
    max_upload_mib: Annotated[int, typer.Option(help="largest request")] = 512,
) -> None:
    """Serve bundles as models of MONAI Label, for 3D Slicer and other clients."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True)
    if not studies.is_dir():
        raise RegInputError(f"{studies} is no folder, expected one of images; make it or name another.")
    if not 1 <= atlases <= MAX_ATLASES:
        raise RegInputError(f"--atlases is {atlases}, expected 1 to {MAX_ATLASES}; correct it.")
    bundles = all_bundles() if bundle is None else serve_bundles(bundle)
    listening = listen(host, port)
    from .server import serve

    folders = [str(served.root) for served in bundles]
    serve(studies, folders, atlases=atlases, device=device, listening=listening, limit_mib=max_upload_mib)


@app.command()
def demonstration(out: Annotated[Path, typer.Argument(help="folder to fill")]) -> None:
    """Write a folder of phantom studies, some labelled; prints the studies' folder."""
    print(write_demonstration(out))


@app.command()
def score(
    demonstration: Annotated[Path, typer.Argument(help="folder of `demonstration`, which a server is on")],
    model: Annotated[str, typer.Option(help="a bundle's name")],
    server: Annotated[str, typer.Option(help="its address")] = f"http://{LOCAL}:8000",
    atlases: Annotated[int, typer.Option(help="labelled studies to fuse")] = 1,
    picture: Annotated[Path | None, typer.Option(help="PNG of the first study")] = None,
) -> None:
    """Ask a running server for the labels whose truth is known; prints mean Dice before and after."""
    from .score import score

    for found in score(demonstration, server, model, atlases, picture):
        print(f"{found.study}  {'+'.join(found.moving)}  {found.before:.3f} -> {found.after:.3f}")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; RegEnvError if it cannot."""
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise RegEnvError(f"{host}:{port} cannot be listened on ({error}); choose another --host or --port.") from error


def main() -> None:
    """Run the command; a RegError ends it with its sentence alone."""
    run(app)


if __name__ == "__main__":
    main()
