"""`regbundles data`: it parses; the modules of ``tools/data`` work."""

from typing import Annotated

import typer

from .arguments import Out

__all__ = ["data"]

data = typer.Typer(no_args_is_help=True, help="Raw scans in, a model-ready data set out.")
prepare = typer.Typer(no_args_is_help=True, help="Prepare one data set from a folder of its raw files.")
data.add_typer(prepare, name="prepare")


@prepare.command()
def malc(
    raw: Annotated[str, typer.Option(help="folder of the official files or of <id>_SS.nii.gz and <id>_glm.nii.gz")],
    out: Out,
    mask: Annotated[str, typer.Option(help="none (skull-stripped scans), labels, or a path with {id} in it")] = "none",
    template: Annotated[str | None, typer.Option(help="scan to align to; default the first training subject")] = None,
    spacing: Annotated[float, typer.Option(help="voxel size in mm, 1 or 2")] = 1.0,
    workers: Annotated[int | None, typer.Option(help="processes; default one a processor")] = None,
    force: Annotated[bool, typer.Option(help="prepare again what is finished")] = False,
) -> None:
    """MICCAI 2012 Multi-Atlas Labelling Challenge: 35 brains, 134 structures. License: CC BY-NC, yours to accept."""
    from .data.malc import prepare

    print(prepare(raw, out, mask, template, spacing, workers, force))


@prepare.command()
def lung_ct(
    raw: Annotated[str, typer.Option(help="folder of the unpacked archive, Learn2Reg's or Zenodo's")],
    out: Out,
    intensity: Annotated[str, typer.Option(help="hounsfield, or stored for files that are not in HU")] = "hounsfield",
    workers: Annotated[int | None, typer.Option(help="processes; default one a processor")] = None,
    force: Annotated[bool, typer.Option(help="prepare again what is finished")] = False,
) -> None:
    """Learn2Reg LungCT, for evaluation: 8 pairs of a patient, 56 of two. License: CC BY 4.0, yours to accept."""
    from .data.lung_ct import prepare

    print(prepare(raw, out, intensity, workers, force))
