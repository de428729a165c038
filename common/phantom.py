"""Labelled synthetic brains with a known deformation: the data every bundle trains on unless it is given better.

One analytic anatomy (``common/anatomy.py``) is shared by all subjects. Subject ``s`` is that anatomy seen through its
own diffeomorphism ``phi_s(x) = x + ddf_s(x)``: ``label_s(x) = anatomy(phi_s(x))``. So the true map between any two
subjects is ``phi_moving^-1(phi_fixed(x))`` (:func:`known_ddf`), and a registration can be measured against it.
A network trained on it is a demonstration, not a product.
"""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from .anatomy import LABELS, anatomy
from .datalist import SECTIONS
from .errors import RegInputError
from .files import save_atomically, temporary_folder
from .flow import integrate
from .spatial import warp

__all__ = [
    "LABELS",
    "Phantom",
    "default_spacing_mm",
    "ensure_phantom",
    "known_ddf",
    "phantom_affine",
    "phantom_subject",
    "write_phantom",
]

EXTENT_MM = {"L": 156.0, "I": 152.0, "A": 192.0}  # field of view that holds the anatomy and its deformations
SLICE_Z_MM = 5.0  # height of the axial plane that a 2-D subject shows: it meets every deep nucleus
DEFORMATION_MM = {2: 2.5, 3: 1.6}  # RMS velocity per axis, by number of axes
# T1-like intensities, white matter = 1: CSF, cortex, white matter and the nuclei between them
T1 = {"csf": 0.22, "cortex": 0.66, "white": 1.0, "thalamus": 0.82, "caudate": 0.69, "putamen": 0.73, "pallidum": 0.9}


@dataclass(frozen=True)
class Phantom:
    """One subject.

    Args:
        image: (1, *S) float32, 0 outside the brain, white matter near 700.
        label: (1, *S) uint8, values of ``LABELS``.
        svf: (1, N, *S) float32 stationary velocity in voxels; ``integrate(svf) == ddf``.
        ddf: (1, N, *S) float32 in voxels: ``label(x) = anatomy(x + ddf(x))``.
        affine: 4x4 float64, voxel -> RAS mm.
    """

    image: Tensor
    label: Tensor
    svf: Tensor
    ddf: Tensor
    affine: np.ndarray


def phantom_subject(
    seed: int,
    size: Sequence[int] = (64, 64, 64),
    spacing_mm: float | None = None,
    deformation_mm: float | None = None,
    noise: float = 0.025,
    bias: float = 0.15,
) -> Phantom:
    """One subject of the synthetic population; the same arguments give the same voxels.

    Args:
        seed: what makes this subject differ: deformation, bias field, noise and contrast.
        size: voxels per axis, in the order L, I, A (3-D) or L, A (an axial slice).
        spacing_mm: voxel size; by default the smallest one with which the head fits.
        deformation_mm: root mean square velocity per axis. The default, 1.6 in 3-D and 2.5 in 2-D, puts the mean Dice
            of two subjects between 0.55 and 0.65.
        noise: standard deviation of the receiver noise, white matter = 1.
        bias: standard deviation of the log of the bias field, smooth over about a third of the head.

    Raises:
        RegInputError: if ``size`` is not two or three axes of at least 16 voxels, or the head does not fit.
    """
    size = checked_size(size, spacing_mm)
    spacing = default_spacing_mm(size) if spacing_mm is None else float(spacing_mm)
    amplitude = DEFORMATION_MM[len(size)] if deformation_mm is None else deformation_mm
    rng = np.random.default_rng([int(seed), len(size)])
    velocity_mm = np.stack([smooth_noise(rng, size, band=(3.2, 9.0), zero_border=True) for _ in size])
    svf = torch.from_numpy(velocity_mm * np.float32(amplitude / spacing)).unsqueeze(0)
    ddf = integrate(svf)
    contrast = {name: value * (1 + 0.03 * rng.standard_normal()) for name, value in T1.items()}
    label, signal, mask = paint(points_mm(ddf, spacing), spacing, contrast)
    field = np.exp(bias * smooth_noise(rng, size, band=(1.6, 3.0), zero_border=False))
    image = acquire(signal * field, mask, noise, rng)
    return Phantom(
        image=torch.from_numpy(image).unsqueeze(0),
        label=torch.from_numpy(label).unsqueeze(0),
        svf=svf,
        ddf=ddf,
        affine=phantom_affine(size, spacing),
    )


