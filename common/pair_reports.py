"""Reports of pairs that an evaluator sees: those of a data set on its own grid, the worst ones or all."""

import heapq
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor

from .errors import first_line
from .files import whole_folder
from .metrics import landmark_errors_mm, warp_label
from .naming import Names, unique_names
from .registration import Images, landmark_scores, pair_scores
from .report_data import PairView
from .report_files import write_view
from .report_page import save_page
from .scoring import PairMetric
from .spatial import warp

__all__ = ["WorstPairs", "WriteReports", "images_in", "save_pair", "validation_page", "view_in"]

logger = logging.getLogger(__name__)


def images_in(output: list[dict] | dict) -> tuple[Images, Tensor, dict[str, Tensor]]:
    """The first pair of what an evaluator's step returned.

    Args:
        output: MONAI's {"image", "pred", "label": {"fixed_label"?, ...}} of a batch, or a list of them a pair.

    Returns:
        Its images, its ddf (1, N, *S) and all else that came with the pair, with a batch axis of 1.
    """
    one = isinstance(output, list)  # decollated: without their batch axis
    item = output[0] if one else output

    def first(value: Tensor) -> Tensor:
        value = value[None] if one else value[:1]
        return value.detach().as_subclass(Tensor)

    pair = {key: first(value) for key, value in (item.get(Keys.LABEL) or {}).items() if isinstance(value, Tensor)}
    ddf = first(item[Keys.PRED])
    moving, fixed = first(item[Keys.IMAGE]).chunk(2, dim=1)
    both = "fixed_label" in pair and "moving_label" in pair
    images = Images(
        fixed=fixed,
        moving=moving,
        warped=warp(moving, ddf),
        fixed_label=pair["fixed_label"] if both else None,
        moving_label=pair["moving_label"] if both else None,
        warped_label=warp_label(pair["moving_label"], ddf) if both else None,
    )
    return images, ddf, pair


def view_in(images: Images, ddf: Tensor, header: Mapping | None = None) -> PairView:
    """A pair as figures and reports show it.

    Args:
        images: the pair.
        ddf: (1, N, *S) in voxels.
        header: the data set's ``spacing_mm`` and ``orientation``; by default voxels of 1 mm, axes as in RAS.
    """
    grid = {"spacing_mm": [1.0] * ddf.shape[1], "orientation": "RAS"} | dict(header or {})
    return PairView(
        images.fixed,
        images.moving,
        images.warped,
        ddf,
        grid["spacing_mm"],
        grid["orientation"],
        images.fixed_label,
        images.warped_label,
    )


def labels_in(images: Images, header: Mapping | None) -> list[int]:
    """The values to score: those of the data set's labels, else all above 0; none without label maps."""
    if images.fixed_label is None:
        return []
    named = (header or {}).get("labels")
    return list(named) if named else [int(v) for v in images.fixed_label.unique() if v > 0]


def validation_page(path: Path, view: PairView, images: Images, epoch: int, header: Mapping | None = None) -> None:
    """Replace the page of the last validation's first pair."""
    scores = pair_scores(view.ddf, images, labels_in(images, header))
    told = {"fixed": "fixed image", "moving": f"Epoch {epoch}: moving image", "label_names": names_of(header)}
    save_page(path, view, told | scores)


def names_of(header: Mapping | None) -> dict[str, str]:
    """A data set's label names by their values as texts."""
    return {str(value): name for value, name in ((header or {}).get("labels") or {}).items()}


class WorstPairs:
    """Folders of the pairs with the worst scores so far: one that is no longer among them goes.

    Args:
        folder: where they are.
        count: how many; -1 keeps all.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.kept: list[tuple[float, int, str]] = []
        self.seen = 0

    def offer(self, name: str, badness: float, write: Callable[[Path], None]) -> None:
        """Let ``write`` fill a folder if this pair is among the worst; a failure is told in a warning, no more.

        Args:
            name: of its folder.
            badness: the larger the worse; NaN, nothing known, is better than any number.
            write: called with the folder, which is there.
        """
        self.seen += 1
        entry = (-math.inf if math.isnan(badness) else badness, -self.seen, name)
        if len(self.kept) == self.count:
            if not self.kept or entry <= self.kept[0]:
                return
            shutil.rmtree(self.folder / heapq.heappop(self.kept)[2], ignore_errors=True)
        try:
            with whole_folder(self.folder / name) as folder:
                write(folder)
        except Exception as error:
            logger.warning("%s: the report could not be written (%s).", name, first_line(error))
        else:
            heapq.heappush(self.kept, entry)


class WriteReports:
    """Handler of an evaluator: folders with ``report.html``, ``thumbnail.jpg`` and ``metrics.json`` of the worst pairs.

    Attach it after the metric that it looks at. On several ranks each one keeps the worst of its own pairs.

    Args:
        folder: for the pairs' folders; what an earlier run left in it goes.
        pairs: the datalist's pairs, in the order of the loader, for their names.
        metric: what says how bad a pair is.
        count: how many pairs; -1 takes all, 0 none.
        lower_is_better: whether the metric is an error.
        header: the data set's, for spacing, orientation and labels.
        about: what ``metrics.json`` has as "settings".
    """

    def __init__(
        self,
        folder: str,
        pairs: Sequence[dict],
        metric: PairMetric,
        count: int = 4,
        lower_is_better: bool = False,
        header: Mapping | None = None,
        about: Mapping | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.names = unique_names([(pair["fixed"], pair["moving"]) for pair in pairs])
        self.pairs = [{role: Path(pair[role]).name for role in ("fixed", "moving")} for pair in pairs]
        self.metric = metric
        self.sign = 1 if lower_is_better else -1
        self.header = header
        self.about = dict(about or {})
        self.worst = WorstPairs(self.folder, count)

    def attach(self, engine: Engine) -> None:
        """Clear the folder at the start, look at every pair."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __call__(self, engine: Engine) -> None:
        """Offer the pair of this step."""
        index = self.worst.seen * idist.get_world_size() + idist.get_rank()
        if index >= len(self.pairs):  # a sampler repeats pairs so that all ranks have as many
            return
        name, badness = self.names[index].folder, self.sign * self.metric.values[-1]
        self.worst.offer(name, badness, lambda folder: self._write(folder, index, engine.state.output))

    def _write(self, folder: Path, index: int, output: list[dict] | dict) -> None:
        images, ddf, pair = images_in(output)
        view = view_in(images, ddf, self.header)
        scores = pair_scores(ddf, images, labels_in(images, self.header), view.spacing_mm)
        if "fixed_keypoints" in pair and "moving_keypoints" in pair:
            points = (pair["fixed_keypoints"], pair["moving_keypoints"], view.spacing_mm)
            fields = (torch.zeros_like(ddf), ddf)
            scores |= landmark_scores(*(landmark_errors_mm(field, *points)[0].cpu() for field in fields))
        metrics = self.pairs[index] | scores | {"settings": self.about}
        save_pair(folder, view, metrics, names_of(self.header))


def save_pair(folder: Path, view: PairView, metrics: Mapping, label_names: Mapping[str, str]) -> None:
    """Write the three files of a pair under their plain names."""
    names = Names(folder.name)
    write_view(folder, names, lambda: view, {**metrics, "label_names": label_names})
    files = sorted({path.name for path in folder.iterdir()} | {names.metrics})
    (folder / names.metrics).write_text(json.dumps({**metrics, "files": files}, indent=2) + "\n")
