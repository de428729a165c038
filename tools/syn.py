"""SyN, the classical baseline, through antspyx: symmetric diffeomorphic registration by cross-correlation.

Parameters are those of the deformable stage of ANTs' ``antsRegistrationSyN.sh``. No affine stage: prepared data is
aligned, and every method starts from the same headers.
Source: Avants et al., Med. Image Anal. 2008, doi:10.1016/j.media.2007.06.004; repository ANTsX/ANTsPy.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from common.errors import RegEnvError, RegNumericsError
from common.map_files import read_transform

from .peers import register_pairs
from .predictions import Folder, Pair

__all__ = ["PARAMETERS", "SyN"]

PARAMETERS = {
    "type_of_transform": "SyNOnly",  # deformable stage alone
    "initial_transform": "Identity",
    "syn_metric": "CC",
    "syn_sampling": 4,  # radius in voxels: windows of 9
    "grad_step": 0.1,
    "flow_sigma": 3,  # voxels^2 of variance; smooths the update
    "total_sigma": 0,
    "reg_iterations": (100, 70, 50, 20),  # at 1/8, 1/4, 1/2 and full resolution, smoothed by 3, 2, 1 and 0 voxels
}


class SyN:
    """ANTs' SyN of every pair, one process, threads by ``ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS``."""

    def check(self) -> None:
        """Raise RegEnvError without antspyx."""
        load_ants()

    def run(self, pairs: Sequence[Pair], out: Path) -> Folder:
        """Register every pair into ``out`` in inference's layout, ``metrics.csv`` with the seconds of each last.

        Raises:
            RegEnvError: without antspyx, or if ``out`` cannot be written.
            RegNumericsError: if ANTs returns no displacement field.
        """
        ants = load_ants()
        return register_pairs(pairs, out, lambda pair, work: register(ants, pair, work))


def load_ants() -> ModuleType:
    """The package ``ants``."""
    try:
        import ants
    except ImportError as error:
        raise RegEnvError(
            f"SyN needs antspyx, which cannot be imported ({error}); install it with `pip install antspyx`."
        ) from error
    return ants


def register(ants: ModuleType, pair: Pair, work: Path) -> tuple[str, float]:
    """Register one pair; the field's file in ``work``, and the seconds."""
    images = [ants.image_read(str(path)) for path in (pair.fixed, pair.moving)]
    started = time.perf_counter()
    result = ants.registration(*images, outprefix=f"{work}/", **PARAMETERS)
    seconds = time.perf_counter() - started
    return the_field(result["fwdtransforms"], pair), seconds


def the_field(files: Sequence[str], pair: Pair) -> str:
    """The displacement field of a transform; beside it ANTs writes the affine that it was told, the identity."""
    field, *affines = files or [""]
    if not field.endswith("Warp.nii.gz") or not all(is_identity(path) for path in affines):
        raise RegNumericsError(
            f"SyN of {pair.name} returned {[Path(file).name for file in files]}, expected a displacement field and at "
            "most identities; look at the images."
        )
    return field


def is_identity(path: str) -> bool:
    """Whether a transform file leaves every point where it is."""
    matrix = read_transform(path).matrix
    return matrix is not None and np.allclose(matrix, np.eye(len(matrix)), atol=1e-6)
