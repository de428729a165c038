"""A phantom scanned twice with a known deformation between: thick slices, and cubes in another orientation."""

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.flow import integrate
from common.geometry import ddf_to_mm, resample_mm, transform_points, voxels_to_mm
from common.phantom import phantom_subject
from common.smooth import gaussian_smooth
from common.spatial import warp
from common.transform_files import read_displacement

__all__ = ["Scan", "deformed_pair", "errors_mm", "write_cubes", "write_thick"]

SIZE = (180, 200, 224)  # voxels along L, I, A
LARGEST_MM = 9.0  # of the velocity
NOISE = 0.01  # standard deviation, of the largest intensity
PLANES = 5  # that make a thick slice
EVERY = 97  # voxel of the body at which errors are taken


class Scan(NamedTuple):
    """One of the two, before it is written.

    Attributes:
        image: (1, 1, *S).
        body: bool, (1, 1, *S).
        affine: (4, 4), voxels to RAS mm.
        truth_mm: where its points lie in the other one, (1, 3, *S), RAS mm.
    """

    image: Tensor
    body: Tensor
    affine: np.ndarray
    truth_mm: Tensor


def deformed_pair(size: tuple[int, int, int] = SIZE, spacing_mm: float = 1.0) -> tuple[Scan, Scan]:
    """A phantom after a smooth diffeomorphism, and the phantom itself; noise on both, the same at every call.

    Args:
        size: voxels along L, I, A, into which the head has to fit.
        spacing_mm: of the cubes; slices are five times as thick, their pixels half as wide.
    """
    subject, generator = phantom_subject(0, size, spacing_mm), torch.Generator().manual_seed(0)
    coarse = gaussian_smooth(torch.randn(1, 3, *[n // 4 for n in size], generator=generator), 5.0)
    svf = F.interpolate(coarse, size, mode="trilinear", align_corners=True)
    svf = svf * (LARGEST_MM / spacing_mm / svf.norm(dim=1).max())
    ddf, image, body = integrate(svf), subject.image[None].float(), (subject.label[None] > 0).float()

    def noisy(voxels: Tensor) -> Tensor:
        noise = NOISE * voxels.max() * torch.randn(voxels.shape, generator=generator)
        return (voxels + noise * (voxels > 0)).clamp(0)

    there, back = (ddf_to_mm(field, subject.affine) for field in (ddf, integrate(-svf)))
    deformed = Scan(noisy(warp(image, ddf)), warp(body, ddf) > 0.5, subject.affine, there)
    return deformed, Scan(noisy(image), body > 0.5, subject.affine, back)


def write_thick(scan: Scan, path: Path) -> Path:
    """Slices along axis 1, each the mean of five planes, with pixels of half a voxel."""
    size = tuple(scan.image.shape[2:])
    count = size[1] // PLANES
    slices = scan.image[:, :, :, : PLANES * count].unflatten(3, (count, PLANES)).mean(dim=4)
    affine = scan.affine @ np.diag([1.0, PLANES, 1, 1])
    affine[:3, 3] = (scan.affine @ [0, (PLANES - 1) / 2, 0, 1])[:3]
    fine = affine @ np.diag([0.5, 1, 0.5, 1])
    fine[:3, 3] = (affine @ [-0.25, 0, -0.25, 1])[:3]
    voxels = resample_mm(slices, affine, fine, (2 * size[0], count, 2 * size[2]), padding_mode="border")
    nib.save(as_image(voxels, fine), path)
    return path


def write_cubes(scan: Scan, path: Path) -> Path:
    """The voxels as they are, in the orientation RAS."""
    nib.save(nib.as_closest_canonical(as_image(scan.image, scan.affine)), path)
    return path


def as_image(voxels: Tensor, affine: np.ndarray) -> nib.Nifti1Image:
    """int16 NIfTI of (1, 1, *S)."""
    return nib.Nifti1Image(voxels[0, 0].round().numpy().astype(np.int16), affine)


def errors_mm(fixed: Scan, displacement: Path) -> tuple[float, float]:
    """Mean distance in mm, inside the body, from where points should go: if they stayed, and after a field on disk."""
    field, affine = read_displacement(displacement)
    points = voxels_to_mm(fixed.body[0, 0].nonzero().numpy()[::EVERY], fixed.affine)
    wanted = transform_points(points, fixed.truth_mm, fixed.affine)
    moved = transform_points(points, field, affine)
    return tuple(float(np.linalg.norm(found - wanted, axis=1).mean()) for found in (points, moved))
