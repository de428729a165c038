"""A folder of studies to try the server on: phantoms, some with an approved label, the others waiting for one."""

import shutil
import tempfile
from pathlib import Path

from common.errors import RegInputError
from common.files import whole_folder
from common.phantom import write_phantom

__all__ = ["TRUTH", "write_demonstration"]

TRUTH = "truth"  # beside the studies: what the viewer should find
SEED = 1  # subjects 1000 and on: the bundles train on 0 and on


def write_demonstration(
    out: Path, labelled: int = 4, unlabelled: int = 2, size: tuple[int, int, int] = (48, 48, 60)
) -> Path:
    """Write ``out/studies`` and, for the unlabelled ones, ``out/truth``; a folder that is there stays as it is.

    Args:
        out: folder to fill.
        labelled: how many studies have a label, in ``studies/labels/final``.
        unlabelled: how many wait for one.
        size: voxels along L, I, A.

    Returns:
        The studies folder.

    Raises:
        RegInputError: if ``out`` holds something else.
    """
    studies = out / "studies"
    if studies.is_dir():
        return studies
    if out.is_dir() and any(out.iterdir()):
        raise RegInputError(f"{out} holds something else, expected an empty or new folder; name another.")
    with whole_folder(out) as new, tempfile.TemporaryDirectory() as work:
        write_phantom(work, labelled + unlabelled, size, seed=SEED, validation_pairs=0, testing_pairs=0)
        places = (new / "studies", new / "studies" / "labels" / "final", new / TRUTH)
        for place in places:
            place.mkdir(parents=True)
        for k, image in enumerate(sorted(Path(work, "images").iterdir())):
            shutil.copyfile(image, places[0] / image.name)
            shutil.copyfile(Path(work, "labels", image.name), places[1 if k < labelled else 2] / image.name)
    return studies
