"""Metric handlers: what ``common.metrics`` says of each pair that an evaluator sees, their means and a table."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler

from .files import save_atomically
from .metrics import dice, ndv, sdlogj, tre_mm, warp_label

__all__ = ["MeanDice", "MeanTRE", "NonDiffeomorphicVolume", "PairMetric", "SDLogJ", "WritePairMetrics"]

logger = logging.getLogger(__name__)


class PairMetric(Metric):
    """Mean over pairs of a value that one pair's ddf and tensors give; NaN values do not count.

    Attached to an evaluator it reads ``engine.state.output`` as MONAI makes it: a list of {"pred", "label", ...}. On
    several ranks every one ends with the values of all pairs, in the data set's order and each once.
    """

    def __init__(self) -> None:
        super().__init__(output_transform=lambda output: output)

    def reset(self) -> None:
        """Forget every pair."""
        self.values: list[float] = []

    def update(self, output: Sequence[dict]) -> None:
        """Add the pairs of one batch."""
        for item in output:
            pair = {key: value[None] for key, value in item[Keys.LABEL].items()}
            self.values.append(float(self.of_pair(item[Keys.PRED][None], pair)))

    def completed(self, engine: Engine, name: str) -> None:
        """Gather what the ranks have, then put the mean into the engine's metrics."""
        sampler = getattr(engine.data_loader, "sampler", None)
        if idist.get_world_size() > 1 and isinstance(sampler, DistributedSampler):
            self.values = from_all_ranks(self.values, len(sampler.dataset))
        super().completed(engine, name)

    def compute(self) -> float:
        """The mean, NaN when no pair had a value."""
        return float(torch.tensor(self.values, dtype=torch.float64).nanmean())

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """The value of one pair, ddf (1, N, *S) and its tensors with a batch axis of 1."""
        raise NotImplementedError


class MeanDice(PairMetric):
    """Dice of the nearest-warped label against the fixed label, mean over the labels present in the fixed one.

    Args:
        labels: the values to score; ``None`` scores every value above 0 of the fixed label.
    """

    def __init__(self, labels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.labels = None if labels is None else [int(v) for v in labels]

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Mean Dice in [0, 1], NaN for a pair without labels."""
        if "fixed_label" not in pair or "moving_label" not in pair:
            return float("nan")
        moving, fixed = pair["moving_label"], pair["fixed_label"]
        labels = self.labels or [int(v) for v in fixed.unique() if v > 0]
        return float(dice(warp_label(moving, ddf), fixed, labels, moving).nanmean())


class MeanTRE(PairMetric):
    """Target registration error in mm, mean over the pair's landmarks, ``common.metrics.tre_mm``.

    Args:
        spacing_mm: voxel size of the grid that the pairs are on, per array axis.
    """

    def __init__(self, spacing_mm: Sequence[float]) -> None:
        super().__init__()
        self.spacing_mm = [float(s) for s in spacing_mm]

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Mean distance in mm, NaN for a pair without landmarks."""
        if "fixed_keypoints" not in pair or "moving_keypoints" not in pair:
            return float("nan")
        return float(tre_mm(ddf, pair["fixed_keypoints"], pair["moving_keypoints"], self.spacing_mm))


class SDLogJ(PairMetric):
    """Standard deviation of log det J, ``common.metrics.sdlogj``."""

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Over the whole grid."""
        return float(sdlogj(ddf))


class NonDiffeomorphicVolume(PairMetric):
    """Non-diffeomorphic volume in percent, ``common.metrics.ndv``."""

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Over the whole grid."""
        return float(ndv(ddf))


class WritePairMetrics:
    """Handler of an evaluator: one row a pair, one column a metric, and a last row with the means.

    Args:
        path: csv file to write.
        pairs: the datalist's pairs, in the order of the loader, for their names.
        metrics: names of the engine's :class:`PairMetric` objects and the objects.
    """

    def __init__(self, path: str, pairs: Sequence[dict], metrics: dict[str, PairMetric]) -> None:
        self.path = Path(path)
        self.pairs = pairs
        self.metrics = metrics

    def attach(self, engine: Engine) -> None:
        """Write when the engine is done."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file and log the means, on the first rank."""
        if idist.get_rank() > 0:
            return
        names = [[Path(pair[role]).name for role in ("fixed", "moving")] for pair in self.pairs]
        columns = [metric.values for metric in self.metrics.values()]
        rows = [[*name, *values] for name, *values in zip(names, *columns, strict=True)]
        means = ["mean", "", *[metric.compute() for metric in self.metrics.values()]]

        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([["fixed", "moving", *self.metrics], *rows, means])

        save_atomically(write, self.path)
        summary = ", ".join(f"{name} {value:.4f}" for name, value in zip(self.metrics, means[2:], strict=True))
        logger.info("%d pairs: %s; each pair's values are in %s.", len(rows), summary, self.path)


def from_all_ranks(values: list[float], count: int) -> list[float]:
    """The values of ``count`` items that a DistributedSampler dealt to the ranks in turn, in order, repeats dropped."""
    ranks = idist.get_world_size()
    dealt: list[list[float]] = [[] for _ in range(ranks)]
    torch.distributed.all_gather_object(dealt, values)
    return [dealt[p % ranks][p // ranks] for p in range(count)]
