"""The pages of an evaluation's worst pairs: ``reports/<method>/<pair>/`` with a report, a thumbnail and its scores."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib

from common.geometry import resample_mm
from common.metrics import landmark_errors_mm, warp_label
from common.pair_reports import WorstPairs, save_pair, view_in
from common.preflight import check_image
from common.registration import Images, landmark_scores, pair_scores
from common.spatial import warp

from .pair_scores import PairScores, Truth, as_batch
from .predictions import Identity, Pair, Prediction

__all__ = ["PairPages"]


class PairPages:
    """Keeps pages of the worst pairs of each method.

    Args:
        folder: for ``<method>/<pair>/``.
        methods: their names.
        count: pairs of each; -1 keeps all, 0 none.
        names: of the labels by their values.
        labels: the values to score.
    """

    def __init__(
        self, folder: Path, methods: Iterable[str], count: int, names: Mapping[int, str], labels: tuple[int, ...]
    ) -> None:
        self.worst = {name: WorstPairs(folder / name, count) for name in methods}
        self.names = {str(value): name for value, name in names.items()}
        self.labels = labels

    def offer(self, method: str, pair: Pair, prediction: Prediction, truth: Truth, found: PairScores) -> None:
        """Write the pages of a scored prediction if it is among the worst of its method so far."""

        def write(folder: Path) -> None:
            images = images_of(pair, prediction, truth)
            ddf, grid = prediction.ddf.float(), pair.fixed_grid
            header = {"spacing_mm": grid.spacing_mm, "orientation": "".join(nib.aff2axcodes(grid.affine))}
            labels = self.labels if images.fixed_label is not None else ()
            scores = pair_scores(ddf, images, labels, grid.spacing_mm) | landmarks(pair, prediction, truth)
            names = {"fixed": pair.fixed.name, "moving": pair.moving.name}
            metrics = {**names, **scores, "settings": {"method": method}}
            save_pair(folder, view_in(images, ddf, header), metrics, self.names)

        self.worst[method].offer(pair.name, badness(found.pair), write)


def badness(scores: Mapping[str, float]) -> float:
    """The larger the worse: by Dice, without labels by TRE, without both by SDlogJ."""
    known = (-scores["dice"], scores["tre_mm"], scores["sdlogj"])
    return next((value for value in known if not math.isnan(value)), math.nan)


def images_of(pair: Pair, prediction: Prediction, truth: Truth) -> Images:
    """The pair on the fixed grid, before and after, outside of the moving image its background."""
    ndim, grid = len(pair.fixed_grid.size), pair.fixed_grid
    fixed, moving = (as_batch(check_image(path).voxels, ndim).float() for path in (pair.fixed, pair.moving))
    low = moving.amin()
    labels = {"fixed_label": None, "moving_label": None, "warped_label": None}
    if truth.fixed_label is not None and truth.moving_label is not None:
        still = Identity().read(pair).offset
        labels = {"fixed_label": truth.fixed_label, "moving_label": warp_label(truth.moving_label, still)}
        labels["warped_label"] = warp_label(truth.moving_label, prediction.offset)
    return Images(
        fixed=fixed,
        moving=resample_mm(moving - low, pair.moving_grid.affine, grid.affine, grid.size) + low,
        warped=warp(moving - low, prediction.offset.float()) + low,
        **labels,
    )


def landmarks(pair: Pair, prediction: Prediction, truth: Truth) -> dict:
    """TRE in mm before and after, where there are landmarks."""
    if truth.fixed_keypoints is None or truth.moving_keypoints is None:
        return {}
    points = (truth.fixed_keypoints, truth.moving_keypoints, pair.moving_grid.spacing_mm)
    offsets = (Identity().read(pair).offset, prediction.offset)
    return landmark_scores(*(landmark_errors_mm(offset, *points)[0] for offset in offsets))