def known_ddf(fixed: Phantom, moving: Phantom, iterations: int = 40) -> Tensor:
    """The true registration of two subjects: ``moving.label(x + ddf(x)) = fixed.label(x)``.

    Solves ``u(x) + ddf_moving(x + u(x)) = ddf_fixed(x)`` by a damped fixed point, to 0.001 voxels. What remains is the
    linear interpolation of the displacements: 0.01 voxels on average and 0.05 at most between 33 and 65 voxels an axis.

    Args:
        fixed: subject whose grid the field lives on.
        moving: subject of the same size.
        iterations: of the fixed point.

    Returns:
        ddf (1, N, *S) in voxels.

    Raises:
        RegInputError: if the two subjects differ in size.
    """
    if fixed.ddf.shape != moving.ddf.shape:
        raise RegInputError(
            f"the phantoms have sizes {list(fixed.ddf.shape[2:])} and {list(moving.ddf.shape[2:])}, "
            "expected the same; make both with one size."
        )
    ddf = fixed.ddf - moving.ddf
    for _ in range(iterations):
        ddf = ddf - 0.5 * (ddf + warp(moving.ddf, ddf) - fixed.ddf)
    return ddf


def write_phantom(
    out_dir: str | Path,
    subjects: int = 8,
    size: Sequence[int] = (64, 64, 64),
    spacing_mm: float | None = None,
    seed: int = 0,
    validation_pairs: int = 2,
    testing_pairs: int = 2,
) -> Path:
    """Write a phantom data set in the collection's datalist contract and return the path of its ``datalist.json``.

    Every pair of the validation and testing sections has two subjects of its own. The same arguments give the same
    bytes; ``datalist.json`` is written last, so a folder that has one is whole.

    Args:
        out_dir: folder to fill with ``images/``, ``labels/`` and ``datalist.json``.
        subjects: number of training subjects.
        size: voxels per axis, L, I, A or (2-D) L, A.
        spacing_mm: voxel size; None chooses the smallest that holds the head.
        seed: of the first subject; subject k has seed ``1000 * seed + k``.
        validation_pairs: number of pairs in ``validation``.
        testing_pairs: number of pairs in ``testing``.

    Raises:
        RegInputError: if there are fewer than two training subjects, or the head does not fit ``size``.
    """
    if subjects < 2:
        raise RegInputError(f"the phantom was asked for {subjects} training subjects, expected at least 2.")
    size = checked_size(size, spacing_mm)
    spacing = default_spacing_mm(size) if spacing_mm is None else float(spacing_mm)
    out = Path(out_dir)
    items = []
    for index in range(subjects + 2 * (validation_pairs + testing_pairs)):
        phantom = phantom_subject(1000 * seed + index, size, spacing)
        item = {"image": f"images/phantom_{index:03d}.nii.gz", "label": f"labels/phantom_{index:03d}.nii.gz"}
        write_nifti(out / item["image"], phantom.image[0].round().to(torch.int16).numpy(), phantom.affine)
        write_nifti(out / item["label"], phantom.label[0].numpy(), phantom.affine)
        items.append(item)
    pairs = [pair_item(*items[start : start + 2]) for start in range(subjects, len(items), 2)]
    datalist = {
        "name": "phantom",
        "modality": "synthetic T1-weighted MR",
        "orientation": "LIA" if len(size) == 3 else "LA",
        "spacing_mm": [spacing] * len(size),
        "size": list(size),
        "seed": seed,
        "licence": "Apache-2.0 (synthetic, made by common/phantom.py)",
        "labels": {str(value): name for value, name in LABELS.items()},
        "training": items[:subjects],
        "validation": pairs[:validation_pairs],
        "testing": pairs[validation_pairs:],
    }
    path = out / "datalist.json"
    save_atomically(lambda temporary: temporary.write_text(json.dumps(datalist, indent=2) + "\n"), path)
    return path


