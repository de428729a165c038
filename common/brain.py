"""The brain in the scan of a whole head: a template's mask, carried over by registering the template's head to it.

An affine, then a velocity (``common.velocity``), both at ``WORKING_MM``: a brain's outline is smooth, so that twice the
resolution would cost eight times as much and move it by a fraction of a voxel. The mask itself, 0 and 1 on the
template's grid, is read linearly through the whole map at every voxel of the scan's own grid and cut at one half.
"""

import logging

import numpy as np
import torch
from nibabel.orientations import aff2axcodes
from scipy.ndimage import binary_fill_holes, label
from torch import Tensor

from .affine import register_affine
from .errors import RegInputError, RegNumericsError
from .geometry import mm_to_voxels, spatial_affine, total_displacement_mm, voxels_to_mm, warp_mm
from .instance import Report
from .similarity import LNCC
from .transforms import network_grid, resample
from .velocity import VelocityRegistration, displacement

__all__ = ["LEVELS", "doubts", "extract_brain"]

logger = logging.getLogger(__name__)

WORKING_MM = 2.0
LEVELS = ((8, 8, 20), (4, 4, 20), (2, 2, 10), (2, 1, 4))  # as the bundle svf
MARGIN_MM = 20.0  # that is seen around the brain: skull and scalp say where it ends
WINDOW = (0.5, 99.5)  # percentiles that become 0 and 1
SLAB_VOXELS = 2_000_000  # sampled at a time
VOLUME_ML = (500.0, 2500.0)  # from an infant's brain to the largest of adults, ventricles included
BORDER_SHARE = 0.001  # of the mask's voxels on the faces of the scan, above which the brain is cut off there


def extract_brain(
    image: tuple[np.ndarray, np.ndarray],
    template: tuple[np.ndarray, np.ndarray],
    template_mask: np.ndarray,
    *,
    spacing_mm: float = WORKING_MM,
    threads: int = 1,
    report: Report | None = None,
) -> np.ndarray:
    """The mask of the brain in a scan, in one piece and without holes; each of the :func:`doubts` about it is logged.

    The same input, number of threads and machine give the same mask.

    Args:
        image: scan of a head, (X, Y, Z), and its (4, 4) affine, voxels to RAS mm.
        template: a head with its skull and of a like contrast, and its affine.
        template_mask: brain of the template on its grid, nonzero inside.
        spacing_mm: of the grid that the heads are registered on.
        threads: that ITK may use for the affine.
        report: told every step of the velocity, of which ``LEVELS`` has the number.

    Returns:
        bool (X, Y, Z).

    Raises:
        RegInputError: if an image does not have three axes and contrast, or the mask does not fit the template.
        RegNumericsError: if the heads cannot be aligned, or the brain lies outside of the scan.
    """
    check_input(image[0], template[0], template_mask)
    affine, template_affine = (spatial_affine(matrix, 3) for _, matrix in (image, template))
    heads = [coarse(image[0], affine, spacing_mm), coarse(template[0], template_affine, spacing_mm)]
    initial = register_affine(*heads, threads=threads).matrix
    box = brain_box(template_mask, template_affine, initial, image[0].shape, affine)
    size, grid = network_grid(affine, box, "".join(aff2axcodes(affine)), [spacing_mm] * 3)
    fixed = scaled(on_grid(image[0], np.linalg.solve(affine, grid), size))
    moving = scaled(on_grid(template[0], np.linalg.solve(template_affine, initial @ grid), size))
    svf = VelocityRegistration(LNCC(), LEVELS).velocity(moving, fixed, report=report)
    with torch.no_grad():
        ddf = displacement(svf, list(size))
    mask = np.zeros(image[0].shape, dtype=bool)
    inside = tuple(slice(first, last + 1) for first, last in zip(*box, strict=True))
    mask[inside] = one_piece(carried(template_mask, template_affine, ddf, grid, initial, affine, box))
    for doubt in doubts(mask, affine):
        logger.warning("%s", doubt)
    return mask


