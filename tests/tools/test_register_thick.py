"""A scan of thick slices and one of cubes, in other orientations, with a known deformation between them."""

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.flow import integrate
from common.geometry import ddf_to_mm, resample_mm, transform_points, voxels_to_mm
from common.phantom import phantom_subject
from common.smooth import gaussian_smooth
from common.spatial import warp
from common.transform_files import read_displacement
from tools.register import register

SIZE = (180, 200, 224)  # voxels of 1 mm, in the order L, I, A
LARGEST_MM = 9.0


class Scan(NamedTuple):
    image: Tensor  # (1, 1, *SIZE)
    body: Tensor
    affine: np.ndarray
    truth_mm: Tensor  # where its points lie in the other one


@pytest.fixture(scope="module")
def scans() -> tuple[Scan, Scan]:
    """A phantom after a smooth diffeomorphism, and the phantom itself; noise of 1 % on both."""
    subject, generator = phantom_subject(0, SIZE, 1.0), torch.Generator().manual_seed(0)
    coarse = gaussian_smooth(torch.randn(1, 3, *[n // 4 for n in SIZE], generator=generator), 5.0)
    svf = F.interpolate(coarse, SIZE, mode="trilinear", align_corners=True)
    svf = svf * (LARGEST_MM / svf.norm(dim=1).max())
    ddf, image, body = integrate(svf), subject.image[None].float(), (subject.label[None] > 0).float()

    def noisy(voxels: Tensor) -> Tensor:
        return (voxels + 0.01 * voxels.max() * torch.randn(voxels.shape, generator=generator) * (voxels > 0)).clamp(0)

    there, back = (ddf_to_mm(field, subject.affine) for field in (ddf, integrate(-svf)))
    deformed = Scan(noisy(warp(image, ddf)), warp(body, ddf) > 0.5, subject.affine, there)
    return deformed, Scan(noisy(image), body > 0.5, subject.affine, back)


def write_thick(scan: Scan, path: Path) -> str:
    """Means of five planes, 5 mm along axis 1, and pixels of 0.5 mm."""
    count = SIZE[1] // 5
    slices = scan.image[:, :, :, : 5 * count].unflatten(3, (count, 5)).mean(dim=4)
    affine = scan.affine @ np.diag([1.0, 5, 1, 1])
    affine[:3, 3] = (scan.affine @ [0, 2, 0, 1])[:3]
    fine = affine @ np.diag([0.5, 1, 0.5, 1])
    fine[:3, 3] = (affine @ [-0.25, 0, -0.25, 1])[:3]
    voxels = resample_mm(slices, affine, fine, (2 * SIZE[0], count, 2 * SIZE[2]), padding_mode="border")
    nib.save(nib.Nifti1Image(voxels[0, 0].round().numpy().astype(np.int16), fine), path)
    return str(path)


def write_cubes(scan: Scan, path: Path) -> str:
    """Voxels of 1 mm, in the orientation RAS."""
    image = nib.Nifti1Image(scan.image[0, 0].round().numpy().astype(np.int16), scan.affine)
    nib.save(nib.as_closest_canonical(image), path)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("thick", ["fixed", "moving"])
def test_a_known_deformation_is_found_to_less_than_a_millimeter(scans, tmp_path, thick):
    fixed = scans[0]
    writers = {"fixed": (write_thick, write_cubes), "moving": (write_cubes, write_thick)}[thick]
    paths = {
        role: write(scan, tmp_path / f"{role}.nii.gz")
        for role, write, scan in zip(("fixed", "moving"), writers, scans, strict=True)
    }
    ids = {**paths, "affine": "auto", "picture": False, "inverse": False}
    register("svf", tmp_path / "out", ids, overlays=["thick_slices"], quiet=True)
    field, affine = read_displacement(tmp_path / "out" / "displacement.nii.gz")
    points = voxels_to_mm(fixed.body[0, 0].nonzero().numpy()[::97], fixed.affine)
    wanted = transform_points(points, fixed.truth_mm, fixed.affine)
    before = np.linalg.norm(points - wanted, axis=1)
    after = np.linalg.norm(transform_points(points, field, affine) - wanted, axis=1)
    assert before.mean() > 4 and after.mean() < 1
