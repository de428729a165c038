"""The files and the text of an evaluation, made of a row a method, pair and label, and a row a method and pair."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.files import save_atomically
from common.report import save_figure

from .dice_plot import dice_figure
from .pair_scores import LABEL_COLUMNS, PAIR_COLUMNS
from .predictions import Pair
from .statistics import COMPARED, HIGHER_IS_BETTER, compare, share_images, summarize

__all__ = ["FILES", "ORIGIN_COLUMNS", "table", "write_results"]

FILES = ("labels.csv", "pairs.csv", "summary.csv", "comparison.csv", "dice.png")
"""What an evaluation may write besides folders."""

ORIGIN_COLUMNS = ("device", "torch", "commit", "command")
"""What a row of ``pairs.csv`` says of where it is from."""

COMPARISON_COLUMNS = ["first", "other", "metric", "n", "difference", "t95_low", "t95_high", "wilcoxon_p"]
SHOWN = {
    "dice": "Dice",
    "dice_linear": "Dice linear",
    "hd95_mm": "HD95 mm",
    "tre_mm": "TRE mm",
    "sdlogj": "SDlogJ",
    "ndv_percent": "NDV %",
    "folds_percent": "folds %",
    "n_missing": "missing",
    "n_lost": "lost",
    "seconds": "seconds",
}


def write_results(folder: Path, label_rows: list[dict], pair_rows: list[dict], pairs: Sequence[Pair]) -> None:
    """The tables and the picture into an empty folder, as far as there are rows for them."""
    comparisons = comparison_rows(pair_rows)
    tables = {
        "labels.csv": (["method", "pair", "label", "name", *LABEL_COLUMNS], label_rows),
        "pairs.csv": (["method", "pair", "fixed", "moving", *PAIR_COLUMNS, *ORIGIN_COLUMNS], pair_rows),
        "summary.csv": (["method", "metric", "n", "mean", "std", "robust30"], summary_rows(pair_rows)),
        "comparison.csv": (COMPARISON_COLUMNS, comparisons),
    }
    for name, (columns, rows) in tables.items():
        if rows:
            save_atomically(lambda path, columns=columns, rows=rows: write_table(path, columns, rows), folder / name)
    if label_rows:
        save_figure(dice_figure(*dice_arrays(label_rows, pairs)), folder / "dice.png")


def comparison_rows(pair_rows: list[dict]) -> list[dict]:
    """The first method against each other one, a row a metric that both have."""
    first, *others = methods_of(pair_rows)
    rows = []
    for other in others:
        for metric in COMPARED:
            result = compare(column(pair_rows, first, metric), column(pair_rows, other, metric))
            if result.n:
                values = dict(zip(COMPARISON_COLUMNS[3:], result, strict=True))
                rows.append({"first": first, "other": other, "metric": metric, **values})
    return rows


def summary_rows(pair_rows: list[dict]) -> list[dict]:
    """A row a method and metric that has a value."""
    rows = []
    for name in methods_of(pair_rows):
        for metric in PAIR_COLUMNS:
            summary = summarize(column(pair_rows, name, metric), metric in HIGHER_IS_BETTER)
            if summary.n:
                rows.append({"method": name, "metric": metric, **summary._asdict()})
    return rows


def dice_arrays(label_rows: list[dict], pairs: Sequence[Pair]) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Dice (P, L) by method, and the names of pairs and labels, those without any value left out."""
    values = [row["label"] for row in label_rows]
    labels, names = list(dict.fromkeys(values)), [pair.name for pair in pairs]
    arrays = {name: np.full((len(pairs), len(labels)), math.nan) for name in methods_of(label_rows)}
    for row in label_rows:
        arrays[row["method"]][names.index(row["pair"]), labels.index(row["label"])] = row["dice"]
    kept = [k for k in range(len(labels)) if not all(np.isnan(array[:, k]).all() for array in arrays.values())]
    titles = {row["label"]: row["name"] or str(row["label"]) for row in label_rows}
    return {name: array[:, kept] for name, array in arrays.items()}, names, [titles[labels[k]] for k in kept]


def table(pair_rows: list[dict], pairs: Sequence[Pair]) -> str:
    """Means and standard deviations over pairs, counts summed, and the comparison, as lines of text."""
    shown = [metric for metric in SHOWN if any(not math.isnan(row[metric]) for row in pair_rows)]
    lines = [["method", *(SHOWN[metric] for metric in shown)]]
    for name in methods_of(pair_rows):
        lines.append([name, *(cell(column(pair_rows, name, metric), metric) for metric in shown)])
    text = [f"{len(pairs)} pairs, mean +- standard deviation; missing and lost are counts of labels in all pairs", ""]
    text += aligned(lines)
    comparisons = comparison_rows(pair_rows)
    if comparisons:
        header = ["difference", "metric", "mean", "95 % interval (t)", "Wilcoxon p"]
        text += ["", *aligned([header, *(comparison_line(row) for row in comparisons)])]
        if share_images([pair.paths for pair in pairs]):
            text.append("images are in several pairs: these are not independent, so intervals and p are too small")
    return "\n".join(text)


def cell(values: Sequence[float], metric: str) -> str:
    """One entry of the table."""
    if metric in ("n_missing", "n_lost"):
        return f"{np.nansum(values):.0f}"
    summary = summarize(values, metric in HIGHER_IS_BETTER)
    if not summary.n:
        return ""
    spread = "" if math.isnan(summary.std) else f" +- {summary.std:.3g}"
    return f"{summary.mean:.4g}{spread}"


def comparison_line(row: dict) -> list[str]:
    """One comparison as the table shows it."""
    interval = "" if math.isnan(row["t95_low"]) else f"{row['t95_low']:+.4g} to {row['t95_high']:+.4g}"
    p = "" if math.isnan(row["wilcoxon_p"]) else f"{row['wilcoxon_p']:.3g}"
    return [f"{row['first']} - {row['other']}", SHOWN[row["metric"]], f"{row['difference']:+.4g}", interval, p]


def aligned(lines: list[list[str]]) -> list[str]:
    """Cells padded to columns, the first to the left."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return [
        "  ".join(
            f"{text:<{w}}" if k == 0 else f"{text:>{w}}" for k, (text, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]


def methods_of(rows: list[dict]) -> list[str]:
    """Names of methods in the order of the rows."""
    return list(dict.fromkeys(row["method"] for row in rows))


def column(rows: list[dict], method: str, metric: str) -> list[float]:
    """One metric of one method, a value a pair."""
    return [row[metric] for row in rows if row["method"] == method]


def write_table(path: Path, columns: Sequence[str], rows: list[dict]) -> None:
    """Write csv, NaN as an empty field."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
