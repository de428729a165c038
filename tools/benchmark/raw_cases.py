"""The pairs of raw scans on which `regbundles benchmark raw` runs `regbundles register`, and how each is scored."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from common.errors import RegInputError

from .thick_phantom import PLANES, Scan, deformed_pair, errors_mm, write_cubes, write_thick

__all__ = ["CASES", "Case", "find_cases"]

LUNGS = ("baseline", "followup")
FIXED_BRAIN, TEMPLATE_BRAIN, ICBM = "1000", "1001", ("t1", "wm", "gm")
OVERLAY = ("--overlay", "thick_slices")
DEGREES, AXIS = 40.0, (1, 2, 3)
# MALC's numbers, by the classes of its label table; cerebral exterior, lesions, vessels and the tablet are none of them
WHITE = (35, 40, 41, 44, 45, 61, 62, 69)
NEITHER = (0, 1, 4, 11, 15, 42, 43, 46, *range(49, 55), 63, 64, 74)


class Case(NamedTuple):
    """A pair for the command.

    Attributes:
        fixed: image.
        moving: image.
        flags: what the command is told besides: labels to score by, an overlay.
        errors: from the written displacement field, mean errors in mm before and after; None if no truth is known.
    """

    fixed: Path
    moving: Path
    flags: tuple[str, ...] = ()
    errors: Callable[[Path], tuple[float, float]] | None = None


def find_cases(data: Path, work: Path, names: Sequence[str]) -> dict[str, Case]:
    """Make what the named cases need.

    Args:
        data: folder of ``lung_ct``, ``malc`` and ``mni152``, of which each case reads its own.
        work: existing folder for scans that are made: turned ones, phantoms, merged labels.
        names: of ``CASES``.

    Raises:
        RegInputError: for another name, or a scan that is missing.
    """
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        raise RegInputError(f"there is no case '{unknown[0]}', expected some of {', '.join(CASES)}; correct it.")
    return {name: CASES[name](data, work) for name in names}


def lung(data: Path, work: Path) -> Case:
    """One patient's chest twice, scored by the lung masks."""
    folder = data / "lung_ct"
    return scored(*(existing(folder / f"{scan}{part}.mha") for part in ("", "_mask") for scan in LUNGS))


def brains(moving: str, data: Path, work: Path, turn: Callable | None = None) -> Case:
    """Two of MALC's in their native spaces, scored by all labels of the fixed one."""
    folder = data / "malc"
    paths = [existing(folder / f"{scan}_{kind}.nii.gz") for kind in ("SS", "glm") for scan in (FIXED_BRAIN, moving)]
    if turn is not None:
        paths[1::2] = turn(paths[1::2], work)
    return scored(*paths)


