"""Scans as people have them: a small brain, alone or in its head, and what comes along."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

SIZE = (24, 28, 26)
GRID = np.array([[-6.0, 0, 0, 70], [0, 6, 0, -80], [0, 0, 6, -60], [0, 0, 0, 1]])  # LAS
RADII_MM = np.reshape([48.0, 60, 50], (3, 1, 1, 1))
POINTS = np.array([[10.0, 12, 9], [12, 15, 14], [14, 10, 13]])  # voxels, inside the brain


def brain(scale: float = 1.0, head: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels (left 3, right 7) of an ellipsoid of 600 ml at scale 1, perhaps with a scalp in noisy air."""
    points = (np.indices(SIZE) - (np.reshape(SIZE, (3, 1, 1, 1)) - 1) / 2) * 6 / scale
    distance = np.sqrt(((points / RADII_MM) ** 2).sum(0))
    inside = distance < 1
    image = np.where(
        inside, 500 + 200 * np.cos(points[0] / 11) * np.cos(points[1] / 15 + 1) + 90 * np.sin(points[2] / 9), 0
    )
    if head:
        air = np.random.default_rng(0).integers(1, 20, SIZE)
        image = np.where(inside, image, np.where((distance > 1.08) & (distance < 1.2), 900, air))
    return image.astype(np.int16), np.where(inside, np.where(points[0] < 0, 3, 7), 0).astype(np.uint8)


def write(array: np.ndarray, path: Path, affine: np.ndarray = GRID) -> Path:
    """A NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def write_subject(folder: Path, name: str, scale: float = 1.0, head: bool = False) -> None:
    """``<name>.nii.gz``, ``<name>_seg.nii.gz`` and ``<name>_landmarks.csv``, in LPS mm, side by side."""
    image, labels = brain(scale, head)
    write(image, folder / f"{name}.nii.gz")
    write(labels, folder / f"{name}_seg.nii.gz")
    write_points(folder / f"{name}_landmarks.csv", POINTS)


def write_points(path: Path, voxels: np.ndarray, affine: np.ndarray = GRID) -> None:
    """Landmarks in LPS mm."""
    mm = nib.affines.apply_affine(affine, voxels) * [-1, -1, 1]
    path.write_text("# space: LPS mm\nx,y,z\n" + "".join(f"{x},{y},{z}\n" for x, y, z in mm))


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    """A csv of rows; what a row lacks is left empty."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
