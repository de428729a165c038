"""The README's tables and the picture of what LNCC takes of a training step, from the csv files of the benchmarks."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from common.errors import RegInputError
from common.report import save_figure

__all__ = ["report_speed", "step_figure"]

Row = Mapping[str, str]
Column = tuple[str, Callable[[Row], str]]

LNCC: tuple[Column, ...] = (
    ("size", lambda row: row["size"]),
    ("window", lambda row: row["window"]),
    ("backend", lambda row: f"`{row['backend']}`"),
    ("forward, s", lambda row: digits(row["forward_s_median"])),
    ("backward, s", lambda row: digits(row["backward_s_median"])),
    ("both, s", lambda row: digits(row["total_s_median"])),
    ("peak memory, MiB", lambda row: f"{float(row['peak_memory_mib']):.0f}"),
    ("against five convolutions", lambda row: digits(row["times_faster_than_five_conv"])),
    ("against MONAI's loss", lambda row: digits(row["times_faster_than_monai"])),
    ("times the floor", lambda row: digits(row["times_the_floor"])),
)
EPOCH: tuple[Column, ...] = (
    ("network", lambda row: row["network"]),
    ("LNCC", lambda row: f"`{row['backend']}`"),
    ("step, s", lambda row: digits(row["step_s_median"])),
    ("of it LNCC, s", lambda row: digits(row["lncc_s_median"])),
    ("epoch of 403, min", lambda row: digits(float(row["epoch_s"]) / 60)),
    ("saved a step, s", lambda row: digits(row["saved_s"])),
    ("saved, %", lambda row: row["saved_percent"]),
)
NETWORK: tuple[Column, ...] = (
    ("network", lambda row: row["network"]),
    ("parameters", lambda row: f"{int(row['parameters']):,}"),
    ("multiply-adds, G", lambda row: row["multiply_adds_g"]),
    ("registration, s", lambda row: digits(row["forward_s_median"])),
    ("its memory, MiB", lambda row: f"{float(row['forward_memory_mib']):.0f}"),
    ("training step, s", lambda row: digits(row["step_s_median"])),
    ("its memory, MiB", lambda row: f"{float(row['step_memory_mib']):.0f}"),
)
SUBJECTS = {"lncc": LNCC, "epoch": EPOCH, "network": NETWORK}
COLORS = {"network": "#0072b2", "LNCC": "#d55e00"}  # told apart by the color-blind


def report_speed(results: Path, out: Path) -> str:
    """Tables of every ``lncc-*.csv``, ``epoch-*.csv`` and ``network-*.csv``; a picture for each ``epoch-*.csv``.

    Args:
        results: folder of the csv files.
        out: folder for the pictures, named as the csv files are.

    Returns:
        The tables in Markdown, each under its file's name, device and commit.

    Raises:
        RegInputError: if there is no such file, or one has other columns.
    """
    paths = [(subject, path) for subject in SUBJECTS for path in sorted(Path(results).glob(f"{subject}-*.csv"))]
    if not paths:
        raise RegInputError(f"{results} has no {', no '.join(f'{s}-*.csv' for s in SUBJECTS)}; run a benchmark first.")
    parts = []
    for subject, path in paths:
        rows = read(path)
        try:
            parts.append(f"{origin(path, rows)}\n\n{markdown(SUBJECTS[subject], rows)}")
        except KeyError as missing:
            raise RegInputError(f"{path} has no column {missing}; write it anew with `regbundles benchmark`.") from None
        if subject == "epoch":
            save_figure(step_figure(rows), Path(out) / f"{path.stem}.png")
    return "\n\n".join(parts)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a csv; RegInputError for a file without any."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise RegInputError(f"{path} has no row; write it anew with `regbundles benchmark`.")
    return rows


def origin(path: Path, rows: Sequence[Row]) -> str:
    """One line: which file, on what device, at which commits."""
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    first = rows[0]
    size = f"{first['size']}, " if len({row["size"] for row in rows}) == 1 else ""
    return (
        f"`{path.name}`: {size}{first['device']}, {first['threads']} threads, torch {first['torch']}, "
        f"median of {first['runs']}, commit {commits}."
    )


def markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A table."""
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[cell(row) for _, cell in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def digits(value: str | float) -> str:
    """Three significant digits, without an exponent; nothing stays nothing."""
    if value == "":
        return ""
    number = float(f"{float(value):.3g}")
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:g}"


def step_figure(rows: Sequence[Row]) -> Figure:
    """Seconds of a training step by network and form of the loss, the part of LNCC on top of the network's."""
    figure = Figure(figsize=(8, 0.34 * len(rows) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    lncc = [float(row["lncc_s_median"]) for row in rows]
    rest = [max(float(row["step_s_median"]) - part, 0) for row, part in zip(rows, lncc, strict=True)]
    names = [f"{row['network']}, {row['backend']}" for row in rows]
    axes.barh(names, rest, color=COLORS["network"], label="network, smoothness, optimizer")
    axes.barh(names, lncc, left=rest, color=COLORS["LNCC"], label="LNCC, forward and backward")
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a training step")
    first = rows[0]
    axes.set_title(f"{first['size']}, {first['device']}, torch {first['torch']}", fontsize=9)
    axes.legend(fontsize=8)
    return figure
