"""IXI as TransMorph released it: skull-stripped, aligned brains with FreeSurfer's labels -> NIfTI + datalist.json.

Source:  https://github.com/junyuchen245/TransMorph_Transformer_for_Medical_Image_Registration, IXI/TransMorph_on_IXI.md
License: CC BY-SA 3.0, as IXI itself (https://brain-development.org/ixi-dataset).
Usage:   regbundles data prepare ixi --raw /data/raw/ixi --out /data/ixi

Images stay as they are, float in [0, 1] on 160 x 192 x 224 voxels of 1 mm. Labels are renumbered from FreeSurfer's
numbers to 0 to 45, as the papers' evaluation does; the 30 that it scores are the datalist's ``labels``. The atlas, the
first entry of "training", is the moving image of every pair. How a scan lies in its file is told by its labels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .align import sheet_rows
from .ixi_layout import ATLAS, COUNTS, NAMES, NUMBERS, SCORED, find_brains
from .label_orientation import ASEG
from .prepared import entry_path, finish_dataset, make_all, pair_entry, subject_entry
from .source import RemoteFile, Source
from .transmorph import SIZE, PickledBrain, Release, check_brains, make_job, prepare_brain

__all__ = ["SOURCES", "prepare"]

LICENSE = "CC BY-SA 3.0; IXI, https://brain-development.org/ixi-dataset; prepared by J. Chen et al. (TransMorph)"
CITATION = (
    "J. Chen et al., TransMorph: Transformer for unsupervised medical image registration, Med. Image Anal. 82, 2022, "
    "doi:10.1016/j.media.2022.102615; IXI, https://brain-development.org/ixi-dataset"
)


def prepare(
    raw: str,
    out: str,
    partial: bool = False,
    workers: int | None = None,
    force: bool = False,
    size: tuple[int, int, int] = SIZE,
) -> Path:
    """Prepare the atlas and every subject under ``raw`` and write ``datalist.json``; twice gives the same bytes.

    Args:
        raw: folder with ``atlas.pkl`` and ``Train``, ``Val`` and ``Test`` of ``subject_<number>.pkl``, at any depth.
        out: folder to fill with ``images/``, ``labels/``, ``records/``, ``datalist.json``, ``report.csv`` and
            ``contact_sheet.png``, where each brain lies under the atlas's outline.
        partial: accept fewer scans than the release has.
        workers: processes; by default one a processor.
        force: prepare again what is finished.
        size: voxels toward left, down and front that every brain must have.

    Returns:
        The path of ``datalist.json``: "training" is the atlas and then 403 subjects, "validation" and "testing" are
        58 and 115 pairs of a subject, fixed, and the atlas, moving.

    Raises:
        RegInputError: before any work, with every finding about the input.
    """
    brains = find_brains(Path(raw), partial)
    every = [brain for part in brains.values() for brain in part]
    release = Release(tuple(size), ASEG, NUMBERS, SCORED)
    check_brains(every, release, workers)
    jobs = [make_job(brain, release, Path(out)) for brain in every]
    rows = make_all(prepare_brain, jobs, title="ixi", workers=workers, force=force)
    return finish_dataset(Path(out), rows, sheet_rows(jobs, ATLAS), header() | sections(brains))


def header() -> dict[str, Any]:
    """What the datalist says of all its scans."""
    return {
        "name": "ixi",
        "modality": "T1-weighted MR",
        "orientation": "LIA",
        "spacing_mm": [1.0, 1.0, 1.0],
        "licence": LICENSE,
        "labels": {str(value): NAMES[value] for value in SCORED},
        "all_labels": {str(value): name for value, name in NAMES.items()},
        "freesurfer_numbers": list(NUMBERS),
        "intensity": "as released: [0, 1], 0 outside the brain",
        "alignment": "as released: 12-parameter, FreeSurfer's Talairach transform; the files have no header, so that "
        "world zero at voxel size / 2 is a convention, and the orientation is the one that the labels show",
        "atlas": entry_path("image", ATLAS),
    }


def sections(brains: Mapping[str, Sequence[PickledBrain]]) -> dict[str, list[dict[str, str]]]:
    """The sections of the datalist that have scans."""
    content = {"training": [subject_entry(brain.name) for brain in (*brains[ATLAS], *brains["training"])]}
    for part in ("validation", "testing"):
        content[part] = [pair_entry(brain.name, ATLAS) for brain in brains[part]]
    return {part: items for part, items in content.items() if items}


SOURCES = (
    Source(
        name="ixi",
        title="IXI, TransMorph's release: 576 stripped and aligned T1 brains and an atlas, 46 labels",
        license=LICENSE,
        citation=CITATION,
        page="https://github.com/junyuchen245/TransMorph_Transformer_for_Medical_Image_Registration/blob/main/IXI/"
        "TransMorph_on_IXI.md",
        terms="",
        files=(RemoteFile("IXI_data.zip", "drive:1-VQewCVNj5eTtc3eQGhTM2yXBQmgm8Ol"),),
        prepare=prepare,
        splits=", ".join(f"{part} {count}" for part, count in COUNTS.items()) + "; the atlas is moving, a scan fixed",
        about="1.44 GB",
    ),
)
