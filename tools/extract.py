"""`regbundles extract`: the brain out of the scan of a whole head, by a template that the user names."""

from pathlib import Path

import nibabel as nib
import numpy as np

from common.brain import LEVELS, extract_brain
from common.errors import RegInputError
from common.files import save_atomically
from common.preflight import check_image, check_label
from common.progress import step_bar
from common.volumes import open_volume, read_voxels, save_as

from .transforms import check_out

__all__ = ["extract"]

NIFTI = (".nii", ".nii.gz")


def extract(
    image: Path,
    template: Path,
    template_mask: Path,
    out: Path,
    *,
    mask_out: Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> None:
    """Write a scan with 0 outside of the brain, in its own data type, and the mask where it is asked for.

    Args:
        image: scan of a head, of any format that ``common.volumes`` reads.
        template: a head with its skull, of a like contrast.
        template_mask: the template's brain, on its grid.
        out: .nii or .nii.gz.
        mask_out: the same, for the mask.
        force: replace files that are there.
        quiet: draw no bar.

    Raises:
        RegInputError: if a file cannot be used or is there already.
        RegNumericsError: if the template cannot be aligned.
        RegEnvError: if a file cannot be written.
    """
    if mask_out is not None and mask_out.absolute() == out.absolute():
        raise RegInputError(f"brain and mask would both be {out}, expected two files; rename one.")
    for path in (out, mask_out):
        if path is not None:
            check_out(path, NIFTI, force)
    scan, head = check_image(image, 3), check_image(template, 3)
    brain = check_label(template_mask, head)
    with step_bar("brain", sum(steps for _, _, steps in LEVELS), not quiet) as report:
        mask = extract_brain((scan.voxels, scan.affine), (head.voxels, head.affine), brain.voxels, report=report)
    if mask_out is not None:
        as_file = nib.Nifti1Image(mask.astype(np.uint8), scan.affine)
        save_atomically(lambda temporary: nib.save(as_file, temporary), mask_out)
    like = open_volume(image)
    brain_alone = np.where(mask, read_voxels(like), 0)
    save_atomically(lambda path: save_as(like, brain_alone, scan.affine, path), out)
