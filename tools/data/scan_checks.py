"""What is wrong with scans of one's own, told all at once and before any work."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from common.datalist import read_keypoints
from common.errors import RegInputError
from common.geometry import mm_to_voxels
from common.intensity import NormalizeIntensityd
from common.points import read_points
from common.preflight import AFFINE_ATOL, Volume, check_image, check_label, findings

from .brain import Grid
from .heads import why_not_stripped
from .recipe import Recipe
from .scans import Scan

__all__ = ["check_scans", "grid_findings", "grid_text", "landmark_voxels", "outside"]

SHOWN = 3  # scans that a message names before it counts the others


class Seen(NamedTuple):
    """What one scan's files hold."""

    grid: Grid | None
    landmarks: int
    doubt: str | None
    """Why it seems not to be stripped, where it should be."""
    sentences: list[str]


def check_scans(
    scans: Sequence[Scan], recipe: Recipe, workers: int | None = None
) -> tuple[dict[str, Grid], dict[str, int], list[str]]:
    """Read every file to its end.

    Returns:
        The grid of each scan whose image can be read, the number of landmarks of those that have some, both by name,
        and a sentence for everything that is wrong.
    """
    with ThreadPoolExecutor(workers or cpu_count() or 1) as pool:  # zlib and numpy let other threads run
        seen = dict(zip(scans, pool.map(lambda scan: check_scan(scan, recipe), scans), strict=True))
    sentences = [sentence for found in seen.values() for sentence in found.sentences]
    heads = [f"{scan.image}: {found.doubt}" for scan, found in seen.items() if found.doubt]
    if heads:
        sentences.append(
            f"{len(heads)} scans seem to show more than a brain ({'; '.join(heads)}), expected skull-stripped scans or "
            "brain masks with them; give the masks, or --template-head with --template-mask to find the brains, or "
            "--whole-head to take heads as they are."
        )
    grids = {scan.name: found.grid for scan, found in seen.items() if found.grid is not None}
    return grids, {scan.name: found.landmarks for scan, found in seen.items() if found.landmarks}, sentences


def check_scan(scan: Scan, recipe: Recipe) -> Seen:
    """Read one scan's files; what is wrong with them is told, not raised."""
    try:
        image = check_image(scan.image, 3)
    except RegInputError as error:
        return Seen(None, 0, None, [str(error)])
    sentences, maps, count, doubt = [], {}, 0, None
    for part in ("label", "mask"):
        try:
            if part in scan.files:
                maps[part] = check_label(scan.files[part], image).voxels
        except RegInputError as error:
            sentences.append(str(error))
    try:
        count = len(checked_landmarks(scan.landmarks, image, recipe.points_space)) if scan.landmarks else 0
    except RegInputError as error:
        sentences.append(str(error))
    if recipe.strips and scan.mask is None and recipe.template_head is None:
        doubt = why_not_stripped(image.voxels, image.affine, maps.get("label"))
    if recipe.modality == "ct" and recipe.window is None:
        sentences += findings([(check_contrast, image)])
    return Seen(Grid(image.voxels.shape, image.affine), count, doubt, sentences)


def check_contrast(image: Volume) -> None:
    """Refuse an image that is said to be CT and that CT's window would make flat."""
    windowed = NormalizeIntensityd("image", modality="ct")({"image": image.voxels})["image"]
    if float(windowed.max() - windowed.min()) < 0.1:
        raise RegInputError(
            f"{image.path} has values from {image.voxels.min():g} to {image.voxels.max():g}, expected CT in Hounsfield "
            "units; give --window LOW,HIGH or --modality mr."
        )


def checked_landmarks(path: Path, image: Volume, space: str | None) -> np.ndarray:
    """The landmarks in voxels (K, 3), all of them inside their image."""
    points = landmark_voxels(path, image.affine, space)
    lost = outside(points, image.voxels.shape)
    if lost.any():
        raise RegInputError(
            f"{path} has {lost.sum()} of {len(lost)} landmarks outside of {image.path}, the first at voxel "
            f"{points[lost][0].round(1).tolist()} of {list(image.voxels.shape)}, expected all inside; check their "
            "space (--points-space) or leave them out."
        )
    return points


def landmark_voxels(path: Path, affine: np.ndarray, space: str | None) -> np.ndarray:
    """Landmarks in voxels of their image, (K, 3) float64.

    Args:
        path: a file of ``common.points`` in mm, or with space "voxel" a table as the datalist's keypoints.
        affine: (4, 4), the image's voxels to RAS mm.
        space: "LPS" or "RAS" where the file does not say, "voxel", or None.
    """
    if space == "voxel":
        return read_keypoints(str(path), 3).double().numpy()
    return mm_to_voxels(read_points(path, space, 3).mm, affine)


def outside(points: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Which points (K, 3), in voxels, lie in no voxel of a grid, bool (K,)."""
    return ((points < -0.5) | (points > np.array(size) - 0.5)).any(axis=1)


def grid_findings(grids: Mapping[str, Grid], together: Sequence[Sequence[str]], advice: str) -> list[str]:
    """What speaks against one datalist for scans of these grids, a sentence for all scans.

    Args:
        grids: of the prepared scans, by name.
        together: names of the scans that are compared voxel by voxel, group by group: of a pair, say.
        advice: what to do where these are on different grids.
    """
    kinds: dict[str, list[str]] = {}
    for name, grid in grids.items():
        kinds.setdefault(grid_text(grid), []).append(name)
    if len(kinds) > 1:
        listed = "; ".join(f"{kind}: {shortened(names)}" for kind, names in kinds.items())
        return [
            f"the scans have {len(kinds)} kinds of grids ({listed}), expected one orientation and voxel size; give "
            f"--spacing, and --orientation where that differs, to resample all, or {advice}."
        ]
    present = [[name for name in group if name in grids] for group in together]
    return [
        f"{shortened(names)} cover different fields of view "
        f"({shortened(sorted({field_text(grids[name]) for name in names}))}), expected one; give {advice}."
        for names in present
        if not alike([grids[name] for name in names])
    ]


def alike(grids: Sequence[Grid]) -> bool:
    """Whether all have one size and one place."""
    return all(
        grid.size == grids[0].size and np.allclose(grid.affine, grids[0].affine, atol=AFFINE_ATOL) for grid in grids
    )


def grid_text(grid: Grid) -> str:
    """Orientation and voxel size."""
    return f"{''.join(aff2axcodes(grid.affine))} {' x '.join(f'{s:.4g}' for s in voxel_sizes(grid.affine))} mm"


def field_text(grid: Grid) -> str:
    """Size, and where the first voxel is."""
    return f"{' x '.join(map(str, grid.size))} voxels from {grid.affine[:3, 3].round(1).tolist()}"


def shortened(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
