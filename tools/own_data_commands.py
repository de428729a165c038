"""`regbundles data prepare folder | pairs`: people's own scans; it parses, ``tools/data`` works."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import RegInputError

from .arguments import Force, Out, Workers

if TYPE_CHECKING:
    from .data.recipe import Recipe

__all__ = ["folder", "pairs"]

Anatomy = Annotated[str, typer.Option(help="brain (all else becomes 0, raw heads are refused) or other")]
WholeHead = Annotated[bool, typer.Option("--whole-head", help="take heads as they are, skull and all")]
TemplateHead = Annotated[
    Path | None, typer.Option(help="head with its skull, to find the brain in heads without a mask")
]
TemplateMask = Annotated[Path | None, typer.Option(help="the brain of --template-head, on its grid")]
Modality = Annotated[str, typer.Option(help="mr (percentiles), ct (-1000 to 1000 HU) or auto, by each scan's values")]
Window = Annotated[str | None, typer.Option(help="LOW,HIGH: the values that become 0 and 1, instead of the modality's")]
Orientation = Annotated[str | None, typer.Option(help="axis codes such as LIA; default those of the scans")]
Spacing = Annotated[str | None, typer.Option(help="voxel size in mm, one number or three; default that of the scans")]
Size = Annotated[str | None, typer.Option(help="X,Y,Z voxels about the middle; default the whole field of view")]
Template = Annotated[Path | None, typer.Option(help="scan that all are aligned to, and whose grid they get")]
PointsSpace = Annotated[str | None, typer.Option(help="LPS or RAS, where landmark files do not say it; or voxel")]
Validation = Annotated[int, typer.Option(help="subjects for validation, where the table has no column section")]
Testing = Annotated[int, typer.Option(help="subjects for testing, likewise; the others are trained on")]
Seed = Annotated[int, typer.Option(help="of the choice of subjects")]
LabelNames = Annotated[Path | None, typer.Option(help="csv, tsv or json: value and name of each label")]
Name = Annotated[str | None, typer.Option(help="of the data set; default the output folder's")]
License = Annotated[str, typer.Option(help="of the data, in words, for datalist.json")]


def folder(
    images: Annotated[
        str, typer.Option(help="csv (image, label, mask, landmarks, subject, section), BIDS, or a folder")
    ],
    out: Out,
    anatomy: Anatomy,
    whole_head: WholeHead = False,
    template_head: TemplateHead = None,
    template_mask: TemplateMask = None,
    modality: Modality = "auto",
    window: Window = None,
    orientation: Orientation = None,
    spacing: Spacing = None,
    size: Size = None,
    template: Template = None,
    align: Annotated[str | None, typer.Option(help="onto the template: affine (default), rigid or header")] = None,
    points_space: PointsSpace = None,
    validation: Validation = 0,
    testing: Testing = 0,
    seed: Seed = 0,
    pairing: Annotated[
        str, typer.Option(help="of a section's scans: all ordered pairs, or the first as fixed")
    ] = "all",
    suffix: Annotated[str, typer.Option(help="of a BIDS data set's images")] = "T1w",
    dseg: Annotated[
        str | None, typer.Option(help="desc of a BIDS data set's segmentations, where there are several")
    ] = None,
    label_names: LabelNames = None,
    name: Name = None,
    license: License = "",
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Your own cohort: scans in any format, labels, masks, landmarks; split by subject."""
    from .data.folder import prepare

    heads, grid = (anatomy, whole_head, template_head, template_mask), (orientation, spacing, size)
    recipe = recipe_of(heads, (modality, window), grid, template, align, points_space)
    choice = {"validation": validation, "testing": testing, "seed": seed, "pairing": pairing}
    about = {"label_names": label_names, "name": name, "license": license}
    print(prepare(images, out, recipe, **choice, **about, suffix=suffix, dseg=dseg, workers=workers, force=force))


def pairs(
    pairs: Annotated[str, typer.Option(help="csv: fixed, moving; fixed_label, moving_mask, ... ; section, subject")],
    out: Out,
    anatomy: Anatomy,
    whole_head: WholeHead = False,
    template_head: TemplateHead = None,
    template_mask: TemplateMask = None,
    modality: Modality = "auto",
    window: Window = None,
    orientation: Orientation = None,
    spacing: Spacing = None,
    size: Size = None,
    template: Template = None,
    align: Annotated[
        str | None, typer.Option(help="onto the fixed scan's grid, or the template's: affine, rigid or header")
    ] = None,
    points_space: PointsSpace = None,
    validation: Validation = 0,
    testing: Testing = 0,
    seed: Seed = 0,
    label_names: LabelNames = None,
    name: Name = None,
    license: License = "",
    workers: Workers = None,
    force: Force = False,
) -> None:
    """Your own pairs: scans in any format, labels, masks, landmarks, each pair on one grid."""
    from .data.pairs import prepare

    heads, grid = (anatomy, whole_head, template_head, template_mask), (orientation, spacing, size)
    recipe = recipe_of(heads, (modality, window), grid, template, align, points_space)
    choice = {"validation": validation, "testing": testing, "seed": seed}
    about = {"label_names": label_names, "name": name, "license": license}
    print(prepare(pairs, out, recipe, **choice, **about, workers=workers, force=force))


def recipe_of(
    heads: tuple[str, bool, Path | None, Path | None],
    intensity: tuple[str, str | None],
    grid: tuple[str | None, str | None, str | None],
    template: Path | None,
    align: str | None,
    points_space: str | None,
) -> "Recipe":
    """What the two commands share, read from their texts: modality and window; orientation, spacing and size."""
    from .data.recipe import Recipe

    modality, window = intensity
    orientation, spacing, size = grid
    return Recipe(*heads, modality)._replace(
        window=numbers(window, "--window", 2),
        orientation=orientation,
        spacing=spacing_of(spacing),
        size=whole(numbers(size, "--size", 3)),
        template=template,
        align=align,
        points_space=points_space,
    )


def numbers(text: str | None, flag: str, count: int) -> tuple[float, ...] | None:
    """As many numbers between commas."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise RegInputError(f"{flag} is '{text}', expected {count} numbers between commas; correct it.")
    return values


def spacing_of(text: str | None) -> tuple[float, ...] | None:
    """One number for all axes, or three."""
    if text is not None and "," not in text:
        return numbers(text, "--spacing", 1) * 3
    return numbers(text, "--spacing", 3)


def whole(values: tuple[float, ...] | None) -> tuple[int, ...] | None:
    """Numbers of voxels."""
    if values is not None and any(value % 1 for value in values):
        raise RegInputError(f"--size is {values}, expected whole numbers of voxels; correct it.")
    return None if values is None else tuple(int(value) for value in values)
