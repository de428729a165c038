"""The command `regbundles extract`: it parses, ``extract.py`` works."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["extract_command"]


def extract_command(
    image: Annotated[Path, typer.Argument(help="scan of a head: NIfTI, MetaImage, NRRD or a DICOM folder")],
    template: Annotated[Path, typer.Option(help="head with its skull, of a like contrast; none is shipped")],
    template_mask: Annotated[Path, typer.Option(help="the template's brain, on its grid")],
    out: Annotated[Path, typer.Option(help=".nii.gz to write: the scan, 0 outside of the brain")],
    mask_out: Annotated[Path | None, typer.Option(help=".nii.gz to write the mask into")] = None,
    force: Annotated[bool, typer.Option(help="replace files that are there")] = False,
    quiet: Annotated[bool, typer.Option(help="draw no bar")] = False,
) -> None:
    """Cut the brain out of the scan of a head: a template's mask, carried over by registration at 2 mm."""
    from .extract import extract

    extract(image, template, template_mask, out, mask_out=mask_out, force=force, quiet=quiet)
