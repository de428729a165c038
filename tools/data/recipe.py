"""What is to be done to every scan of one's own: the options of ``prepare folder`` and ``prepare pairs``."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform

from common.errors import RegInputError
from common.preflight import check_image, check_label, findings
from common.transforms import network_grid

from .brain import Grid, outside_fraction
from .heads import foreground, why_not_stripped

__all__ = ["ALIGNMENTS", "ANATOMIES", "Recipe", "recipe_findings", "working_grid"]

ANATOMIES = ("brain", "other")
ALIGNMENTS = ("header", "rigid", "affine")
MODALITIES = ("auto", "mr", "ct")
HEAD_OUTSIDE = 0.2  # of what a head shows lies outside of its brain, at least: skull and scalp are twice that


class Recipe(NamedTuple):
    """The same steps for all scans of a data set."""

    anatomy: str
    """ "brain": what lies outside of the brain becomes 0, and a head that nobody strips is refused; or "other"."""
    whole_head: bool = False
    """Of the anatomy "brain": take heads as they are."""
    template_head: Path | None = None
    """A head with its skull, by which the brain is found in scans that are not stripped and have no mask."""
    template_mask: Path | None = None
    """The brain of ``template_head``, on its grid."""
    modality: str = "auto"
    """Which intensities: "mr" (up to the 99.9th percentile), "ct" (-1000 to 1000 HU), or each by its own values."""
    window: tuple[float, float] | None = None
    """Values that become 0 and 1, instead of the modality's."""
    orientation: str | None = None
    """Axis codes such as "LIA"; None keeps those of each scan, or of what it is aligned to."""
    spacing: tuple[float, float, float] | None = None
    """Voxel size in mm along these axes; None likewise."""
    size: tuple[int, int, int] | None = None
    """Voxels along these axes, about the middle of the field of view; None covers that."""
    template: Path | None = None
    """What all scans are aligned to, and on whose grid they are put; of brains a stripped one."""
    align: str | None = None
    """How scans come onto the template, or moving scans onto their fixed one: "header", "rigid" or "affine"."""
    points_space: str | None = None
    """Of landmarks whose files do not say it: "LPS", "RAS", or "voxel" for tables of voxel coordinates."""

    @property
    def strips(self) -> bool:
        """Whether what is not brain becomes 0."""
        return self.anatomy == "brain" and not self.whole_head


def working_grid(own: Grid, recipe: Recipe) -> Grid:
    """The grid that a recipe asks for, over the field of view of another: that one where it asks for nothing.

    Args:
        own: grid of a scan or a template.
        recipe: orientation, spacing and size of which are heeded.
    """
    codes = recipe.orientation or "".join(aff2axcodes(own.affine))
    order = np.argsort(ornt_transform(io_orientation(own.affine), axcodes2ornt(tuple(codes)))[:, 0])
    spacing = recipe.spacing or tuple(voxel_sizes(own.affine)[order])
    if codes == "".join(aff2axcodes(own.affine)) and np.allclose(spacing, voxel_sizes(own.affine), rtol=1e-5):
        grid = own
    else:
        box = np.zeros(3, dtype=int), np.array(own.size) - 1
        grid = Grid(*network_grid(own.affine, box, codes, spacing))
    if recipe.size is None or recipe.size == grid.size:
        return grid
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.array(grid.size) - np.array(recipe.size)) / 2)
    return Grid(recipe.size, affine)


def recipe_findings(recipe: Recipe) -> list[str]:
    """What is wrong with the options, and with the templates that they name."""
    sentences = findings([(check_words, recipe), (check_numbers, recipe), (check_head_options, recipe)])
    if recipe.template is not None:
        sentences += findings([(check_template, recipe)])
    if recipe.template_head is not None and recipe.template_mask is not None:
        sentences += findings([(check_head_template, recipe)])
    return sentences


def check_words(recipe: Recipe) -> None:
    """Refuse unknown words."""
    for name, value, known in (
        ("anatomy", recipe.anatomy, ANATOMIES),
        ("modality", recipe.modality, MODALITIES),
        ("align", recipe.align, (None, *ALIGNMENTS)),
        ("points-space", recipe.points_space, (None, "LPS", "RAS", "voxel")),
    ):
        if value not in known:
            raise RegInputError(f"{name} is '{value}', expected {', '.join(filter(None, known))}; choose one.")


def check_numbers(recipe: Recipe) -> None:
    """Refuse grids that there cannot be, and a window that is none."""
    axes = [next((k for k, pair in enumerate(("LR", "PA", "IS")) if c in pair), None) for c in recipe.orientation or ""]
    if recipe.orientation is not None and sorted(axes, key=str) != [0, 1, 2]:
        raise RegInputError(f"orientation is '{recipe.orientation}', expected three axis codes such as LIA; name them.")
    if recipe.spacing is not None and not (len(recipe.spacing) == 3 and min(recipe.spacing) > 0):
        raise RegInputError(f"spacing is {recipe.spacing}, expected one or three numbers above 0 in mm; correct it.")
    if recipe.size is not None and not (len(recipe.size) == 3 and min(recipe.size) > 1):
        raise RegInputError(f"size is {recipe.size}, expected three numbers of voxels above 1; correct it.")
    if recipe.window is not None and not (len(recipe.window) == 2 and recipe.window[0] < recipe.window[1]):
        raise RegInputError(f"window is {recipe.window}, expected two numbers, the lower one first; correct it.")


def check_head_options(recipe: Recipe) -> None:
    """Refuse options of heads that contradict each other."""
    if (recipe.template_head is None) != (recipe.template_mask is None):
        raise RegInputError(
            f"template-head is {recipe.template_head} and template-mask {recipe.template_mask}, expected both or none; "
            "name the other."
        )
    asked = [name for name in ("whole_head", "template_head") if getattr(recipe, name)]
    if len(asked) > 1 or (asked and recipe.anatomy != "brain"):
        raise RegInputError(
            f"{' and '.join(asked).replace('_', '-')} were given with the anatomy {recipe.anatomy}, expected one of "
            "whole-head and template-head, and brains; leave the others out."
        )


def check_template(recipe: Recipe) -> None:
    """Refuse a template that cannot be read or, for brains, is not stripped."""
    image = check_image(recipe.template, 3)
    doubt = why_not_stripped(image.voxels, image.affine) if recipe.strips else None
    if doubt:
        raise RegInputError(
            f"the template {recipe.template} seems not to be skull-stripped: {doubt}; expected a brain alone, as the "
            "scans will be; strip it first (regbundles extract)."
        )


def check_head_template(recipe: Recipe) -> None:
    """Refuse a head or a mask that cannot be used, and a head without the skull that the scans have."""
    head = check_image(recipe.template_head, 3)
    mask = check_label(recipe.template_mask, head)
    if outside_fraction(foreground(head.voxels), mask.voxels) < HEAD_OUTSIDE:
        raise RegInputError(
            f"{recipe.template_head} seems to be skull-stripped, expected a head with its skull as the scans have it; "
            "name another template-head."
        )