def ensure_phantom(
    dataset_dir: str | Path,
    subjects: int = 8,
    size: Sequence[int] = (64, 64, 64),
    spacing_mm: float | None = None,
    seed: int = 0,
    validation_pairs: int = 2,
    testing_pairs: int = 2,
) -> str:
    """``dataset_dir``, filled by :func:`write_phantom` unless it has a ``datalist.json`` already.

    The data are made in a temporary folder beside it and renamed, so a killed process leaves no half a data set and
    several processes (torchrun) may call this at once: the first to finish wins and the others use its files.

    Args:
        dataset_dir: the folder; the other arguments are those of :func:`write_phantom`.

    Raises:
        RegInputError: if the folder holds something else, or a phantom made with other arguments.
        RegEnvError: if it cannot be written.
    """
    target = Path(dataset_dir).absolute()
    if not (target / "datalist.json").is_file():
        if target.is_dir() and any(target.iterdir()):
            raise RegInputError(
                f"{target} has files but no datalist.json; name an empty or new folder for the phantom."
            )
        with temporary_folder(target) as temporary:
            write_phantom(temporary, subjects, size, spacing_mm, seed, validation_pairs, testing_pairs)
            try:
                temporary.rename(target)
            except OSError:
                if not (target / "datalist.json").is_file():  # else another process has put its files there
                    raise
    check_made_with(target, [int(n) for n in size], seed, [subjects, validation_pairs, testing_pairs])
    return str(target)


def check_made_with(folder: Path, size: list[int], seed: int, counts: list[int]) -> None:
    """Raise RegInputError if ``folder`` holds a phantom of another size, seed or number of items.

    A data set of another name is the user's own and passes.
    """
    found = json.loads((folder / "datalist.json").read_text(encoding="utf-8-sig"))
    if found.get("name") != "phantom":
        return
    there = (found.get("size"), found.get("seed"), [len(found.get(s, [])) for s in SECTIONS])
    if there != (size, seed, counts):
        raise RegInputError(
            f"{folder} holds a phantom of size, seed and numbers of training, validation and testing items {there}, "
            f"expected {(size, seed, counts)}; remove that folder or name another."
        )


def pair_item(fixed: dict[str, str], moving: dict[str, str]) -> dict[str, str]:
    """Two subjects of a datalist as one pair of it."""
    return {
        "fixed": fixed["image"],
        "moving": moving["image"],
        "fixed_label": fixed["label"],
        "moving_label": moving["label"],
    }


def write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a gzip NIfTI whose bytes depend on ``voxels`` and ``affine`` alone."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    # mtime 0: the time of day would make every run's bytes new. Level 4: half the time of 9 for 2 % more bytes
    content = gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)
    save_atomically(lambda temporary: temporary.write_bytes(content), path)


def default_spacing_mm(size: Sequence[int]) -> float:
    """The smallest isotropic voxel size in mm, in steps of 0.01, with which the head fits ``size``."""
    extents = [EXTENT_MM[axis] for axis in ("LIA" if len(size) == 3 else "LA")]
    return float(np.ceil(100 * max(extent / n for extent, n in zip(extents, size, strict=True))) / 100)


def phantom_affine(size: Sequence[int], spacing_mm: float) -> np.ndarray:
    """Voxel -> RAS mm, 4x4, of a grid with axes L, I, A (or L, A) whose center is the origin of the anatomy."""
    columns = {"L": (-1, 0, 0), "I": (0, 0, -1), "A": (0, 1, 0), "S": (0, 0, 1)}
    affine = np.eye(4)
    for axis, code in enumerate("LIA" if len(size) == 3 else "LAS"):
        affine[:3, axis] = np.array(columns[code]) * spacing_mm
    center = (np.array([*size, 1][:3]) - 1) / 2
    affine[:3, 3] = -affine[:3, :3] @ center
    if len(size) == 2:
        affine[2, 3] = SLICE_Z_MM
    return affine


