"""A cohort of one's own: a table of scans, a BIDS data set or a plain folder -> one grid, a split, datalist.json.

Usage:   regbundles data prepare folder --images scans.csv --out /data/mine --validation 5 --testing 10

What happens to a scan is said by its :class:`tools.data.recipe.Recipe`: what is not brain becomes 0 (or the scan is of
something else), intensities become [0, 1] by modality, and all scans come onto one grid: their own where they share it,
or a template's after an affine alignment.
"""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

from common.datalist import SECTIONS
from common.errors import RegInputError
from common.preflight import check_image, refuse

from .bids import find_bids, is_bids
from .brain import Grid
from .files import save_nifti
from .label_names import read_label_names
from .own_data import About, PairOf, common_parts, finish, key_findings, pair_entries, subject_findings, target_grids
from .plain_folder import find_plain
from .prepared import make_all, subject_entry
from .recipe import Recipe, recipe_findings
from .scan_checks import check_scans, grid_findings
from .scan_job import Reference, job_for, parts_of, prepare_scan
from .scan_tables import read_scan_table
from .scans import Scan
from .split import divide

__all__ = ["PAIRINGS", "find_scans", "prepare"]

PAIRINGS = ("all", "first")
ADVICE = "--template SCAN to bring all onto its grid (by content; --align header by their positions)"


