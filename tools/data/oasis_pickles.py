"""OASIS as TransMorph released it for Learn2Reg 2021, task 3: pickles of neurite's brains -> NIfTI + datalist.json.

Source:  https://github.com/junyuchen245/TransMorph_Transformer_for_Medical_Image_Registration, OASIS/
License: OASIS' Data Use Agreement (https://oasis-brains.org/#access): read and accept it before use.
Usage:   regbundles data prepare oasis-transmorph --raw /data/raw/oasis_pkl --out /data/oasis_pkl

``All`` has a file a subject to train on; ``Test`` a file a pair to validate on, in the order moving image, fixed image,
moving labels, fixed labels. Who is in a pair is taken from its file alone, so that a subject of two pairs is written
twice. Images stay as they are; how a scan lies in its file is told by its labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import RegInputError
from common.preflight import refuse

from .align import sheet_rows
from .label_orientation import SEG35
from .oasis import CITATION, LICENSE, TERMS
from .oasis_layout import SEG35_NAMES
from .prepared import finish_dataset, make_all, pair_entry, subject_entry
from .source import RemoteFile, Source
from .transmorph import SIZE, PickledBrain, Release, check_brains, find_pickles, make_job, prepare_brain

__all__ = ["SOURCES", "prepare"]

LAYOUT = "All/*.pkl, a subject each, and Test/*.pkl, a pair each"
COUNTS = {"training": 394, "validation": 19}  # files


def prepare(
    raw: str,
    out: str,
    partial: bool = False,
    workers: int | None = None,
    force: bool = False,
    size: tuple[int, int, int] = SIZE,
) -> Path:
    """Prepare every subject and pair under ``raw`` and write ``datalist.json``; a second run writes the same bytes.

    Args:
        raw: folder with ``All`` and ``Test``, at any depth.
        out: folder to fill with ``images/``, ``labels/``, ``records/``, ``datalist.json``, ``report.csv`` and
            ``contact_sheet.png``, where each brain lies under the first one's outline.
        partial: accept fewer files than the release has.
        workers: processes; by default one a processor.
        force: prepare again what is finished.
        size: voxels toward left, down and front that every brain must have.

    Raises:
        RegInputError: before any work, with every finding about the input.
    """
    subjects, pairs = find_files(Path(raw), partial)
    brains = subjects + [brain for pair in pairs for brain in pair]
    release = Release(tuple(size), SEG35, (0, *SEG35_NAMES), tuple(SEG35_NAMES))
    check_brains(brains, release, workers)
    jobs = [make_job(brain, release, Path(out)) for brain in brains]
    rows = make_all(prepare_brain, jobs, title="oasis-transmorph", workers=workers, force=force)
    return finish_dataset(Path(out), rows, sheet_rows(jobs, jobs[0].name), header() | sections(subjects, pairs))


def find_files(raw: Path, partial: bool) -> tuple[list[PickledBrain], list[tuple[PickledBrain, PickledBrain]]]:
    """Subjects to train on and pairs (fixed, moving) to validate on, in the order of the numbers in their names.

    Raises:
        RegInputError: with every finding: files elsewhere, two of one name, another number of them than published.
    """
    subjects, pairs, sentences, seen = [], [], [], {}
    for path in find_pickles(raw):
        place = path.parent.name
        if place not in ("All", "Test"):
            sentences.append(f"{path} is in no part of the release, expected {LAYOUT}; move it away.")
        elif path.stem in seen:
            sentences.append(f"{path} is there as {seen[path.stem]} too, expected once; remove one.")
        elif place == "All":
            subjects.append(PickledBrain(path.stem, path))
        else:
            pairs.append(
                (PickledBrain(f"{path.stem}_fixed", path, 1, 3, 4), PickledBrain(f"{path.stem}_moving", path, 0, 2, 4))
            )
        seen[path.stem] = path
    if not seen:
        raise RegInputError(f"no pickle found under {raw}, expected {LAYOUT}; unpack the release there.")
    for part, found in (("training", len(subjects)), ("validation", len(pairs))):
        if found != COUNTS[part] and not (partial and 0 < found < COUNTS[part]):
            sentences.append(
                f"{raw} has {found} files for {part}, expected {COUNTS[part]}; unpack the whole release, or say "
                f"--partial for fewer."
            )
    refuse(sentences)
    return subjects, pairs


def header() -> dict[str, Any]:
    """What the datalist says of all its scans."""
    return {
        "name": "oasis",
        "modality": "T1-weighted MR",
        "orientation": "LIA",
        "spacing_mm": [1.0, 1.0, 1.0],
        "licence": LICENSE,
        "labels": {str(value): name for value, name in SEG35_NAMES.items()},
        "label_source": "the release's seg35",
        "split": "Learn2Reg 2021, task 3, as TransMorph released it",
        "intensity": "as released: [0, 1], 0 outside the brain",
        "alignment": "as released: 12-parameter, FreeSurfer's Talairach transform; the files have no header, so that "
        "world zero at voxel size / 2 is a convention, and the orientation is the one that the labels show",
    }


def sections(
    subjects: Sequence[PickledBrain], pairs: Sequence[tuple[PickledBrain, PickledBrain]]
) -> dict[str, list[dict[str, str]]]:
    """The sections of the datalist."""
    return {
        "training": [subject_entry(brain.name) for brain in subjects],
        "validation": [pair_entry(fixed.name, moving.name) for fixed, moving in pairs],
    }


SOURCES = (
    Source(
        name="oasis-transmorph",
        title="OASIS, TransMorph's release of Learn2Reg 2021's task 3: pickles of stripped and aligned T1 brains",
        license=LICENSE,
        citation=f"{CITATION}; J. Chen et al., TransMorph, Med. Image Anal. 82, 2022, doi:10.1016/j.media.2022.102615",
        page="https://github.com/junyuchen245/TransMorph_Transformer_for_Medical_Image_Registration/blob/main/OASIS/"
        "TransMorph_on_OASIS.md",
        terms=TERMS,
        files=(RemoteFile("OASIS_L2R_2021_task03.zip", "drive:1BdEaylMDpeXtyuX5QH8l_Ut4OgenKss4"),),
        prepare=prepare,
        splits=f"training {COUNTS['training']} subjects, validation {COUNTS['validation']} pairs",
        about="1.3 GB",
    ),
)
