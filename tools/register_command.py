"""The command `regbundles register`: it parses, ``register.py`` works."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import RegInputError

__all__ = ["register_command"]

IMAGE = "NIfTI, MetaImage, NRRD or a folder of one DICOM series"


def register_command(
    fixed: Annotated[str | None, typer.Argument(help=f"image whose grid the result has: {IMAGE}")] = None,
    moving: Annotated[str | None, typer.Argument(help="image that is brought onto it")] = None,
    out: Annotated[str, typer.Option(help="new folder for the results")] = ...,
    bundle: Annotated[str, typer.Option(help="name, or folder of a downloaded one; svf needs no weights")] = "svf",
    overlay: Annotated[list[str] | None, typer.Option(help="config over inference.json, as lung_ct")] = None,
    affine: Annotated[str, typer.Option(help="first alignment: auto, rigid, none, or a file")] = "auto",
    extract: Annotated[str | None, typer.Option(help="brain: of raw heads, by --template and --template-mask")] = None,
    template: Annotated[str | None, typer.Option(help="a head with its skull, such as ICBM 152")] = None,
    template_mask: Annotated[str | None, typer.Option(help="its brain's mask")] = None,
    modality: Annotated[str, typer.Option(help="of both images: mr, ct, or auto")] = "auto",
    similarity: Annotated[str, typer.Option(help="lncc, mi, mind, mse, or auto by the modalities")] = "auto",
    refine: Annotated[int | None, typer.Option(help="steps that improve a network's answer")] = None,
    fixed_mask: Annotated[str | None, typer.Option(help="where the fixed image counts; leave lesions out")] = None,
    moving_mask: Annotated[str | None, typer.Option(help="where the moving image counts")] = None,
    fixed_label: Annotated[str | None, typer.Option(help="label map of the fixed image, to score")] = None,
    moving_label: Annotated[str | None, typer.Option(help="label map of the moving image, warped along")] = None,
    label_interpolation: Annotated[str | None, typer.Option(help="nearest, or linear: largest weight wins")] = None,
    fixed_points: Annotated[
        str | None, typer.Option(help="landmarks in mm (csv, fcsv, mrk.json), carried over")
    ] = None,
    moving_points: Annotated[str | None, typer.Option(help="their partners, to score")] = None,
    points_space: Annotated[str | None, typer.Option(help="LPS or RAS, of files that do not say it")] = None,
    also: Annotated[list[str] | None, typer.Option(help="further image in the moving one's space; repeat it")] = None,
    jacobian: Annotated[str | None, typer.Option(help="deformable, or total: the affine included")] = None,
    inverse: Annotated[bool, typer.Option(help="write the inverse field")] = True,
    picture: Annotated[bool, typer.Option(help="draw registration.png")] = True,
    report: Annotated[bool, typer.Option(help="write report.html, the page to look at, and score HD95")] = True,
    error_map: Annotated[int, typer.Option(help="write error.nii.gz from the answers from so many starts, as 4")] = 0,
    dataset_dir: Annotated[str | None, typer.Option(help="register the pairs of its datalist.json instead")] = None,
    section: Annotated[str | None, typer.Option(help="of the datalist: validation or testing")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one")] = None,
    force: Annotated[bool, typer.Option(help="replace the results of another registration")] = False,
    quiet: Annotated[bool, typer.Option(help="say nothing but errors")] = False,
) -> None:
    """Align MOVING to FIXED: warped image, transforms that ITK, ANTs, Slicer and SimpleITK read, inverse, a picture."""
    if (dataset_dir is None) == (fixed is None or moving is None):
        raise RegInputError("register needs two images, or --dataset-dir without images; name one of the two.")
    if (extract is None) != (template is None) or (template is None) != (template_mask is None):
        raise RegInputError(
            f"--extract is {extract}, --template {template} and --template-mask {template_mask}, expected all or none; "
            "name the others."
        )
    if extract not in (None, "brain"):
        raise RegInputError(f"--extract is '{extract}', expected brain; correct it.")
    from .register import register

    paths = {"fixed": fixed, "moving": moving, "dataset_dir": dataset_dir}
    paths |= {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
    paths |= {"fixed_label": fixed_label, "moving_label": moving_label}
    paths |= {"fixed_points": fixed_points, "moving_points": moving_points}
    paths |= {"template": template, "template_mask": template_mask}
    ids = {key: None if path is None else str(Path(path).expanduser().absolute()) for key, path in paths.items()}
    ids |= {
        "affine": affine if dataset_dir is None else None,
        "modality": modality,
        "refine_steps": refine,
        "label_interpolation": label_interpolation,
        "points_space": points_space,
        "also": also or None,
        "jacobian": jacobian,
        "inverse": inverse,
        "picture": picture,
        "report": report,
        "error_starts": error_map or None,
        "section": section,
        "device": device,
        "force": force,
    }
    register(bundle, Path(out).expanduser().absolute(), ids, overlay or (), similarity, quiet)
