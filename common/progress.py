"""A progress bar over the steps of one optimisation."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

__all__ = ["step_bar"]


@contextmanager
def step_bar(name: str, steps: int, show: bool = True) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Draw a bar of ``steps`` steps; yields the ``report`` of :func:`common.instance.minimize`, for calls in a row.

    Beside the bar stand the terms of the newest step. It is closed whatever happens; away from a terminal it writes a
    line a minute instead of redrawing.
    """
    interval = 0.5 if sys.stderr.isatty() else 60
    with tqdm(total=steps, desc=name, disable=not show, mininterval=interval, dynamic_ncols=True) as bar:

        def report(step: int, values: Mapping[str, float]) -> None:
            bar.set_postfix({key: f"{value:.4f}" for key, value in values.items()}, refresh=False)
            bar.update()

        yield report