def doubts(mask: np.ndarray, affine: np.ndarray) -> list[str]:
    """What speaks against a mask being the brain of a human head; a sentence each.

    Args:
        mask: bool (X, Y, Z).
        affine: (4, 4), its voxels to RAS mm.
    """
    found = []
    volume = mask.sum() * abs(np.linalg.det(spatial_affine(affine, 3)[:3, :3])) / 1000
    if not VOLUME_ML[0] <= volume <= VOLUME_ML[1]:
        found.append(
            f"the brain has {volume:.0f} ml, expected {VOLUME_ML[0]:.0f} to {VOLUME_ML[1]:.0f}; look at the mask."
        )
    inner = mask[1:-1, 1:-1, 1:-1].sum()
    share = 1 - inner / max(mask.sum(), 1)
    if share > BORDER_SHARE:
        found.append(
            f"{share:.1%} of the brain lie on the border of the scan, expected a whole head; look at where the mask is "
            "cut off."
        )
    return found


def check_input(image: np.ndarray, template: np.ndarray, template_mask: np.ndarray) -> None:
    """Refuse what has not three axes, and a mask that is not the template's."""
    if image.ndim != 3 or template.ndim != 3:
        raise RegInputError(
            f"the scan has {image.ndim} axes and the template {template.ndim}, expected 3 each; name volumes of heads."
        )
    if template_mask.shape != template.shape or not np.any(template_mask):
        raise RegInputError(
            f"the template's mask has shape {template_mask.shape} and {np.count_nonzero(template_mask)} voxels inside, "
            f"expected some on the template's grid {template.shape}; name the mask of this template."
        )


def on_grid(voxels: np.ndarray, matrix: np.ndarray, size: tuple[int, ...]) -> Tensor:
    """An image (1, 1, *size) at the voxels of another grid, of which ``matrix`` leads to its own."""
    return resample(torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32))[None], matrix, size)[0][None]


def coarse(voxels: np.ndarray, affine: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """A whole image, and its affine, on a grid of this spacing along its own axes."""
    box = np.zeros(3, dtype=int), np.array(voxels.shape) - 1
    size, grid = network_grid(affine, box, "".join(aff2axcodes(affine)), [spacing_mm] * 3)
    return on_grid(voxels, np.linalg.solve(affine, grid), size)[0, 0].numpy(), grid


def scaled(image: Tensor) -> Tensor:
    """Intensities with the percentiles of ``WINDOW`` at 0 and 1, clipped."""
    low, high = np.percentile(image.numpy(), WINDOW)
    return ((image - low) / max(high - low, np.finfo(np.float32).tiny)).clamp(0, 1)


def brain_box(
    template_mask: np.ndarray,
    template_affine: np.ndarray,
    initial: np.ndarray,
    size: tuple[int, ...],
    affine: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of the scan that lie within ``MARGIN_MM`` of the template's brain after the affine."""
    brain = voxels_to_mm(np.argwhere(template_mask), np.linalg.solve(initial, template_affine))
    points = mm_to_voxels(brain, affine)
    margin = MARGIN_MM / np.linalg.norm(affine[:3, :3], axis=0)
    first = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
    last = np.minimum(np.ceil(points.max(axis=0) + margin), np.array(size) - 1).astype(int)
    if (last - first < 1).any():
        raise RegNumericsError(
            "affine alignment brought the template's brain out of the scan, expected it inside; check that the scan "
            "shows a head and that its contrast is the template's."
        )
    return first, last


def carried(
    template_mask: np.ndarray,
    template_affine: np.ndarray,
    ddf: Tensor,
    grid: np.ndarray,
    initial: np.ndarray,
    affine: np.ndarray,
    box: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """The template's mask at the scan's voxels in a box, a slab after the other: a field of them all may be large."""
    source = torch.from_numpy((template_mask != 0).astype(np.float32))[None, None]
    size = box[1] - box[0] + 1
    thick = max(int(SLAB_VOXELS // np.prod(size[1:])), 1)
    slabs = []
    for start in range(0, int(size[0]), thick):
        corner = np.eye(4)
        corner[:3, 3] = box[0] + [start, 0, 0]
        own = (min(thick, int(size[0]) - start), int(size[1]), int(size[2]))
        field = total_displacement_mm(ddf, grid, affine @ corner, own, initial)
        slabs.append(warp_mm(source, template_affine, field, affine @ corner)[0, 0].numpy() >= 0.5)
    return np.concatenate(slabs)


def one_piece(mask: np.ndarray) -> np.ndarray:
    """The largest face-connected piece with its holes filled."""
    pieces, _ = label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    if not sizes.any():
        raise RegNumericsError(
            "registration left no brain in the scan, expected one; check that it shows a head and that its contrast is "
            "the template's."
        )
    return binary_fill_holes(pieces == sizes.argmax())
