"""Pairs of one's own: a table with a row a pair -> scaled scans, each pair on one grid, datalist.json.

Usage:   regbundles data prepare pairs --pairs pairs.csv --out /data/mine --anatomy other --align affine

What happens to a scan is said by its :class:`tools.data.recipe.Recipe`, as in ``prepare folder``. Where the scans of a
pair are on different grids, ``--align`` puts the moving one on the fixed one's: its file is ``<moving>_on_<fixed>``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import RegInputError
from common.preflight import refuse

from .brain import Grid
from .folder import read_grid, save_template
from .label_names import read_label_names
from .own_data import About, PairOf, common_parts, finish, key_findings, pair_entries, subject_findings, target_grids
from .prepared import Job, make_all
from .recipe import Recipe, recipe_findings
from .scan_checks import check_scans, grid_findings
from .scan_job import Reference, job_for, parts_of, prepare_scan
from .scan_tables import Pair, read_pair_table
from .split import divide, groups_of

__all__ = ["prepare"]

ADVICE = (
    "--align affine (by content) or --align header (by positions) to put each moving scan on its fixed one's grid, or "
    "--template SCAN for all"
)


def prepare(
    pairs: str,
    out: str,
    recipe: Recipe,
    *,
    validation: int = 0,
    testing: int = 0,
    seed: int = 0,
    label_names: str | None = None,
    name: str | None = None,
    license: str = "",
    workers: int | None = None,
    force: bool = False,
) -> Path:
    """Prepare the pairs of a table and write ``datalist.json``; a second run writes the same bytes.

    Args:
        pairs: csv or tsv with a row a pair (:func:`tools.data.scan_tables.read_pair_table`).
        out: folder to fill, as in :func:`tools.data.folder.prepare`.
        recipe: what is done to the scans.
        validation: groups of subjects for validation; the table's column "section" says it by name instead. Subjects
            who share a pair are one group.
        testing: groups for testing, likewise. The others are for training; with neither numbers nor the column, all
            pairs are for testing.
        seed: of the choice (:func:`tools.data.split.divide`).
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
    listed = read_pair_table(Path(pairs))
    names = None if label_names is None else read_label_names(Path(label_names))
    sections = sections_of(listed, validation, testing, seed)
    scans = list({scan.name: scan for pair in listed for scan in (pair.fixed, pair.moving)}.values())
    onto_fixed = recipe.align is not None and recipe.template is None
    sentences = recipe_findings(recipe) + section_findings(listed, sections, recipe)
    grids, counts, found = check_scans(scans, recipe, workers)
    refuse(sentences + found + count_findings(listed, counts))
    reference = None if recipe.template is None else save_template(recipe, Path(out))
    targets = target_grids(grids, recipe, None if reference is None else read_grid(reference.image))
    fixed = {pair.fixed.name for pair in listed}
    shared = {name: grid for name, grid in targets.items() if name in fixed or not onto_fixed}
    refuse(grid_findings(shared, [(pair.fixed.name, pair.moving.name) for pair in listed], ADVICE))
    first = [job_for(scan, recipe, targets[scan.name], Path(out), reference) for scan in scans if scan.name in shared]
    rows = make_all(prepare_scan, first, title="scans", workers=workers, force=force)
    second = moving_jobs(listed, recipe, targets, first) if onto_fixed else []
    if second:
        rows += make_all(prepare_scan, second, title="moving scans", workers=workers, force=force)
    content = {"split": split_text(listed, validation, testing, seed)}
    content |= pair_entries(prepared_pairs(listed, sections, recipe, onto_fixed))
    about = About(name or Path(out).absolute().name, license, names)
    return finish(Path(out), about, recipe, [*first, *second], rows, content)


