"""Learn2Reg AbdomenCTCT: 30 labelled abdomens, as the challenge pairs them or as EOIR's paper splits and halves them.

Source:  https://learn2reg.grand-challenge.org/Datasets (AbdomenCTCT)
License: the challenge's json names it and the datalist repeats it: read it before use.
Usage:   regbundles data prepare abdomen-ct --raw /data/raw/AbdomenCTCT --out /data/abdomen_ct --protocol eoir

Protocol "challenge": 192 x 160 x 256 voxels of 2 mm as stored, the archive's own 45 pairs to validate on, the scans
that are in none of them to train on. Protocol "eoir" (Chen et al., arXiv:2509.00451): scans 1-20 to train on, all
ordered pairs of 21-23 to validate and of 24-30 to test on; Hounsfield units clipped to [-500, 800], then every axis
halved from corner to corner, image by quadratic splines and labels by nearest neighbor: 96 x 80 x 128 voxels of 4 mm
(4.02 by the corners, which the headers state). Values stay in HU: bundles/eoir/configs/abdomen_ct.json maps the window
to [0, 1].
"""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import zoom

from common.errors import RegInputError
from common.intensity import check_hounsfield
from common.preflight import Volume, refuse

from .challenge import HERING, PAGE, read_scan, report_row, save_parts, write_dataset
from .challenge_layout import Challenge, read_challenge
from .files import save_nifti
from .prepared import Job
from .source import RemoteFile, Source

__all__ = ["PROTOCOLS", "SOURCES", "prepare"]

PROTOCOLS = ("challenge", "eoir")
NAME = "AbdomenCTCT"
RECIPE = {"recipe": 1, "protocol": "eoir"}  # recipe goes up when the same input would give other voxels
WINDOW = (-500.0, 800.0)  # HU
SPLIT = {"training": range(1, 21), "validation": range(21, 24), "testing": range(24, 31)}
FACTOR = 0.5
INTENSITY = "Hounsfield units clipped to [-500, 800]"


def prepare(raw: str, out: str, protocol: str = "eoir", workers: int | None = None, force: bool = False) -> Path:
    """Prepare the scans that the protocol uses; a second run writes the same bytes.

    Args:
        raw: folder of the unpacked archive, ``AbdomenCTCT_dataset.json`` at any depth.
        out: folder to fill, see :func:`tools.data.challenge.prepare`.
        protocol: "challenge" or "eoir", see above.
        workers: processes; by default one a processor.
        force: prepare again what is finished.

    Returns:
        The path of ``datalist.json``.

    Raises:
        RegInputError: before any work, with every finding about the archive.
    """
    if protocol not in PROTOCOLS:
        raise RegInputError(f"protocol is '{protocol}', expected one of {', '.join(PROTOCOLS)}; choose one.")
    challenge = read_challenge(Path(raw), NAME)
    if protocol == "challenge":
        return write_dataset(challenge, Path(out), workers=workers, force=force)
    return write_dataset(
        split(challenge),
        Path(out),
        make=halve_scan,
        check=check_window,
        recipe=RECIPE,
        header={"intensity": INTENSITY},
        parts=("label",),
        workers=workers,
        force=force,
    )


def split(challenge: Challenge) -> Challenge:
    """The paper's split of the labelled scans.

    Raises:
        RegInputError: naming every scan of the split that the archive lacks or has no labels for.
    """
    names = {part: [f"{NAME}_{number:04}_0000" for number in numbers] for part, numbers in SPLIT.items()}
    members = [name for part in names.values() for name in part]
    refuse(
        [
            f"{challenge.name} has no labelled scan {name}, expected all of 1 to 30; fetch the archive again."
            for name in members
            if name not in challenge.scans or challenge.scans[name].label is None
        ]
    )
    return replace(
        challenge,
        scans={name: challenge.scans[name] for name in members},
        training=tuple(names["training"]),
        training_pairs=(),
        validation=tuple(permutations(names["validation"], 2)),
        testing=tuple(permutations(names["testing"], 2)),
        hidden=0,
    )


def check_window(image: Volume) -> None:
    """Refuse a scan that is not in Hounsfield units, over which the window would mean nothing."""
    check_hounsfield(image.voxels, str(image.path))


def halve_scan(job: Job) -> dict[str, Any]:
    """Write one scan and its labels at half the resolution; return its row of the report."""
    image, label, mask = read_scan(job.raw)
    small = halve(image, order=2, voxels=np.clip(image.voxels, *WINDOW))
    save_nifti(np.clip(small.voxels, *WINDOW), small.affine, job.output("image"))
    label = label and halve(label, order=0, voxels=label.voxels)
    save_parts(job, label, None)
    return report_row(job, image, label, mask)


def halve(volume: Volume, order: int, voxels: np.ndarray) -> Volume:
    """``voxels`` on half as many of each axis, the corners' centers where they were."""
    small = zoom(voxels, FACTOR, order=order)
    scale = (np.array(voxels.shape) - 1) / (np.array(small.shape) - 1)
    return Volume(volume.path, small, volume.affine @ np.diag([*scale, 1]))


SOURCES = (
    Source(
        name="abdomen-ct",
        title="Learn2Reg AbdomenCTCT: 30 labelled abdomens, 13 organs, 192 x 160 x 256 at 2 mm",
        license="see the challenge's page and the archive's json",
        citation=f"Xu, Z. et al. 2016, doi:10.1109/TBME.2016.2574816; {HERING}",
        page=PAGE,
        terms="Read the license on the challenge's page; nothing to sign",
        files=(
            RemoteFile(
                "AbdomenCTCT.zip", "https://cloud.imi.uni-luebeck.de/s/32WaSRaTnFk2JeT/download/AbdomenCTCT.zip"
            ),
        ),
        prepare=prepare,
    ),
)
