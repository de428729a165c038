"""A number of threads for the while of a test."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def set_threads(count: int) -> Iterator[None]:
    """Let torch and the kernels use ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
