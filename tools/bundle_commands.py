"""The commands that share a bundle, pack, verify and export: they parse, the modules of those names work."""

from pathlib import Path
from typing import Annotated

import typer

from .arguments import Out, numbers

__all__ = ["COMMANDS"]

Names = Annotated[str, typer.Argument(metavar="NAME|all", help="folder under bundles/")]


def pack(
    name: Names,
    out: Out = "dist",
    weights: Annotated[bool, typer.Option(help="put models/model.pt into it")] = False,
    release: Annotated[
        str | None, typer.Option(help="OWNER/REPO/TAG on GitHub: list it in models/model_info.json")
    ] = None,
) -> None:
    """Write <name>_v<version>.zip, which runs with no repository and nothing of ours installed, and SHA256SUMS."""
    from .catalog import add_release, check_release
    from .history import untagged
    from .pack import names_of, pack_all
    from .repository import REPOSITORY

    if release is not None:
        check_release(release)
    names = names_of(name)
    archives = pack_all(names, Path(out), weights=weights)
    if warning := untagged(REPOSITORY / "bundles" / name for name in names):
        typer.echo(warning, err=True)
    if release is not None:
        add_release(archives, release)
    for archive in archives:
        print(archive)


def verify(name: Names) -> None:
    """Check a bundle as the model zoo does, and that its packed copy works alone; exit status 1: something is wrong."""
    from .verify import verify_all

    if not verify_all(name, say=print):
        raise typer.Exit(1)


def export(
    name: Annotated[str, typer.Argument(help="a bundle's name or folder")],
    form: Annotated[str, typer.Option("--format", help="onnx (opset 20) or torchscript")],
    out: Out = "dist",
    weights: Annotated[str | None, typer.Option(help="default the bundle's models/model.pt")] = None,
    size: Annotated[str | None, typer.Option(help="voxels of the pair it is tried on, as 96x96x96")] = None,
) -> None:
    """Write the network for other programs, held against torch to 1e-4 voxel; say size and seconds."""
    from .export import export

    voxels = None if size is None else numbers(size, "x", "--size")
    found = export(name, form, Path(out), None if weights is None else Path(weights), voxels)
    taken = "any size" if found.any_size else f"{'x'.join(map(str, found.agreements[0].size))} only"
    print(f"{found.path}: {found.megabytes:.1f} MB, {taken}, exported in {found.seconds:.1f} s")
    for one in found.agreements:
        print(
            f"{'x'.join(map(str, one.size))}: {one.seconds:.2f} s, torch {one.torch_seconds:.2f} s; differs by at most "
            f"{one.difference:.1e} voxel of {one.largest:.2f}"
        )


COMMANDS = (pack, verify, export)
