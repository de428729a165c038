"""Score predictions of displacement fields over the pairs of a data set: one table for every method.

Nothing appears in the output folder before everything is scored, but for the fields of methods that were run, which lie
in ``predictions/<method>`` and can be scored again. What the columns mean is said in docs/evaluation.md.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from common.files import replace_folder, temporary_folder
from common.preflight import check_label

from .benchmark.measuring import device_name
from .evaluation_tables import FILES, ORIGIN_COLUMNS, table, write_results
from .learn2reg import displacement_stem, write_voxel_displacement
from .methods import Source, check_sources, device_type, parse_methods, predictions_of
from .pair_pages import PairPages
from .pair_scores import Rules, Truth, score
from .predictions import Pair, Predictions
from .repository import commit

__all__ = ["FORMATS", "evaluate"]

FORMATS = ("own", "learn2reg")


def evaluate(
    dataset_dir: str,
    section: str,
    methods: Sequence[str],
    out: str,
    *,
    labels: Sequence[int] | None = None,
    layout: str = "own",
    overlays: Sequence[str] = (),
    overrides: Sequence[str] = (),
    ndv_in_moving: bool = False,
    sdlogj_in_mask: bool = False,
    reports: int = 3,
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Score every method on every pair of a section and write ``labels.csv``, ``pairs.csv``, ``summary.csv``,
    ``comparison.csv`` for several methods, ``dice.png``, and ``reports/<method>/<pair>/`` of the worst pairs.

    Args:
        dataset_dir: folder of a ``datalist.json``.
        section: "validation" or "testing".
        methods: ``NAME=SOURCE`` each, see :func:`tools.methods.parse_methods`.
        out: folder for the results.
        labels: values to score; by default those that the datalist names, or else all above 0 in the fixed labels.
        layout: "own", or "learn2reg": lost labels have an infinite HD95, and each method's fields are written to
            ``learn2reg/<method>`` as the challenge's evaluation reads them.
        overlays: ``NAME=FILE`` each, configs over a bundle's inference.json.
        overrides: ``NAME:ID=VALUE`` each, values in a bundle's config.
        ndv_in_moving: NDV where the moving image is above 0, as LUMIR has it.
        sdlogj_in_mask: SDlogJ in the fixed mask, as Learn2Reg's lung tasks have it.
        reports: pages of so many of each method's worst pairs; -1 of all, 0 of none.
        command: what ``pairs.csv`` has in its column of that name.
        say: is handed the table, as text.

    Returns:
        ``out``.

    Raises:
        RegInputError: if anything asked for is missing or does not fit; before any registration starts.
        RegEnvError: if a package is missing, or ``out`` cannot be written.
    """
    if layout not in FORMATS:
        raise RegInputError(f"the format is '{layout}', expected {' or '.join(FORMATS)}.")
    sources = parse_methods(methods, overlays, overrides)
    names = read_header(dataset_dir)["labels"]
    pairs = read_pairs(dataset_dir, section)
    submissions = submission_names(pairs) if layout == "learn2reg" else {}
    check_sources(sources, pairs)
    check_datalist([pair.paths for pair in pairs])
    rules = Rules(labels_to_score(labels, names, pairs), layout == "learn2reg", ndv_in_moving, sdlogj_in_mask)
    rules.check(pairs)

    folder, code = Path(out), commit()  # before registrations, which take their time
    predictions = {
        name: predictions_of(source, pairs, dataset_dir, section, folder / "predictions" / name)
        for name, source in sources.items()
    }
    origins = {name: origin(source, code, command) for name, source in sources.items()}
    with temporary_folder(folder / "evaluation") as work:
        pages = PairPages(work / "reports", sources, reports, names, rules.labels)
        label_rows, pair_rows = score_all(predictions, pairs, rules, submissions, work / "learn2reg", pages)
        for row in label_rows:
            row["name"] = names.get(row["label"], "")
        pair_rows = [row | origins[row["method"]] for row in pair_rows]
        write_results(work, label_rows, pair_rows, pairs)
        publish(work, folder)
    say(table(pair_rows, pairs))
    return folder


