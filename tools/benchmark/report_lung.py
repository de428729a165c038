"""Lung-mask Dice of two patients, of one, and of both together, from what ``regbundles evaluate`` wrote.

The table is laid out as Table 1 of the NCF paper (arXiv 2503.00760), which gives the mean over inter- and intra-patient
pairs, that over intra-patient pairs and the number of parameters.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.bundle import ConfigParser

from common.errors import RegInputError
from common.files import save_atomically

from ..evaluation_tables import aligned, write_table
from ..statistics import Summary, summarize

__all__ = ["GROUPS", "report_lung"]

GROUPS = ("inter", "intra", "pooled")
CASE = re.compile(r"LungCT_(\d{4})_000[01]\b")
COLUMNS = ("method", *(f"{group}_{what}" for group in GROUPS for what in ("n", "dice", "std")), "parameters")


def report_lung(scores: Path, bundles: Mapping[str, Path] | None = None) -> tuple[Path, str]:
    """Write ``lung.csv`` beside the scores, a row a method.

    Args:
        scores: folder of an evaluation of the LungCT data set, with its ``pairs.csv``.
        bundles: by the method's name, bundles whose network's parameters are counted.

    Returns:
        The path of ``lung.csv`` and the table as text.

    Raises:
        RegInputError: if the scores are missing, of other images or without Dice, or a bundle has no such method or no
            network.
    """
    dice = read_dice(scores / "pairs.csv")
    strangers = sorted(set(bundles or {}) - set(dice))
    if strangers:
        raise RegInputError(
            f"bundles are given for {strangers}, expected names of scored methods ({sorted(dice)}); correct the names."
        )
    counts = {name: count_parameters(folder) for name, folder in (bundles or {}).items()}
    summaries = {name: summaries_of(values) for name, values in dice.items()}
    rows = [row_of(name, groups, counts.get(name)) for name, groups in summaries.items()]
    save_atomically(lambda path: write_table(path, COLUMNS, rows), scores / "lung.csv")
    return scores / "lung.csv", "\n".join(text_of(summaries, counts))


def read_dice(path: Path) -> dict[str, dict[str, list[float]]]:
    """Dice of every pair by method and by "intra" or "inter", which the names of the images tell."""
    if not path.is_file():
        raise RegInputError(f"{path} is missing, expected the scores of an evaluation; run `regbundles evaluate`.")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        cases = [CASE.match(row.get(role) or "") for role in ("fixed", "moving")]
        if None in cases or not row.get("dice"):
            raise RegInputError(
                f"{path} has the pair {row.get('pair')!r} with the Dice {row.get('dice')!r}, expected Dice of LungCT "
                "images; evaluate the data set that `regbundles data prepare lung-ct` wrote."
            )
        group = "intra" if cases[0][1] == cases[1][1] else "inter"
        found.setdefault(row["method"], {"inter": [], "intra": []})[group].append(float(row["dice"]))
    return found


def summaries_of(dice: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    """Mean and deviation of a method's groups."""
    values = {**dice, "pooled": [*dice["inter"], *dice["intra"]]}
    return {group: summarize(values[group], higher_is_better=True) for group in GROUPS}


def count_parameters(folder: Path) -> int:
    """Parameters of the network that a bundle's ``inference.json`` defines."""
    config = folder / "configs" / "inference.json"
    if not config.is_file():
        raise RegInputError(f"{config} is missing, expected a bundle's config; name the bundle's folder.")
    parser = ConfigParser()
    parser.read_config(str(config))
    parser["bundle_root"] = str(folder.absolute())
    if "network_def" not in parser:
        raise RegInputError(f"{config} has no network_def, expected a network to count; leave this bundle out.")
    return sum(parameter.numel() for parameter in parser.get_parsed_content("network_def").parameters())


def row_of(name: str, groups: Mapping[str, Summary], parameters: int | None) -> dict:
    """A method's row of ``lung.csv``."""
    row: dict = {"method": name}
    for group, summary in groups.items():
        row |= {f"{group}_n": summary.n, f"{group}_dice": summary.mean, f"{group}_std": summary.std}
    return row | {"parameters": math.nan if parameters is None else parameters}


def text_of(summaries: Mapping[str, Mapping[str, Summary]], counts: Mapping[str, int]) -> list[str]:
    """The table as lines, Dice with three decimals as the paper has it."""
    first = next(iter(summaries.values()))
    lines = [["method", *(f"{group} ({first[group].n})" for group in GROUPS), "parameters (M)"]]
    for name, groups in summaries.items():
        parameters = f"{counts[name] / 1e6:.2f}" if name in counts else ""
        lines.append([name, *(cell(groups[group]) for group in GROUPS), parameters])
    return ["Dice of the lung masks, mean +- standard deviation over pairs (their number)", "", *aligned(lines)]


def cell(summary: Summary) -> str:
    """One entry."""
    if not summary.n:
        return ""
    return f"{summary.mean:.3f}" + ("" if math.isnan(summary.std) else f" +- {summary.std:.3f}")
