"""The table of the paper's section III: overlap and folds of a data set's pairs, beside the rows that it prints."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from common.files import save_atomically
from common.regularity import folds
from common.scoring import MeanDice, PairMetric

__all__ = ["DiceBefore", "FoldedVoxels", "PaperTable"]

logger = logging.getLogger(__name__)

HEADER = ("Method", "Avg. DSC", "det J <= 0", "det J <= 0 (%)")
FORMATS = {"dice": "{:.3f} ({:.3f})", "count": "{:.1f} ({:.2f})", "percent": "{:.2e} ({:.2e})"}


class DiceBefore(MeanDice):
    """Dice of the labels as they were prepared: nothing moves."""

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Mean Dice in [0, 1] of a pair, its ddf ignored."""
        return super().of_pair(torch.zeros_like(ddf), pair)


class FoldedVoxels(PairMetric):
    """Voxels whose Jacobian determinant is not positive, over the whole grid.

    Args:
        percent: of all voxels instead of their number.
    """

    def __init__(self, percent: bool = False) -> None:
        super().__init__()
        self.percent = percent

    def of_pair(self, ddf: Tensor, pair: dict[str, Tensor]) -> float:
        """Of one ddf (1, N, *S)."""
        found = folds(ddf)
        return float(found.percent if self.percent else found.count)


class PaperTable:
    """Handler of an evaluator: writes the table as markdown and logs it, means over pairs with standard deviations.

    Args:
        path: file to write.
        title: of the data set.
        published: the paper's rows, four texts each.
        metrics: "before" and "dice" (overlap), "count" and "percent" (folds): the engine's :class:`PairMetric` objects.
    """

    def __init__(
        self, path: str, title: str, published: Sequence[Sequence[str]], metrics: Mapping[str, PairMetric]
    ) -> None:
        self.path = Path(path)
        self.title = title
        self.published = published
        self.metrics = metrics

    def attach(self, engine: Engine) -> None:
        """Write when the engine is done."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write and log, on the first rank."""
        if idist.get_rank() > 0:
            return
        text = self.text()
        save_atomically(lambda path: path.write_text(text), self.path)
        logger.info("%s\nThe table is in %s.", text, self.path)

    def text(self) -> str:
        """The table in markdown."""
        pairs = len(self.metrics["dice"].values)
        rows = [
            [*HEADER],
            ["---"] * len(HEADER),
            *(["paper: " + name, *values] for name, *values in self.published),
            [f"here, {pairs} pairs: as prepared", self.cell("dice", "before"), "", ""],
            [f"here, {pairs} pairs: Patch FCN", *(self.cell(form, form) for form in FORMATS)],
        ]
        return "\n".join([f"{self.title}: mean (standard deviation) over pairs", "", *map(line, rows), ""])

    def cell(self, form: str, name: str) -> str:
        """A metric's mean and standard deviation; pairs without a value do not count."""
        values = torch.tensor(self.metrics[name].values, dtype=torch.float64)
        values = values[~values.isnan()]
        return FORMATS[form].format(float(values.mean()), float(values.std()))


def line(cells: Sequence[str]) -> str:
    """A row of a markdown table."""
    return f"| {' | '.join(cells)} |"