def read_pairs(dataset_dir: str, section: str) -> list[Pair]:
    """The pairs of a section; RegInputError if there are none, or two would have one name."""
    if section not in ("validation", "testing"):
        raise RegInputError(f"the section is '{section}', expected validation or testing.")
    pairs = [Pair(item) for item in read_datalist(dataset_dir, section)]
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if not pairs or twice:
        raise RegInputError(
            f"{section} of {dataset_dir} has {len(pairs)} pairs, several called {twice}, expected at least one and a "
            "name for each; rename the image files."
        )
    return pairs


def labels_to_score(labels: Sequence[int] | None, names: dict[int, str], pairs: Sequence[Pair]) -> tuple[int, ...]:
    """Those asked for, else those with a name, else all above 0 that a fixed label map has."""
    maps = sorted({pair.paths["fixed_label"] for pair in pairs if "fixed_label" in pair.paths})
    if labels is not None:
        if not labels or min(labels) < 1 or len(set(labels)) < len(labels) or not maps:
            raise RegInputError(
                f"labels are {list(labels)} and {len(maps)} fixed label maps are there, expected distinct values above "
                "0 and maps to find them in; correct the values."
            )
        return tuple(labels)
    found = [value for value in names if value > 0]
    if not found:
        found = {int(value) for path in maps for value in np.unique(check_label(path).voxels) if value > 0}
    return tuple(sorted(found))


def submission_names(pairs: Sequence[Pair]) -> dict[str, str]:
    """Learn2Reg's file name by the pair's; RegInputError if the images' names hold no ids, or the same."""
    names = {pair.name: displacement_stem(pair.fixed, pair.moving) for pair in pairs}
    lacking = [pair for pair, name in names.items() if name is None]
    if lacking:
        raise RegInputError(
            f"the names of {lacking[0]} hold no four-digit ids, expected names like OASIS_0438_0000.nii.gz, as "
            "disp_FFFF_MMMM.nii.gz is made of them; rename the images or use --format own."
        )
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise RegInputError(f"several pairs would be called {twice[0]}, expected a name for each; rename the images.")
    return {pair: f"{name}.nii.gz" for pair, name in names.items()}


def score_all(
    predictions: dict[str, Predictions],
    pairs: Sequence[Pair],
    rules: Rules,
    submissions: dict[str, str],
    fields: Path,
    pages: PairPages,
) -> tuple[list[dict], list[dict]]:
    """Rows of labels.csv and pairs.csv, method by method; those of a submission go to ``fields/<method>``."""
    labels, rows = {name: [] for name in predictions}, {name: [] for name in predictions}
    with tqdm(total=len(pairs) * len(predictions), desc="scoring", leave=False) as bar:
        for pair in pairs:
            truth = Truth.read(pair, rules)
            for name, method in predictions.items():
                prediction = method.read(pair)
                found = score(prediction, truth, pair, rules, method.seconds(pair))
                start = {"method": name, "pair": pair.name}
                labels[name] += [{**start, **row} for row in found.labels]
                rows[name].append({**start, "fixed": pair.fixed.name, "moving": pair.moving.name, **found.pair})
                pages.offer(name, method, pair, prediction, truth, found)
                if submissions:
                    path = fields / name / submissions[pair.name]
                    write_voxel_displacement(path, prediction.offset, pair.fixed_grid.affine)
                bar.update()
    return [row for part in labels.values() for row in part], [row for part in rows.values() for row in part]


def origin(source: Source, code: str, command: str) -> dict[str, str]:
    """:data:`ORIGIN_COLUMNS` of a method's rows; no device where registration ran elsewhere or not at all."""
    device = device_type(source)
    device = device_name(device) if device else ""
    return dict(zip(ORIGIN_COLUMNS, (device, torch.__version__, code, command), strict=True))


def publish(work: Path, folder: Path) -> None:
    """Put a finished evaluation in the place of an earlier one, by renames alone: what it does not have goes."""
    for name in FILES:
        if (work / name).is_file():
            os.replace(work / name, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    if (work / "reports").is_dir():
        replace_folder(folder / "reports", work / "reports")
    else:
        shutil.rmtree(folder / "reports", ignore_errors=True)
    for fields in (work / "learn2reg").glob("*"):
        (folder / "learn2reg").mkdir(exist_ok=True)
        replace_folder(folder / "learn2reg" / fields.name, fields)