def thick_brains(flags: tuple[str, ...], data: Path, work: Path) -> Case:
    """As :func:`brains`, the fixed one in slices of five planes, scored by the labels of their middle planes."""
    case = brains("1001", data, work)
    image, label = (nib.load(path) for path in (case.fixed, case.flags[1]))
    count = image.shape[2] // PLANES
    slices = [
        np.asarray(one.dataobj)[..., : PLANES * count].reshape(*image.shape[:2], count, PLANES)
        for one in (image, label)
    ]
    affine = image.affine @ np.diag([1.0, 1, PLANES, 1])
    affine[:3, 3] = (image.affine @ [0, 0, (PLANES - 1) / 2, 1])[:3]
    fixed = save(slices[0].mean(axis=3).round().astype(np.int16), affine, work / "thick_brain.nii.gz")
    fixed_label = save(slices[1][..., PLANES // 2], affine, work / "thick_brain_label.nii.gz")
    thick = scored(fixed, case.moving, fixed_label, Path(case.flags[3]))
    return thick._replace(flags=thick.flags + flags)


def template(data: Path, work: Path) -> Case:
    """One of MALC's onto the ICBM 152 brain, scored by white and gray matter."""
    t1, white, gray = (
        existing(data / "mni152" / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ICBM
    )
    image, label = (existing(data / "malc" / f"{TEMPLATE_BRAIN}_{kind}.nii.gz") for kind in ("SS", "glm"))
    maps = nib.load(white), nib.load(gray)
    tissues = tissues_of_shares(*(m.get_fdata(dtype=np.float32) for m in maps))
    fixed_label = save(tissues, maps[0].affine, work / "icbm152_tissues.nii.gz")
    numbers = nib.load(label)
    merged = tissues_of_numbers(np.asarray(numbers.dataobj))
    return scored(t1, image, fixed_label, save(merged, numbers.affine, work / f"{TEMPLATE_BRAIN}_tissues.nii.gz"))


def thick_slices(thick: str, flags: tuple[str, ...], data: Path, work: Path) -> Case:
    """A phantom after a known deformation: one of the two in thick slices, the other in cubes."""
    writers = {"fixed": (write_thick, write_cubes), "moving": (write_cubes, write_thick)}[thick]
    pair = phantom()
    names = (work / f"thick_{thick}_{role}.nii.gz" for role in ("fixed", "moving"))
    paths = [write(scan, path) for write, scan, path in zip(writers, pair, names, strict=True)]
    return Case(*paths, flags, partial(errors_mm, pair[0]))


@cache
def phantom() -> tuple[Scan, Scan]:
    """The pair that all cases with thick slices share."""
    return deformed_pair()


def scored(fixed: Path, moving: Path, fixed_label: Path, moving_label: Path) -> Case:
    """A case with labels."""
    return Case(fixed, moving, ("--fixed-label", str(fixed_label), "--moving-label", str(moving_label)))


def existing(path: Path) -> Path:
    """The path of a file that is there."""
    if not path.is_file():
        raise RegInputError(f"{path} is missing, expected the scans of this benchmark; name their folder.")
    return path


def turned_header(paths: Sequence[Path], work: Path) -> list[Path]:
    """Copies whose voxels are the same and whose affine is turned."""
    images = [nib.load(path) for path in paths]
    turn = np.eye(4)
    turn[:3, :3] = rotation()
    targets = [work / f"turned_header_{path.name}" for path in paths]
    return [
        save(np.asarray(image.dataobj), turn @ image.affine, path) for image, path in zip(images, targets, strict=True)
    ]


def turned_voxels(paths: Sequence[Path], work: Path) -> list[Path]:
    """An image and its labels turned about the center of a grid that holds them whole, whose affine is the same."""
    targets = []
    for path, order in zip(paths, (1, 0), strict=True):
        image = nib.load(path)
        voxels, size = np.asarray(image.dataobj), np.full(3, int(np.ceil(np.linalg.norm(image.shape))))
        onto = rotation().T  # turned grid -> own voxels
        shift = (np.array(voxels.shape) - 1) / 2 - onto @ ((size - 1) / 2)
        turned = affine_transform(voxels, onto, shift, tuple(size), order=order)
        targets.append(save(turned, image.affine, work / f"turned_voxels_{path.name}"))
    return targets


def rotation() -> np.ndarray:
    """40 degrees about an oblique axis."""
    return Rotation.from_rotvec(np.radians(DEGREES) * np.array(AXIS) / np.linalg.norm(AXIS)).as_matrix()


def tissues_of_shares(white: np.ndarray, gray: np.ndarray) -> np.ndarray:
    """1 where white matter has more than half of a voxel, 2 where gray matter has; shares to 255."""
    return np.where(white > 127.5, 1, np.where(gray > 127.5, 2, 0)).astype(np.uint8)


def tissues_of_numbers(label: np.ndarray) -> np.ndarray:
    """1 for white matter, 2 for gray matter of MALC's labels."""
    return np.where(np.isin(label, WHITE), 1, np.where(np.isin(label, NEITHER), 0, 2)).astype(np.uint8)


def save(voxels: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    """A NIfTI file with its place stated in both ways."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


CASES: Mapping[str, Callable[[Path, Path], Case]] = {
    "lung": lung,
    "brains-1001": partial(brains, "1001"),
    "brains-1002": partial(brains, "1002"),
    "brains-1002-turned-header": partial(brains, "1002", turn=turned_header),
    "brains-1002-turned-voxels": partial(brains, "1002", turn=turned_voxels),
    "brains-1001-thick": partial(thick_brains, ()),
    "brains-1001-thick-overlay": partial(thick_brains, OVERLAY),
    "icbm152": template,
    "thick-fixed": partial(thick_slices, "fixed", ()),
    "thick-moving": partial(thick_slices, "moving", ()),
    "thick-fixed-overlay": partial(thick_slices, "fixed", OVERLAY),
    "thick-moving-overlay": partial(thick_slices, "moving", OVERLAY),
}
