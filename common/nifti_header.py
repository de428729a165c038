"""NIfTI headers held against themselves: what they say twice has to agree, or a byte of them is wrong.

Readers take the first statement and look at no second one. Source: NIfTI-1.1 standard, nifti1.h.
"""

from itertools import product

import numpy as np
from nibabel import Nifti1Header, Nifti1Image
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError

__all__ = ["header_breaches", "header_doubts", "lost_sizes", "scale_doubts", "stored_header"]

FORMS_ATOL_MM = 0.01  # float32 headers round to 1e-4 at the corners of a head
UNITS = {1: "metres", 3: "micrometres"}  # of xyzt_units; 2 is mm, 0 is unknown and means mm


def stored_header(image: Nifti1Image) -> Nifti1Header:
    """The header as the file has it: nibabel mends some contradictions where it loads one, and says nothing."""
    holder = image.file_map.get("header", image.file_map["image"])
    if holder.filename is None:  # made in memory
        return image.header
    with ImageOpener(holder.filename, "rb") as file:
        return type(image.header).from_fileobj(file, check=False)


def header_breaches(header: Nifti1Header) -> list[str]:
    """What cannot be true of any image: the bits of a voxel are not those of its data type."""
    bits = header.get_data_dtype().itemsize * 8
    stated = int(header["bitpix"])
    return [] if stated == bits else [f"its header states {stated} bits a voxel, its data type has {bits}"]


def lost_sizes(header: Nifti1Header) -> list[float]:
    """The voxel sizes, in mm, if the position needs them and one is 0 or no number: nibabel takes 1 instead of 0."""
    sizes = np.asarray(header["pixdim"][1 : min(int(header["dim"][0]), 3) + 1])
    return [] if header["sform_code"] or (np.abs(sizes) > 0).all() else sizes.tolist()


def header_doubts(header: Nifti1Header) -> list[str]:
    """What a person should know of, though the image can be read: two positions, two voxel sizes, units, a scale.

    Programs that align images write a new sform and leave the qform, so that two positions may well be meant.

    Returns:
        Clauses, each of what was found and what was taken.
    """
    return [*form_doubts(header), *unit_doubts(header), *scale_doubts(header)]


def form_doubts(header: Nifti1Header) -> list[str]:
    """Whether the sform, which is taken, agrees with the qform, or with the voxel sizes where there is none.

    An sform whose code is 0, or unknown to the standard (nibabel takes it for 0), is compared where it is filled in.
    """
    size, sform = header.get_data_shape()[:3], header.get_sform()
    if not header["sform_code"]:
        distance = corner_distance(sform, qform_of(header), size) if np.linalg.det(sform[:3, :3]) else 0.0
        told = f"an sform that is switched off and up to {distance:.3g} mm from its qform; the qform was taken"
        return [] if distance <= FORMS_ATOL_MM else [told]
    if not header["qform_code"]:
        norms, stated = np.linalg.norm(sform[:3, : len(size)], axis=0), np.asarray(header["pixdim"][1 : len(size) + 1])
        agrees = (np.abs(norms - stated) * size <= FORMS_ATOL_MM).all()
        return [] if agrees else [f"voxels of {stated.tolist()} mm, its sform of {norms.tolist()}; the sform was taken"]
    distance = corner_distance(sform, qform_of(header), size)
    if distance <= FORMS_ATOL_MM:
        return []
    return [f"an sform and a qform that are up to {distance:.3g} mm apart; the sform was taken"]


def qform_of(header: Nifti1Header) -> np.ndarray:
    """(4, 4) by the quaternion; NaN where that is no rotation."""
    try:
        return header.get_qform()
    except (ValueError, HeaderDataError):
        return np.full((4, 4), np.nan)


def corner_distance(first: np.ndarray, second: np.ndarray, size: tuple[int, ...]) -> float:
    """How far apart two affines bring a corner of the grid, at most, in mm; infinite where one is not finite."""
    corners = np.array([(*corner, *[0] * (3 - len(size)), 1) for corner in product(*((0, n - 1) for n in size))])
    with np.errstate(all="ignore"):
        distance = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max()
    return float(distance) if np.isfinite(distance) else float("inf")


def unit_doubts(header: Nifti1Header) -> list[str]:
    """Whether sizes are in something else than mm."""
    unit = UNITS.get(int(header["xyzt_units"]) & 7)
    return [f"sizes in {unit}; they were taken as mm"] if unit else []


def scale_doubts(header: Nifti1Header) -> list[str]:
    """Whether there is a scale that no reader can apply; 0, or NaN twice, means that there is none."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    unusable = np.isinf(slope) or (not (np.isfinite(slope) and slope) and np.isfinite(inter) and inter)
    return [f"the scale {slope:g} and offset {inter:g}; voxels were taken as stored"] if unusable else []