def sections_of(pairs: Sequence[Pair], validation: int, testing: int, seed: int) -> list[str]:
    """The section of each pair: the table's, or drawn by groups of subjects; testing if nothing is said."""
    if any(pair.section for pair in pairs):
        if validation or testing:
            raise RegInputError(
                f"validation is {validation} and testing {testing} beside a table with sections, expected one of the "
                "two ways; leave the numbers or the column out."
            )
        return [pair.section for pair in pairs]
    if not validation and not testing:
        return ["testing"] * len(pairs)
    groups = groups_of((pair.fixed.subject, pair.moving.subject) for pair in pairs)
    drawn = divide(groups.values(), validation, testing, seed)
    return [drawn[groups[pair.fixed.subject]] for pair in pairs]


def section_findings(pairs: Sequence[Pair], sections: Sequence[str], recipe: Recipe) -> list[str]:
    """Pairs without a section, subjects in two, pairs that lack what others of their section have."""
    both = list(zip(pairs, sections, strict=True))
    sentences = [
        f"the pair {pair_name(pair)} has no section, expected one with every pair; fill the column."
        for pair, section in both
        if not section
    ]
    sentences += subject_findings(
        (scan.subject, section) for pair, section in both if section for scan in (pair.fixed, pair.moving)
    )
    for section in sorted(set(filter(None, sections))):
        sentences += key_findings(
            section, {pair_name(pair): pair_parts(pair, recipe) for pair, own in both if own == section}
        )
    return sentences


def count_findings(pairs: Sequence[Pair], counts: Mapping[str, int]) -> list[str]:
    """Pairs whose landmarks cannot correspond."""
    return [
        f"{pair.fixed.landmarks} has {counts[pair.fixed.name]} landmarks and {pair.moving.landmarks} "
        f"{counts[pair.moving.name]}, expected as many; match them line by line."
        for pair in pairs
        if {pair.fixed.name, pair.moving.name} <= set(counts) and counts[pair.fixed.name] != counts[pair.moving.name]
    ]


def pair_name(pair: Pair) -> str:
    """Both names."""
    return f"{pair.fixed.name} <- {pair.moving.name}"


def pair_parts(pair: Pair, recipe: Recipe) -> tuple[str, ...]:
    """What comes with both scans of a pair."""
    return common_parts(parts_of(pair.fixed, recipe), parts_of(pair.moving, recipe))


def moving_name(pair: Pair, onto_fixed: bool) -> str:
    """What the prepared moving scan of a pair is called."""
    return f"{pair.moving.name}_on_{pair.fixed.name}" if onto_fixed else pair.moving.name


def moving_jobs(pairs: Sequence[Pair], recipe: Recipe, grids: Mapping[str, Grid], done: Sequence[Job]) -> list[Job]:
    """A job for each moving scan on its fixed one's grid, aligned to that as it was prepared."""
    fixed = {job.name: job for job in done}
    jobs = []
    for pair in pairs:
        target = fixed[pair.fixed.name]
        reference = Reference(target.output("image"), target.output("mask") if "mask" in target.kinds else None)
        grid, name = grids[pair.fixed.name], moving_name(pair, True)
        jobs.append(job_for(pair.moving, recipe, grid, target.out, reference, name))
    return jobs


def prepared_pairs(
    pairs: Sequence[Pair], sections: Sequence[str], recipe: Recipe, onto_fixed: bool
) -> dict[str, list[PairOf]]:
    """The pairs of each section, by the names of their prepared files."""
    found: dict[str, list[PairOf]] = {}
    for pair, section in zip(pairs, sections, strict=True):
        prepared = PairOf(pair.fixed.name, moving_name(pair, onto_fixed), pair_parts(pair, recipe))
        found.setdefault(section, []).append(prepared)
    return found


def split_text(pairs: Sequence[Pair], validation: int, testing: int, seed: int) -> str:
    """How the sections came about."""
    if any(pair.section for pair in pairs):
        return "by the table's column section"
    if not validation and not testing:
        return "none: all pairs are for testing"
    return (
        f"by groups of subjects who share pairs, in the order of SHA-256 of '{seed}:<first subject>': {testing} for "
        f"testing, then {validation} for validation, the others for training"
    )
