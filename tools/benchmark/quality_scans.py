"""The scans on which the self-check is calibrated and tested, in two halves that have no subject in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from common.errors import RegInputError
from common.phantom import phantom_subject
from common.volumes import open_volume

__all__ = ["HALVES", "Scan", "gather_scans"]

HALVES = ("calibration", "held-out")
NATIVE_STRIDE = (3, 3, 3)  # to 3 mm; odd, so that the center of a block is a voxel, whose label is kept
PREPARED_STRIDE = (2, 2, 2)  # to 4 mm; the kept label lies off the center, by as much in every scan of the one grid
LIVER_STRIDE = (3, 3, 1)  # to about 4 mm
LUNG_STRIDE = (3, 3, 2)  # to 4 and 5 mm
PHANTOM_SIZE = (48, 48, 64)
PHANTOM_SEEDS = (range(6), range(100, 106))
LIVERS = (("19", ("cyc_1_6", "cyc_1_9")), ("26", ("cyc_1_6", "cyc_4_7")))  # subject, breathing states

Scans = dict[str, list["Scan"]]


class Scan(NamedTuple):
    """A scan and what its registration is judged by.

    Attributes:
        organ: what it shows.
        name: of the subject, or of its state.
        image: path.
        label: path of its label map, or None.
        points: path of its landmarks, or None.
    """

    organ: str
    name: str
    image: Path
    label: Path | None = None
    points: Path | None = None


def gather_scans(data: Path, malc: Path, work: Path) -> dict[str, Scans]:
    """The scans of each half by organ; what has to be made is written to ``work``, once.

    One patient's lungs and two brains of other scanners are held out: nothing like them is in the calibration half.

    Args:
        data: folder of ``malc``, ``hippocampus_mr``, ``liver_mr``, ``lung_ct`` and ``brain_pair``.
        malc: what ``regbundles data prepare malc --spacing 2`` left.
        work: folder for scans that are made.

    Raises:
        RegInputError: if a scan is missing.
    """
    found: dict[str, Scans] = {half: {} for half in HALVES}
    for organ, scans in (
        ("brain", prepared_brains(malc, work)),
        ("brain 2 mm", fine_brains(malc)),
        ("native brain", native_brains(data / "malc", work)),
        ("hippocampus", hippocampi(data / "hippocampus_mr")),
    ):
        middle = (len(scans) + 1) // 2
        found["calibration"][organ], found["held-out"][organ] = scans[:middle], scans[middle:]
    for half, seeds, liver in zip(HALVES, PHANTOM_SEEDS, LIVERS, strict=True):
        found[half]["phantom"] = [phantom(seed, work) for seed in seeds]
        found[half]["liver"] = livers(data / "liver_mr", *liver, work)
    found["held-out"]["lung"] = lungs(data / "lung_ct", work)
    found["held-out"]["other brain"] = other_brains(data / "brain_pair", work)
    return found


def prepared_brains(folder: Path, work: Path) -> list[Scan]:
    """MALC, affinely aligned, at 4 mm."""
    return [coarser(scan._replace(organ="brain"), PREPARED_STRIDE, work) for scan in fine_brains(folder)]


def fine_brains(folder: Path) -> list[Scan]:
    """MALC, affinely aligned, at 2 mm."""
    return [
        Scan("brain 2 mm", image.name.split(".")[0], image, present(folder / "labels" / image.name))
        for image in images_in(folder / "images", "*.nii.gz")
    ]


def native_brains(folder: Path, work: Path) -> list[Scan]:
    """MALC as scanned, at 3 mm: origins and orientations differ."""
    found = []
    for image in images_in(folder, "*_SS.nii.gz"):
        label = present(image.with_name(image.name.replace("_SS", "_glm")))
        found.append(coarser(Scan("native brain", image.name.split(".")[0], image, label), NATIVE_STRIDE, work))
    return found


def hippocampi(folder: Path) -> list[Scan]:
    """Small crops of different sizes."""
    return [
        Scan("hippocampus", image.name.split(".")[0], image, folder / image.name.replace("images", "labels"))
        for image in images_in(folder, "images_*.nii.gz")
    ]


def livers(folder: Path, subject: str, states: Sequence[str], work: Path) -> list[Scan]:
    """One subject breathing, with landmarks in the liver."""
    found = []
    for state in ("exhMaster", *states):
        file = "exhMaster_unmasked" if state == "exhMaster" else state
        image = present(folder / f"dataset{subject}_{file}.force_direction.mha")
        points = present(folder / f"dataset{subject}_{state}LMliver.vtk")
        found.append(coarser(Scan("liver", f"{subject}_{state}", image, points=points), LIVER_STRIDE, work))
    return found


def lungs(folder: Path, work: Path) -> list[Scan]:
    """One patient twice."""
    return [
        coarser(Scan("lung", name, present(folder / f"{name}.mha"), folder / f"{name}_mask.mha"), LUNG_STRIDE, work)
        for name in ("baseline", "followup")
    ]


def other_brains(folder: Path, work: Path) -> list[Scan]:
    """Two brains that are not of MALC, at 3 mm."""
    found = []
    for image in images_in(folder, "*_img.nii.gz"):
        label = present(image.with_name(image.name.replace("_img", "_seg")))
        found.append(coarser(Scan("other brain", image.name.split(".")[0], image, label), NATIVE_STRIDE, work))
    return found


def phantom(seed: int, work: Path) -> Scan:
    """A synthetic subject, written where it is not there yet."""
    scan = Scan("phantom", f"phantom{seed}", work / f"phantom{seed}.nii.gz", work / f"phantom{seed}_label.nii.gz")
    if not (scan.image.is_file() and scan.label.is_file()):
        subject = phantom_subject(seed, PHANTOM_SIZE)
        write(subject.image[0].numpy(), subject.affine, scan.image)
        write(subject.label[0].numpy(), subject.affine, scan.label)
    return scan


def coarser(scan: Scan, stride: Sequence[int], work: Path) -> Scan:
    """A scan of a lower resolution, blocks averaged and one label of each kept; written where it is not there yet."""
    folder = work / scan.organ.replace(" ", "-")
    image, label = folder / f"{scan.name}.nii.gz", folder / f"{scan.name}_label.nii.gz"
    for source, target, reduce in ((scan.image, image, averaged), (scan.label, label, one_of)):
        if source is not None and not target.is_file():
            volume = open_volume(present(source))
            voxels = np.asarray(volume.dataobj).reshape(volume.shape[:3])
            voxels = voxels[tuple(slice(n // step * step) for n, step in zip(voxels.shape, stride, strict=True))]
            onto = np.diag([*stride, 1.0])
            onto[:3, 3] = (np.array(stride) - 1) / 2
            write(reduce(voxels, stride), volume.affine @ onto, target)
    return scan._replace(image=image, label=None if scan.label is None else label)


def averaged(voxels: np.ndarray, stride: Sequence[int]) -> np.ndarray:
    """Means of blocks, float32."""
    shape = [part for n, step in zip(voxels.shape, stride, strict=True) for part in (n // step, step)]
    return voxels.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)


def one_of(voxels: np.ndarray, stride: Sequence[int]) -> np.ndarray:
    """The voxel at, or next to, the middle of each block."""
    return voxels[tuple(slice(step // 2, None, step) for step in stride)].astype(np.int16)


def images_in(folder: Path, pattern: str) -> list[Path]:
    """The files of a pattern, by name."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise RegInputError(f"{folder} has no {pattern}, expected the scans of this benchmark; name their folder.")
    return found


def present(path: Path) -> Path:
    """The path; RegInputError unless it is a file."""
    if not path.is_file():
        raise RegInputError(f"{path} is missing, expected the scans of this benchmark; name their folder.")
    return path


def write(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """A NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
