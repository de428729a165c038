"""Names of what a registration writes: a folder a pair, and in it plain names, or BIDS derivatives' for BIDS inputs.

No name has a character, an ending, a word or a length that Linux, macOS or Windows refuses.

Source: Brain Imaging Data Structure, entities and their order, common derivatives (bids-specification.readthedocs.io);
transforms as its extension proposal 14 and fMRIPrep have them: ``from-<moving>_to-<fixed>`` resamples an image of the
first onto the grid of the second.
Differs: ``jacobian``, ``error``, ``points``, ``metrics``, ``figure``, ``report`` and ``thumbnail`` are suffixes of our
own; and the files of a pair share one folder, where BIDS has one a subject, so that a pair is there as a whole or not
at all.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import RegInputError

__all__ = ["Names", "output_names", "stem", "unique_names"]

ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}$")  # .nii, .mha, .dcm; not the .5 of dose_0.5
REFUSED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # no file has such a name on Windows
MAX_BYTES = 100  # of half a folder's name; 255 is most file systems' limit of the whole, a prefix may be added to it
MAX_FILE_BYTES = 200
ENTITY = re.compile(r"([a-z]+)-([0-9A-Za-z+]+)")
OF_THE_GRID = ("space", "res", "den")  # what is said of an image's grid, and is no longer true on another
AFTER_SPACE = ("split", "recording", "chunk", "atlas", "seg", "scale", "label", "desc")


@dataclass(frozen=True)
class Names:
    """The folder of a pair, and the files in it."""

    folder: str
    warped: str = "warped.nii.gz"
    warped_label: str = "warped_label.nii.gz"
    transform: str = "transform.h5"
    displacement: str = "displacement.nii.gz"
    inverse_displacement: str = "inverse_displacement.nii.gz"
    jacobian: str = "jacobian.nii.gz"
    error: str = "error.nii.gz"
    points: str = "points.csv"
    metrics: str = "metrics.json"
    picture: str = "registration.png"
    report: str = "report.html"
    thumbnail: str = "thumbnail.jpg"


@dataclass(frozen=True)
class BidsName:
    """What a BIDS name says: its entities, in their order, and the suffix."""

    entities: dict[str, str]
    suffix: str


def output_names(fixed: Path | str, moving: Path | str) -> Names:
    """Names for one pair; :func:`unique_names` keeps those of many apart.

    Args:
        fixed: file, or folder of DICOM, of the fixed image.
        moving: of the moving image.

    Returns:
        Names in folder ``<fixed>__<moving>``; of sub-02_T1w.nii.gz onto sub-01_T1w.nii.gz such as
        ``sub-02_space-sub01T1w_desc-warped_T1w.nii.gz`` and ``sub-02_from-T1w_to-sub01T1w_mode-image_xfm.h5``. A
        fixed template, ``tpl-<label>_...``, is the space of that label.
    """
    return names_in(f"{stem(fixed)}__{stem(moving)}", Path(fixed), Path(moving))


def unique_names(pairs: Sequence[tuple[Path | str, Path | str]]) -> list[Names]:
    """Names for the pairs of a cohort, no two in one folder, nor in two that differ in case alone.

    Where file names do not tell pairs apart, those of the folders above are put in front, as many as it takes. So the
    names of a pair may change with the cohort that it is in.

    Args:
        pairs: fixed and moving image of each.

    Raises:
        RegInputError: if a pair is there twice.
    """
    paths = [tuple(Path(os.path.abspath(path)) for path in pair) for pair in pairs]  # links stay: their names are meant
    for (fixed, moving), count in Counter(paths).items():
        if count > 1:
            raise RegInputError(f"{moving} onto {fixed} is listed {count} times, expected once; remove the others.")
    above = [0] * len(paths)
    while True:
        folders = [f"{stem(fixed, n)}__{stem(moving, n)}" for (fixed, moving), n in zip(paths, above, strict=True)]
        count = Counter(map(str.casefold, folders))
        clashing = [k for k, folder in enumerate(folders) if count[folder.casefold()] > 1]
        if not clashing:
            return [names_in(folder, *pair) for folder, pair in zip(folders, paths, strict=True)]
        for k in clashing:
            above[k] += 1


def stem(path: Path | str, above: int = 0) -> str:
    """An image's name without its suffixes, fit for any file system; a folder's, with its series, is its own.

    Args:
        path: of the image.
        above: how many names of the folders above it stand in front, as in ``study_scan`` for study/scan.nii.gz. Past
            the root it is a short hash of the path, by which any two differ.
    """
    path = Path(path)
    own = path.name if names_series(path) else ENDING.sub("", re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE))
    folders = path.parent.parts[1:] if path.anchor else path.parent.parts
    if above > len(folders):
        own = f"{own}-{short_hash(str(path))}"
    return portable("_".join([*folders[max(len(folders) - above, 0) :], own]))


def names_series(path: Path) -> bool:
    """Whether a path is a folder, or ``folder#SeriesInstanceUID``."""
    return os.path.isdir(path) or os.path.isdir(str(path).rpartition("#")[0])


