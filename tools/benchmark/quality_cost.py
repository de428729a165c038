"""What the self-check costs beside the registration, on a phantom of any size."""

import time
from pathlib import Path
from statistics import median

import torch

from common.geometry import warp_mm
from common.phantom import phantom_subject
from common.quality import self_check
from common.registration import Grid, Images, fields_of
from common.starts import start_field

from .measuring import file_name, stack_of, write

__all__ = ["benchmark_quality_cost"]


def benchmark_quality_cost(out: Path, size: tuple[int, ...], runs: int, *, threads: int, command: str) -> Path:
    """Write the median of the seconds, and of the processor's seconds, that a check takes, as csv.

    Args:
        out: folder for the csv.
        size: of the pair.
        runs: that are timed, after one that is not.
        threads: of torch.
        command: for the column of that name.
    """
    torch.set_num_threads(threads)
    subject = phantom_subject(0, size)
    grid = Grid(size, subject.affine)
    ddf = start_field(size, torch.Generator().manual_seed(0))[0]
    answer = {"ddf": ddf, "starts": 1.1 * ddf[None]}
    fields = fields_of(answer, subject.affine, grid, grid, inverse=False)
    image = subject.image[None]
    images = Images(image, image, warp_mm(image, subject.affine, fields.total, subject.affine), None, None, None)
    seconds = []
    for _ in range(runs + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        self_check(fields, images, answer, subject.affine, {})
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = (round(median(values), 3) for values in zip(*seconds[1:], strict=True))
    return write(
        out / file_name("quality-cost", "cpu", threads),
        [{"s": wall, "cpu_s": cpu, "runs": runs, **stack_of(size, "cpu", threads), "command": command}],
    )
