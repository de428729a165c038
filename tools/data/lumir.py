"""LUMIR (Learn2Reg 2024): thousands of unlabelled T1-weighted brains; ten labelled ones to validate on, as EOIR did.

Source:  https://github.com/JHU-MedImage-Reg/LUMIR_L2R (images and LUMIR_dataset.json on Google Drive, about 52 GB)
License: CC BY 4.0. Scans from OpenBHB, AFIDs and OASIS.
Usage:   regbundles data prepare lumir --raw /data/raw/LUMIR --out /data/lumir

Scans stay on their grid, 160 x 224 x 192 voxels of 1 mm, with values in [0, 255]; bundles/eoir/configs/lumir.json maps
these to [0, 1]. Training: the scans of the json without the ten (3364 to 3373) that came with labels for a sanity
check. Validation: all 90 ordered pairs of those ten. Testing: the challenge's 38 pairs to validate on, without labels.
"""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

from common.errors import RegInputError

from .challenge import HERING, write_dataset
from .challenge_layout import Challenge, name_of, read_challenge
from .source import RemoteFile, Source

__all__ = ["SOURCES", "prepare"]

LICENSE = "CC BY 4.0; scans from OpenBHB, AFIDs and OASIS"
LABELS_FOLDER = "SanityCheckLabelsTr"
INTENSITY = "as the archive stores it, [0, 255]"


def prepare(raw: str, out: str, workers: int | None = None, force: bool = False) -> Path:
    """Prepare the scans of the archive; a second run writes the same bytes.

    Args:
        raw: folder with ``LUMIR_dataset.json``, ``imagesTr/``, ``imagesVal/`` and ``SanityCheckLabelsTr/``.
        out: folder to fill, see :func:`tools.data.challenge.prepare`.
        workers: processes; by default one a processor.
        force: prepare again what is finished.

    Returns:
        The path of ``datalist.json``.

    Raises:
        RegInputError: before any work, with every finding about the archive.
    """
    challenge = split(read_challenge(Path(raw), "LUMIR*"))
    header = {"intensity": INTENSITY, "licence": challenge.licence or LICENSE}
    return write_dataset(challenge, Path(out), header=header, workers=workers, force=force)


def split(challenge: Challenge) -> Challenge:
    """Labelled scans to validate on, the others to train on, the challenge's pairs to test on.

    Args:
        challenge: the challenge's own lists, or EOIR's of the same data, where the ten are listed with labels.

    Raises:
        RegInputError: if no two scans have labels.
    """
    folder = challenge.root / LABELS_FOLDER
    labels = {name_of(str(path)): path for path in sorted(folder.glob("*.nii.gz"))}
    scans = {name: replace(s, label=s.label or labels.get(name)) for name, s in challenge.scans.items()}
    labelled = sorted(name for name, scan in scans.items() if scan.label)
    if len(labelled) < 2:
        raise RegInputError(
            f"{folder} holds labels of {len(labelled)} scans of {challenge.name}, expected those of 3364 to 3373; "
            f"unpack the archive's {LABELS_FOLDER} there."
        )
    return replace(
        challenge,
        scans=scans,
        training=tuple(name for name in challenge.training if scans[name].label is None),
        validation=tuple(permutations(labelled, 2)),
        testing=challenge.validation + challenge.testing,
    )


SOURCES = (
    Source(
        name="lumir",
        title="LUMIR 2024: 3384 brains to train on, 10 of them labelled, 38 pairs to validate on",
        license=LICENSE,
        citation="Dufumier, B. et al. 2022 (OpenBHB), doi:10.1016/j.neuroimage.2022.119637; Taha, A. et al. 2023 "
        "(AFIDs), doi:10.1038/s41597-023-02330-9; Marcus, D. S. et al. 2007, doi:10.1162/jocn.2007.19.9.1498; "
        f"{HERING}",
        page="https://github.com/JHU-MedImage-Reg/LUMIR_L2R",
        terms="CC BY 4.0: cite all; nothing to sign. About 52 GB from Google Drive",
        files=(
            RemoteFile("LUMIR.zip", "drive:1PTHAX9hZX7HBXXUGVvI1ar1LUf4aVbq9"),
            RemoteFile("LUMIR_dataset.json", "drive:1b0hyH7ggjCysJG-VGvo38XVE8bFVRMxb"),
        ),
        prepare=prepare,
        about="52 GB",
    ),
)
