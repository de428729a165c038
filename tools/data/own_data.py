"""What ``prepare folder`` and ``prepare pairs`` share: sections, and the files that a person looks at in the end."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
from nibabel.affines import voxel_sizes

from common.datalist import SECTIONS

from .brain import Grid
from .prepared import Job, finish_dataset, pair_entry
from .recipe import Recipe, working_grid
from .scan_checks import SHOWN
from .scan_job import sheet_rows
from .split import torn_subjects

__all__ = [
    "About",
    "PairOf",
    "common_parts",
    "finish",
    "key_findings",
    "pair_entries",
    "subject_findings",
    "target_grids",
]

INTENSITY = {
    "mr": "the least value and the 99.9th percentile (of the brain, where there is one) become 0 and 1, clipped",
    "ct": "-1000 to 1000 Hounsfield units become 0 to 1, clipped",
}
SHEET_SCANS = 500  # that the contact sheet shows; matplotlib needs seconds for every hundred


class About(NamedTuple):
    """What the user says of a data set."""

    name: str
    license: str = ""
    label_names: Mapping[int, str] | None = None


class PairOf(NamedTuple):
    """Two prepared scans, and what comes with both."""

    fixed: str
    moving: str
    parts: tuple[str, ...]


def target_grids(grids: Mapping[str, Grid], recipe: Recipe, template: Grid | None) -> dict[str, Grid]:
    """The grid that each scan is put on: the template's, or its own, in the orientation, spacing and size asked for."""
    return {name: working_grid(template or grid, recipe) for name, grid in grids.items()}


def common_parts(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    """What both have, in the order of the first."""
    second = set(second)
    return tuple(part for part in first if part in second)


def key_findings(section: str, items: Mapping[str, tuple[str, ...]]) -> list[str]:
    """That some of a section lack what others have, which batches cannot do without; by the items' names."""
    have: dict[str, list[str]] = {}
    for name, parts in items.items():
        for part in parts:
            have.setdefault(part, []).append(name)
    return [
        f"{len(items) - len(names)} of {len(items)} in {section} have no {part} "
        f"({', '.join([name for name in items if name not in names][:SHOWN])}), expected it with all or none; add it, "
        "or leave it out everywhere."
        for part, names in have.items()
        if len(names) < len(items)
    ]


def subject_findings(sections: Iterable[tuple[str, str]]) -> list[str]:
    """Subjects that would be in two sections: what was trained on must not be tested on."""
    return [
        f"subject {subject} is in {' and '.join(places)}, expected one section; move its scans, or name subjects apart."
        for subject, places in torn_subjects(sections).items()
    ]


def pair_entries(sections: Mapping[str, Sequence[PairOf]]) -> dict[str, list[dict[str, str]]]:
    """The datalist's sections of pairs; empty ones are left out."""
    return {section: [pair_entry(*pair) for pair in sections[section]] for section in SECTIONS if sections.get(section)}


def finish(
    out: Path,
    about: About,
    recipe: Recipe,
    jobs: Sequence[Job],
    rows: Sequence[dict[str, Any]],
    content: Mapping[str, Any],
) -> Path:
    """Write report, contact sheet and ``datalist.json``; return the path of that.

    Args:
        out: folder of the data set.
        about: what the user said of it.
        recipe: what was done.
        jobs: all that are finished.
        rows: of the report, one a job; those with labels gain ``labels_missing``, against the names or all others.
        content: sections of the datalist, and what else it says.
    """
    found = {int(value) for row in rows for value in str(row.get("labels_found", "")).split()}
    names = about.label_names or {value: f"label {value}" for value in sorted(found)}
    for row in rows:
        if "labels_found" in row:
            missing = sorted(set(names) - set(map(int, str(row["labels_found"]).split())))
            row["labels_missing"] = " ".join(map(str, missing))
    image = nib.load(jobs[0].output("image"))
    header = {
        "name": about.name,
        "modality": " and ".join(sorted({str(row["modality"]) for row in rows})),
        "orientation": "".join(nib.aff2axcodes(image.affine)),
        "spacing_mm": [round(float(s), 4) for s in voxel_sizes(image.affine)],
        "licence": about.license or "the owner's; not stated",
        "labels": {str(value): name for value, name in sorted(names.items())},
        **treatment(recipe, rows),
    }
    return finish_dataset(out, rows, sheet_rows(jobs[:SHEET_SCANS]), header | dict(content))


def treatment(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """In words, what was done to the scans."""
    kinds = sorted({str(row["modality"]) for row in rows})
    window = None if recipe.window is None else f"{recipe.window[0]:g} to {recipe.window[1]:g} become 0 to 1, clipped"
    text = {"intensity": window or "; ".join(f"{kind}: {INTENSITY[kind]}" for kind in kinds)}
    if recipe.strips:
        sources = sorted({str(row["mask_from"]) for row in rows})
        text["brain_mask"] = f"0 outside of it; {', '.join(sources)} (see report.csv)"
    elif recipe.anatomy == "brain":
        text["brain_mask"] = "none: whole heads, as was asked for"
    if any(row.get("volume_ratio") for row in rows) or recipe.align:
        onto = "the template" if recipe.template else "its fixed scan"
        text["alignment"] = (
            f"{recipe.align or 'affine'}, to {onto}; affines/<name>.txt maps the prepared world to the raw"
        )
    return text
