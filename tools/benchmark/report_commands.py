"""The commands `regbundles benchmark report ...`: pictures and tables from the csv files of benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]

report = typer.Typer(no_args_is_help=True, help="Draw pictures from the csv files of benchmarks.")


@report.command("eoir")
def draw_eoir(
    results: Annotated[str, typer.Option(help="folder of eoir-*.csv")] = "results",
    out: Annotated[str, typer.Option(help="folder for the pictures")] = "bundles/eoir/docs",
) -> None:
    """Dice against multiply-adds and against smoothness, a picture for each data set."""
    from .report_eoir import report_eoir

    for path in report_eoir(Path(results), Path(out)):
        print(path)


@report.command("lung")
def table_lung(
    scores: Annotated[str, typer.Option(help="folder that evaluate wrote for the LungCT data set")],
    bundle: Annotated[list[str] | None, typer.Option(help="METHOD=FOLDER of a bundle: count its parameters")] = None,
) -> None:
    """Dice of lung masks between patients, within one, and pooled: a table and lung.csv beside the scores."""
    from ..methods import split
    from .report_lung import report_lung

    named = dict(split(text, "=", "--bundle METHOD=FOLDER") for text in bundle or ())
    path, text = report_lung(Path(scores), {name: Path(folder) for name, folder in named.items()})
    print(text, path, sep="\n")


@report.command("pairs")
def table_pairs(
    scores: Annotated[str, typer.Option(help="csv of benchmark pairs")],
    picture: Annotated[str, typer.Option(help="where the curve goes")] = "bundles/svf/docs/pairs.png",
) -> None:
    """SVF and the best peer at equal smoothness: a table with paired intervals, and a curve."""
    from .report_pairs import report_pairs

    print(report_pairs(Path(scores), Path(picture)))


@report.command("speed")
def table_speed(
    results: Annotated[str, typer.Option(help="folder of lncc-*.csv, epoch-*.csv and network-*.csv")] = "results",
    out: Annotated[str, typer.Option(help="folder for the pictures")] = "docs",
) -> None:
    """Tables of LNCC, epochs and networks, and a picture of what LNCC takes of a training step."""
    from .report_speed import report_speed

    print(report_speed(Path(results), Path(out)))


@report.command("intervals")
def table_intervals(
    scores: Annotated[str, typer.Option(help="csv of benchmark intervals")],
    starts: Annotated[int, typer.Option(help="from how many of them the spread was taken")] = 4,
) -> None:
    """How many of the held-out errors lie within their lengths: by method and part of the image, over pairs."""
    from .report_intervals import report_intervals

    print(report_intervals(Path(scores), starts))


@report.command("accuracy")
def table_accuracy(scores: Annotated[str, typer.Option(help="csv of benchmark accuracy")]) -> None:
    """Every method's overlap, smoothness, time and memory; Dice at equal smoothness."""
    from .report_accuracy import report_accuracy

    print(report_accuracy(Path(scores)))


@report.command("quality")
def table_quality(
    pairs: Annotated[str, typer.Option(help="csv of benchmark quality")],
    out: Annotated[str, typer.Option(help="folder for the table's csv")] = "results",
) -> None:
    """Hits and false alarms of the self-check on the half that its limits have not seen."""
    from .report_quality import report_quality

    print(report_quality(Path(pairs), Path(out)))


@report.command("export")
def table_export(scores: Annotated[str, typer.Option(help="csv of benchmark export")]) -> None:
    """Exported networks: megabytes, seconds, and the difference from torch."""
    from .report_exports import report_exports

    print(report_exports(Path(scores)))


@report.command("reliability")
def table_reliability(
    counts: Annotated[str, typer.Option(help="csv of make reliability")] = "results/reliability.csv",
) -> None:
    """Bad inputs, attacks, faults and kills: how many were tried, how many went right, and by the libraries alone."""
    from .report_reliability import report_reliability

    print(report_reliability(Path(counts)))