def prepare(
    images: str,
    out: str,
    recipe: Recipe,
    *,
    validation: int = 0,
    testing: int = 0,
    seed: int = 0,
    pairing: str = "all",
    suffix: str = "T1w",
    dseg: str | None = None,
    label_names: str | None = None,
    name: str | None = None,
    license: str = "",
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Prepare a cohort and write ``datalist.json``; a second run writes the same bytes.

    Args:
        images: csv or tsv with a row a scan (:func:`tools.data.scan_tables.read_scan_table`), BIDS data set
            (:func:`tools.data.bids.find_bids`) or folder of scans (:func:`tools.data.plain_folder.find_plain`).
        out: folder to fill with ``images/``, ``labels/``, ``masks/``, ``keypoints/`` and ``affines/``, as far as there
            are such, ``records/``, ``report.csv``, ``contact_sheet.png`` and ``datalist.json``.
        recipe: what is done to the scans.
        validation: subjects for validation; the table's column "section" says it by name instead.
        testing: subjects for testing, likewise. The others are for training.
        seed: of the choice (:func:`tools.data.split.divide`).
        pairing: of a section's scans: "all" ordered pairs, or the "first" scan as fixed with each of the others.
        suffix: of a BIDS data set's images.
        dseg: which of several BIDS segmentations, by their ``desc``.
        label_names: csv, tsv or json of values and names.
        name: of the data set; by default the output folder's.
        license: of the data, in words.
        workers: processes; by default one a processor.
        force: prepare again what is finished.

    Returns:
        The path of ``datalist.json``.

    Raises:
        RegInputError: before any work, with every finding about scans and options.
    """
    if pairing not in PAIRINGS:
        raise RegInputError(f"pairing is '{pairing}', expected {' or '.join(PAIRINGS)}; choose one.")
    scans = find_scans(Path(images), suffix, dseg)
    names = None if label_names is None else read_label_names(Path(label_names))
    sections = sections_of(scans, validation, testing, seed)
    sentences = recipe_findings(recipe) + section_findings(scans, sections, recipe)
    if recipe.align is not None and recipe.template is None:
        sentences.append(f"align is '{recipe.align}' without a template, expected one to align to; give --template.")
    grids, counts, found = check_scans(scans, recipe, workers)
    refuse(sentences + found + count_findings(counts))
    reference = None if recipe.template is None else save_template(recipe, Path(out))
    targets = target_grids(grids, recipe, None if reference is None else read_grid(reference.image))
    refuse(grid_findings(targets, [list(targets)], ADVICE))
    jobs = [job_for(scan, recipe, targets[scan.name], Path(out), reference) for scan in scans]
    rows = make_all(prepare_scan, jobs, title="scans", workers=workers, force=force)
    content = {"split": split_text(scans, validation, testing, seed)} | datalist_sections(
        scans, sections, recipe, pairing
    )
    about = About(name or Path(out).absolute().name, license, names)
    return finish(Path(out), about, recipe, jobs, rows, content)


def find_scans(images: Path, suffix: str = "T1w", dseg: str | None = None) -> list[Scan]:
    """The scans of a table, a BIDS data set or a plain folder, whichever it is."""
    if images.suffix.lower() in (".csv", ".tsv"):
        return read_scan_table(images)
    return find_bids(images, suffix, dseg) if is_bids(images) else find_plain(images)


def sections_of(scans: Sequence[Scan], validation: int, testing: int, seed: int) -> dict[str, str]:
    """Section by the scan's name: the table's, or drawn by subject."""
    if not any(scan.section for scan in scans):
        drawn = divide([scan.subject for scan in scans], validation, testing, seed)
        return {scan.name: drawn[scan.subject] for scan in scans}
    if validation or testing:
        raise RegInputError(
            f"validation is {validation} and testing {testing} beside a table with sections, expected one of the two "
            "ways; leave the numbers or the column out."
        )
    return {scan.name: scan.section for scan in scans}


def section_findings(scans: Sequence[Scan], sections: dict[str, str], recipe: Recipe) -> list[str]:
    """Scans without a section, subjects in two, sections of one scan alone, scans that lack what others have."""
    sentences = [
        f"{s.image} has no section, expected one with every scan; fill the column."
        for s in scans
        if not sections[s.name]
    ]
    sentences += subject_findings((scan.subject, sections[scan.name]) for scan in scans if sections[scan.name])
    for section in sorted(set(filter(None, sections.values()))):
        inside = {scan.name: parts_of(scan, recipe) for scan in scans if sections[scan.name] == section}
        sentences += key_findings(section, inside)
        if len(inside) < 2 and section != "training":
            sentences.append(f"{section} has the one scan {next(iter(inside))}, expected two for a pair; add another.")
    return sentences


def count_findings(counts: dict[str, int]) -> list[str]:
    """Landmarks that cannot correspond, since scans have different numbers of them."""
    if len(set(counts.values())) < 2:
        return []
    few, many = min(counts, key=counts.get), max(counts, key=counts.get)
    return [
        f"{few} has {counts[few]} landmarks and {many} {counts[many]}, expected as many with every scan, in one order; "
        "match them line by line."
    ]


def save_template(recipe: Recipe, out: Path) -> Reference:
    """Write what scans are aligned to beside them, as a NIfTI file."""
    image = check_image(recipe.template, 3)
    save_nifti(image.voxels, image.affine, out / "template.nii.gz")
    return Reference(out / "template.nii.gz")


def read_grid(path: Path) -> Grid:
    """Grid of an image."""
    image = check_image(path, 3)
    return Grid(image.voxels.shape, image.affine)


def datalist_sections(
    scans: Sequence[Scan], sections: dict[str, str], recipe: Recipe, pairing: str
) -> dict[str, list[dict[str, str]]]:
    """Subjects to train on, pairs to validate and test."""
    parts = {scan.name: parts_of(scan, recipe) for scan in scans}
    names = {part: [scan.name for scan in scans if sections[scan.name] == part] for part in SECTIONS}
    pairs = {
        section: [
            PairOf(fixed, moving, common_parts(parts[fixed], parts[moving]))
            for fixed, moving in permutations(names[section], 2)
            if pairing == "all" or fixed == names[section][0]
        ]
        for section in ("validation", "testing")
    }
    training = [subject_entry(scan, ("image", *parts[scan])) for scan in names["training"]]
    return {**({"training": training} if training else {}), **pair_entries(pairs)}


def split_text(scans: Sequence[Scan], validation: int, testing: int, seed: int) -> str:
    """How the sections came about."""
    if any(scan.section for scan in scans):
        return "by the table's column section"
    return (
        f"by subject, in the order of SHA-256 of '{seed}:<subject>': {testing} for testing, then {validation} for "
        "validation, the others for training"
    )