def checked_size(size: Sequence[int], spacing_mm: float | None) -> tuple[int, ...]:
    """``size`` as a tuple, or RegInputError."""
    size = tuple(int(n) for n in size)
    if len(size) not in (2, 3) or min(size) < 16:
        raise RegInputError(f"the phantom's size is {list(size)}, expected two or three axes of at least 16 voxels.")
    if spacing_mm is not None and spacing_mm < default_spacing_mm(size) - 0.01:
        raise RegInputError(
            f"a head does not fit a grid of {list(size)} voxels of {spacing_mm} mm; "
            f"use {default_spacing_mm(size)} mm or more voxels."
        )
    return size


def points_mm(ddf: Tensor, spacing_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RAS coordinates in mm, three float32 arrays of shape S, of every voxel displaced by ``ddf`` (1, N, *S)."""
    size = ddf.shape[2:]
    index = np.meshgrid(*[np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in size], indexing="ij", copy=False)
    moved = [np.float32(spacing_mm) * (i + u) for i, u in zip(index, ddf[0].numpy(), strict=True)]
    if len(size) == 2:
        return -moved[0], moved[1], np.full(size, SLICE_Z_MM, dtype=np.float32)
    return -moved[0], moved[2], -moved[1]


def smooth_noise(rng: np.random.Generator, size: tuple[int, ...], band: tuple[float, float], zero_border: bool):
    """A random field of unit RMS, made of (co)sines, so it is the same field at every ``size``.

    Args:
        rng: source of the coefficients.
        size: voxels per axis.
        band: half waves per field of view where the spectrum has fallen to exp(-1/2), and where it is cut.
        zero_border: sines, which vanish on the border of the grid, instead of cosines.

    Returns:
        float32 array of shape ``size``.
    """
    width, modes = band[0], np.arange(0 if not zero_border else 1, int(band[1]) + 1)
    frequency = np.sqrt(sum(k**2 for k in np.meshgrid(*[modes] * len(size), indexing="ij")))
    field = rng.standard_normal(frequency.shape) * np.exp(-0.5 * (frequency / width) ** 2) * (frequency <= band[1])
    field /= np.sqrt((field**2).sum() / 2 ** len(size))  # the mean square of a product of N (co)sines is 2^-N
    for n in size:  # contract the first axis, append the new one: after N turns the order is back
        phase = np.pi * np.outer(np.linspace(0, 1, n), modes)
        field = np.tensordot(field, np.sin(phase) if zero_border else np.cos(phase), axes=(0, 1))
    return field.astype(np.float32)


def paint(points, spacing_mm: float, contrast: dict[str, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (uint8), signal and brain mask at ``points``, later structures of :func:`anatomy` over earlier ones.

    The signal is blended over one voxel at each surface (partial volume); the labels are not.
    """
    levels = anatomy(points)
    right = points[0] > 0
    mask = levels[0][3] > 0
    label, signal = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, np.float32)
    for tissue, left_value, right_value, depth in levels:
        share = np.clip(depth / np.float32(spacing_mm) + 0.5, 0, 1)
        signal += share * (contrast[tissue] - signal)
        label = np.where(depth > 0, np.where(right, right_value, left_value), label).astype(np.uint8)
    return label, signal, mask


def acquire(signal: np.ndarray, mask: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A skull-stripped magnitude image (float32, white matter near 700) of a signal whose white matter is near 1."""
    blurred = gaussian_filter(signal, 0.45)  # voxels: the point spread of an acquisition
    real, imaginary = noise * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    return (700 * np.hypot(blurred + real, imaginary) * mask).astype(np.float32)