def portable(name: str) -> str:
    """A name that every file system takes, as near to this one as may be."""
    name = REFUSED.sub("_", unicodedata.normalize("NFC", name)).strip(" ").rstrip(".")
    if name[:1] in ("", ".", "-") or DEVICE.match(name):  # empty, hidden, taken for an option
        name = f"_{name}"
    encoded = name.encode(errors="replace")
    if len(encoded) <= MAX_BYTES:
        return encoded.decode()
    return f"{short_hash(name)}_{encoded[9 - MAX_BYTES :].decode(errors='ignore')}"  # its end tells more


def short_hash(text: str) -> str:
    """Eight hexadecimal digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]


def names_in(folder: str, fixed: Path, moving: Path) -> Names:
    """BIDS derivatives' names if both images have BIDS names, else the plain ones."""
    onto, own = bids_name(fixed), bids_name(moving)
    if onto is None or own is None or "sub" not in own.entities:
        return Names(folder)
    names = bids_names(folder, own, space_label(onto))
    longest = max(len(name) for name in vars(names).values() if name != folder)
    return names if longest <= MAX_FILE_BYTES else Names(folder)


def bids_name(path: Path) -> BidsName | None:
    """What a name like ``sub-01_ses-1_T1w.nii.gz`` says; ``None`` if it is no BIDS name."""
    if names_series(path):
        return None
    *parts, suffix = path.name.split(".")[0].split("_")
    matches = [ENTITY.fullmatch(part) for part in parts]
    if not matches or not all(matches) or not re.fullmatch("[0-9A-Za-z]+", suffix):
        return None
    entities = {match[1]: match[2] for match in matches}
    return BidsName(entities, suffix) if matches[0][1] in ("sub", "tpl") and len(entities) == len(parts) else None


def space_label(fixed: BidsName) -> str:
    """A label for the space of an image: its template, or all that tells it from others."""
    if "tpl" in fixed.entities:
        return fixed.entities["tpl"]
    return "".join(f"{key}{value}" for key, value in fixed.entities.items()) + fixed.suffix


def bids_names(folder: str, moving: BidsName, space: str) -> Names:
    """Names of what comes of a moving image in a space."""
    own = {key: value for key, value in moving.entities.items() if key not in OF_THE_GRID}
    before = {key: value for key, value in own.items() if key not in AFTER_SPACE}
    after = {key: value for key, value in own.items() if key in AFTER_SPACE and key != "desc"}
    there = {**before, "space": space, **after}
    warped = {"desc": own["desc"] + "Warped" if "desc" in own else "warped"}
    forward = {**own, "from": moving.suffix, "to": space, "mode": "image"}
    backward = {**own, "from": space, "to": moving.suffix, "mode": "image"}
    registration = {"desc": "registration"}
    return Names(
        folder,
        warped=written({**there, **warped}, moving.suffix, "nii.gz"),
        warped_label=written({**there, **warped}, "dseg", "nii.gz"),
        transform=written(forward, "xfm", "h5"),
        displacement=written(forward, "xfm", "nii.gz"),
        inverse_displacement=written(backward, "xfm", "nii.gz"),
        jacobian=written(there, "jacobian", "nii.gz"),
        error=written(there, "error", "nii.gz"),
        points=written({**moving.entities, **warped}, "points", "csv"),  # they lie in the moving image's space
        metrics=written({**there, **registration}, "metrics", "json"),
        picture=written({**there, **registration}, "figure", "png"),
        report=written({**there, **registration}, "report", "html"),
        thumbnail=written({**there, **registration}, "thumbnail", "jpg"),
    )


def written(entities: dict[str, str], suffix: str, ending: str) -> str:
    """A BIDS name."""
    return "_".join([*(f"{key}-{value}" for key, value in entities.items()), f"{suffix}.{ending}"])
