"""The scans of a BIDS data set, with the masks and segmentations that its derivatives hold of them.

Source: Brain Imaging Data Structure 1.10, derivatives of structural data (bids-specification.readthedocs.io).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import RegInputError
from common.naming import BidsName, bids_name
from common.preflight import refuse

from .scans import Scan, named

__all__ = ["find_bids", "is_bids"]

OF_A_DERIVATIVE = {"space", "res", "den", "desc", "atlas", "seg", "label"}  # what an image it was made from lacks
OWN_SPACES = ("orig", "individual")  # and the image's own suffix, T1w: its grid


def is_bids(folder: Path) -> bool:
    """Whether a folder holds ``sub-*`` with ``anat`` in it."""
    return any(anat_folders(folder))


def find_bids(folder: Path, suffix: str = "T1w", dseg: str | None = None) -> list[Scan]:
    """The images ``sub-*/[ses-*/]anat/*_<suffix>.nii[.gz]``, a subject and session after the other.

    Labels are the ``*_dseg`` and brain masks the ``*_desc-brain_mask`` files anywhere below ``derivatives`` that are in
    the image's own space and whose entities (subject, session, run and so on) are the image's; where several are, those
    that share most of them.

    Args:
        folder: of the data set.
        suffix: of the images.
        dseg: the ``desc`` of the segmentations, such as aseg, where there are several.

    Raises:
        RegInputError: if there is no image, or naming every scan for which several files would do.
    """
    images = [path for anat in anat_folders(folder) for path in nifti(anat.glob(f"*_{suffix}.nii*"))]
    if not images:
        raise RegInputError(
            f"{folder} has no sub-*/anat/*_{suffix}.nii.gz, expected images of that suffix; name another with --suffix."
        )
    labels = [item for item in derivatives(folder, "dseg") if dseg in (None, item[1].entities.get("desc"))]
    masks = [item for item in derivatives(folder, "mask") if item[1].entities.get("desc") == "brain"]
    scans, findings = [], []
    for image in images:
        found = {"label": belonging(image, labels), "mask": belonging(image, masks)}
        findings += [
            f"{image} has {len(paths)} files for its {part} ({', '.join(map(str, paths))}), expected one; "
            f"{'choose with --dseg DESC, or ' if part == 'label' else ''}give a csv."
            for part, paths in found.items()
            if len(paths) > 1
        ]
        scans.append(Scan(image, **{part: paths[0] for part, paths in found.items() if paths}))
    refuse(findings)
    return named(scans)


def anat_folders(folder: Path) -> list[Path]:
    """The folders of anatomical images, by subject and session."""
    return sorted(path for pattern in ("sub-*/anat", "sub-*/ses-*/anat") for path in folder.glob(pattern))


def nifti(paths: Iterable[Path]) -> list[Path]:
    """Those that are NIfTI by their name and BIDS by it, sorted."""
    return sorted(path for path in paths if path.name.endswith((".nii", ".nii.gz")) and bids_name(path) is not None)


def derivatives(folder: Path, suffix: str) -> list[tuple[Path, BidsName]]:
    """Files of one suffix below ``derivatives`` and what their names say."""
    paths = nifti((folder / "derivatives").rglob(f"sub-*_{suffix}.nii*"))
    return [(path, bids_name(path)) for path in paths]


def belonging(image: Path, candidates: Sequence[tuple[Path, BidsName]]) -> list[Path]:
    """The candidates made of an image, on its grid: those whose names share most with its."""
    own = bids_name(image)
    shared: dict[int, list[Path]] = {}
    for path, name in candidates:
        said = {key: value for key, value in name.entities.items() if key not in OF_A_DERIVATIVE}
        space = name.entities.get("space", own.suffix)
        if said.items() <= own.entities.items() and space in (own.suffix, *OWN_SPACES) and "res" not in name.entities:
            shared.setdefault(len(said), []).append(path)
    return shared[max(shared)] if shared else []
