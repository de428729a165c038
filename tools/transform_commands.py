"""The commands `regbundles apply | invert | compose | jacobian | convert`: they parse, the modules they name work.

Several transforms are named as antsApplyTransforms has them: the last is applied to points first.
"""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import RegInputError

__all__ = ["COMMANDS"]

RESIDUAL_MM = 0.05  # beyond this an inverse is worth a warning

Transforms = Annotated[list[Path], typer.Argument(help="ANTs, SimpleITK, elastix or our file; the last acts first")]
Reference = Annotated[Path | None, typer.Option(help="image that gives the grid; by default the field's own")]
OutFile = Annotated[Path, typer.Option(help="file to write")]
Force = Annotated[bool, typer.Option(help="replace the file")]


def apply(
    files: Annotated[list[Path], typer.Argument(help="TRANSFORM... IMAGE; without IMAGE where --points is given")],
    out: OutFile,
    reference: Annotated[Path | None, typer.Option(help="the fixed image, whose grid the result has")] = None,
    label: Annotated[bool, typer.Option(help="values are labels: none is made that was not there")] = False,
    interpolation: Annotated[
        str | None, typer.Option(help="linear or nearest (default of labels); linear labels: largest weight wins")
    ] = None,
    outside: Annotated[float, typer.Option(help="value beyond the image, such as -1024 for CT")] = 0.0,
    points: Annotated[Path | None, typer.Option(help="landmarks of the fixed image instead of an image")] = None,
    points_space: Annotated[str | None, typer.Option(help="LPS or RAS, of files that do not say it")] = None,
    force: Force = False,
) -> None:
    """Bring IMAGE onto the fixed image's grid, or the fixed image's points into the moving image.

    With several transforms the last acts on points first, as in antsApplyTransforms: WARP AFFINE IMAGE.
    """
    from .apply import apply_to_image, apply_to_points

    if points is not None:
        return apply_to_points(files, points, out, points_space, force)
    if reference is None or len(files) < 2:
        raise RegInputError("apply needs TRANSFORM... IMAGE and --reference, or TRANSFORM... and --points; name them.")
    *transforms, image = files
    apply_to_image(
        transforms, image, reference, out, label=label, interpolation=interpolation, outside=outside, force=force
    )


def invert(
    transforms: Transforms,
    out: OutFile,
    reference: Annotated[Path | None, typer.Option(help="the moving image, on whose grid the inverse lies")] = None,
    fixed: Annotated[Path | None, typer.Option(help="the fixed image, if no transform has its grid")] = None,
    force: Force = False,
) -> None:
    """Write the inverse: of affines exactly, of deformations as a field; says what it leaves, in mm."""
    from .transforms import invert

    residual = invert(transforms, out, reference, fixed, force)
    if residual is not None:
        typer.echo(f"residual: largest {residual.largest_mm:.3g} mm, mean {residual.mean_mm:.3g} mm")
        if residual.largest_mm > RESIDUAL_MM:
            typer.echo(f"the inverse is off by more than {RESIDUAL_MM} mm: the transform folds there.", err=True)


def compose(transforms: Transforms, out: OutFile, reference: Reference = None, force: Force = False) -> None:
    """Write several transforms as one: .nii.gz a field, .h5 a field or an affine, .tfm and .mat an affine."""
    from .transforms import compose

    compose(transforms, out, reference, force)


def jacobian(
    transforms: Transforms,
    out: OutFile,
    reference: Reference = None,
    total: Annotated[bool, typer.Option(help="of the whole map; else affines kept apart are divided out")] = False,
    force: Force = False,
) -> None:
    """Write the determinant of the Jacobian: 2 says that 1 mm^3 of the fixed image is 2 mm^3 of the moving one."""
    from .transforms import jacobian

    found = jacobian(transforms, out, reference, total, force)
    typer.echo(f"determinant: {found.smallest:.3g} to {found.largest:.3g}; {found.folded_percent:.3g}% folded")


def convert(
    source: Annotated[Path, typer.Argument(help="transform to read")],
    out: Annotated[Path, typer.Argument(help="file to write")],
    source_format: Annotated[str | None, typer.Option("--from", help="of SOURCE; by default its content tells")] = None,
    out_format: Annotated[str | None, typer.Option("--to", help="of OUT; by default its name tells")] = None,
    reference: Annotated[Path | None, typer.Option(help="the fixed image; voxels mean nothing without it")] = None,
    moving: Annotated[Path | None, typer.Option(help="the moving image, where its grid is another one")] = None,
    force: Force = False,
) -> None:
    """Write a transform in another format.

    itk (.nii.gz, .h5, .tfm, .mat), matrix (4x4 RAS text: greedy, c3d), ddf (voxels, components first: .npz, .nii.gz),
    learn2reg (voxels, components last: .npz, .nii.gz), freesurfer (.lta), fsl (FLIRT).
    """
    from .convert import convert

    images = {"reference": reference, "moving": moving}
    convert(source, out, source_format=source_format, out_format=out_format, **images, force=force)


COMMANDS = (apply, invert, compose, jacobian, convert)
