"""The commands `regbundles benchmark quality`, `limits` and `quality-cost`: of the self-check."""

from pathlib import Path
from typing import Annotated

import typer

from ..arguments import Out, command_line, numbers

__all__ = ["limits", "quality", "quality_cost"]


def quality(
    data: Annotated[str, typer.Option(help="folder of malc, hippocampus_mr, liver_mr, lung_ct and brain_pair")],
    dataset_dir: Annotated[str, typer.Option(help="MALC as `data prepare malc --spacing 2` leaves it")],
    work: Annotated[str, typer.Option(help="folder for scans and registrations, kept")],
    out: Out = "results",
    weights: Annotated[str | None, typer.Option(help="model.pt of `benchmark accuracy`'s EOIR; default none")] = None,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
    limit: Annotated[int | None, typer.Option(help="registrations of each half; all by default")] = None,
) -> None:
    """Signals of the self-check over registrations that worked and that did not. A stopped run goes on."""
    from .quality import benchmark_quality

    places = {"data": Path(data), "malc": Path(dataset_dir).absolute(), "out": Path(out), "work": Path(work)}
    network = None if weights is None else Path(weights).absolute()
    print(benchmark_quality(**places, weights=network, threads=threads, limit=limit, command=command_line()))


def limits(
    pairs: Annotated[str, typer.Option(help="csv of benchmark quality")],
    path: Annotated[str, typer.Option(help="where the limits go")] = "common/quality_limits.json",
) -> None:
    """Choose the self-check's limits by the calibration half of a csv of `benchmark quality`."""
    from .quality_limits import write_limits

    print(write_limits(Path(pairs), Path(path)))


def quality_cost(
    out: Out = "results",
    size: Annotated[str, typer.Option(help="of the pair")] = "160x192x224",
    runs: Annotated[int, typer.Option(help="timed runs")] = 5,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
) -> None:
    """Seconds that the self-check takes beside a registration."""
    from .quality_cost import benchmark_quality_cost

    grid = tuple(numbers(size, "x", "--size"))
    print(benchmark_quality_cost(Path(out), grid, runs, threads=threads, command=command_line()))
