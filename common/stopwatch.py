"""How long each step of a registration took, by the step's name."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch", "now"]


def now() -> float:
    """Seconds of a clock, read when the GPU, if there is one, has done what it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Adds up seconds by name; steps follow each other, one inside another would count twice.

    Args:
        seconds: what was measured before.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds = {name: float(value) for name, value in (seconds or {}).items()}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time inside a ``with`` under a name, also where it ends by an error."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count what was measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
