"""How the libraries alone meet a bad or an odd input: what somebody without us would call, on the same files."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import load_decathlon_datalist
from monai.losses import LocalNormalizedCrossCorrelationLoss
from monai.transforms import LoadImage

from common.preflight import check_image

from .bad_case import Bad, Good
from .bad_files import without_root
from .study import Study

__all__ = ["is_asked", "right_alone"]

MEMORY = 6 << 30  # bytes above what the process has; a bomb that fits there is read to its end
PATIENCE_S = 60
LOSS_ATOL = 0.05  # one voxel of metal changes the true value by 0.035
RANGE = (-1.001, 0.001)  # of a squared correlation, negative


def is_asked(case: Bad | Good) -> bool:
    """Whether the libraries have something that has to bear it."""
    return case.alone or case.row in OTHERWISE


def right_alone(case: Bad | Good, new: Callable[[], Study]) -> bool:
    """Whether they refuse a bad input, or make of an odd one what they make of its plain twin."""
    if case.row in OTHERWISE:
        odd, plain = new(), new()
        case.make(odd)
        case.plain(plain)
        return OTHERWISE[case.row](odd, plain)
    study = new()
    case.make(study)
    process = multiprocessing.get_context("fork").Process(target=read, args=(case, study.subject["image"]))
    process.start()
    process.join(PATIENCE_S)
    process.kill()
    process.join()
    return process.exitcode == 0


def read(case: Bad | Good, path: Path) -> None:
    """In a process of its own: end with status 0 if an image is met as it should be."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    torch.set_num_threads(1)  # a fork has no other
    sys.exit(0 if is_read_right(case, path) else 1)


def is_read_right(case: Bad | Good, path: Path) -> bool:
    """Whether MONAI's LoadImage refuses a bad image, or reads an odd one's voxels and affine; axes of 1 may stay."""
    try:
        with without_root():
            image = LoadImage(image_only=True)(path)
    except (Exception, MemoryError):
        return isinstance(case, Bad)
    if isinstance(case, Bad):
        return False
    ours = check_image(path)
    return np.array_equal(image.numpy().squeeze(), ours.voxels) and np.allclose(image.affine, ours.affine)


def same_loss(odd: Study, plain: Study) -> bool:
    """Whether MONAI's LNCC of both scans, which linear maps of their values do not change, is the plain twin's."""
    found, expected = loss(odd), loss(plain)
    return RANGE[0] <= found <= RANGE[1] and abs(found - expected) <= LOSS_ATOL


def loss(study: Study) -> float:
    """LNCC of both scans by MONAI, in its own sign, over the window that registration networks are trained with."""
    scans = [nib.load(files["image"]).get_fdata(dtype=np.float32) for files in (study.other, study.subject)]
    return float(LocalNormalizedCrossCorrelationLoss(kernel_size=9)(*(torch.from_numpy(s)[None, None] for s in scans)))


def same_list(odd: Study, plain: Study) -> bool:
    """Whether MONAI reads as many items of a datalist, with the same keys."""
    found = []
    for study in (odd, plain):
        study.write_lists(training=True)
        try:
            items = load_decathlon_datalist(study.data / "datalist.json", is_segmentation=False)
        except Exception:
            return False
        found.append([sorted(item) for item in items])
    return found[0] == found[1]


OTHERWISE = {21: same_list, 40: same_loss, 41: same_loss, 42: same_loss}
"""Rows that are not about reading an image, by what is asked instead, of an odd study and its plain twin."""
