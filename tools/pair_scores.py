"""Everything that is said of one prediction for one pair: overlap, surface distance, landmark error, regularity."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.datalist import read_keypoints
from common.errors import RegInputError
from common.metrics import (
    dice,
    folds,
    hd95_mm,
    mean_over_labels,
    ndv,
    present_labels,
    sdlogj,
    sdlogj_l2r,
    tre_mm,
    warp_label,
    warp_label_linear,
)
from common.preflight import check_image, check_label

from .predictions import Pair, Prediction

__all__ = ["LABEL_COLUMNS", "PAIR_COLUMNS", "PairScores", "Rules", "Truth", "score"]

LABEL_COLUMNS = ("dice", "dice_linear", "hd95_mm", "hd95_voxels")
PAIR_COLUMNS = (
    *LABEL_COLUMNS,
    "tre_mm",
    "tre_l2r_mm",
    "sdlogj",
    "sdlogj_l2r",
    "ndv_percent",
    "folds",
    "folds_percent",
    "n_labels",
    "n_missing",
    "n_lost",
    "seconds",
)


@dataclass(frozen=True)
class Rules:
    """What can be scored in more than one way.

    Args:
        labels: values to score.
        lost_is_infinite: HD95 of a label that the warp lost: infinite as in Learn2Reg, else the image's diagonal.
        ndv_in_moving: NDV over the voxels where the moving image is above 0, as LUMIR has it, else over all.
        sdlogj_in_mask: both SDlogJ in the pair's ``fixed_mask``, as Learn2Reg's lung tasks have it, else over all.
    """

    labels: tuple[int, ...]
    lost_is_infinite: bool = False
    ndv_in_moving: bool = False
    sdlogj_in_mask: bool = False

    def check(self, pairs: Sequence[Pair]) -> None:
        """Raise RegInputError if a pair lacks what these rules need, or has nothing that is scored."""
        for pair in pairs:
            labels, points = (
                all(f"{role}_{part}" in pair.paths for role in ("fixed", "moving")) for part in ("label", "keypoints")
            )
            if not points and not (labels and self.labels):
                raise RegInputError(
                    f"the pair {pair.name} has no labels and no keypoints, expected those of both images; add them to "
                    "the datalist."
                )
            if self.sdlogj_in_mask and "fixed_mask" not in pair.paths:
                raise RegInputError(f"the pair {pair.name} has no fixed_mask, expected one for SDlogJ; add it.")
            if self.ndv_in_moving and pair.fixed_grid.size != pair.moving_grid.size:
                raise RegInputError(
                    f"the pair {pair.name} has images of {list(pair.fixed_grid.size)} and "
                    f"{list(pair.moving_grid.size)} voxels, expected one grid for NDV where the moving image is above "
                    "0; count all voxels."
                )


@dataclass(frozen=True)
class Truth:
    """What the scores of a pair are held against, read once for all methods; maps (1, 1, *S), points (1, K, N)."""

    fixed_label: Tensor | None
    moving_label: Tensor | None
    fixed_keypoints: Tensor | None
    moving_keypoints: Tensor | None
    ndv_mask: Tensor | None
    sdlogj_mask: Tensor | None

    @classmethod
    def read(cls, pair: Pair, rules: Rules) -> "Truth":
        """Read what a pair has and the rules need."""
        paths, ndim = pair.paths, len(pair.fixed_grid.size)

        def voxels(key: str) -> Tensor | None:
            return as_batch(check_label(paths[key]).voxels, ndim) if key in paths else None

        def points(key: str) -> Tensor | None:
            return read_keypoints(paths[key], ndim, torch.float64)[None] if key in paths else None

        return cls(
            fixed_label=voxels("fixed_label"),
            moving_label=voxels("moving_label"),
            fixed_keypoints=points("fixed_keypoints"),
            moving_keypoints=points("moving_keypoints"),
            ndv_mask=as_batch(check_image(pair.moving).voxels > 0, ndim) if rules.ndv_in_moving else None,
            sdlogj_mask=voxels("fixed_mask") if rules.sdlogj_in_mask else None,
        )


class PairScores(NamedTuple):
    """Attributes:
    labels: a row a label of :data:`LABEL_COLUMNS` besides ``label``; NaN where the pair lacks the label.
    pair: :data:`PAIR_COLUMNS`; NaN where the pair has nothing to score it by.
    """

    labels: list[dict[str, float]]
    pair: dict[str, float]


def score(prediction: Prediction, truth: Truth, pair: Pair, rules: Rules, seconds: float | None = None) -> PairScores:
    """Score one prediction.

    Args:
        prediction: of the pair, on the fixed grid.
        truth: of the pair.
        pair: for its grids.
        rules: what to score.
        seconds: what registering took; None is NaN.
    """
    labels, overlap = label_scores(prediction.offset, truth, pair, rules)
    values = {
        **dict.fromkeys(PAIR_COLUMNS, math.nan),
        **overlap,
        **landmark_scores(prediction.offset, truth, pair),
        **regularity_scores(prediction.ddf, truth),
        "seconds": math.nan if seconds is None else seconds,
    }
    return PairScores(labels, values)


def label_scores(
    offset: Tensor, truth: Truth, pair: Pair, rules: Rules
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """A row a label, and the means with the counts of missing and lost labels; nothing without both label maps."""
    fixed, moving, labels = truth.fixed_label, truth.moving_label, rules.labels
    if fixed is None or moving is None or not labels:
        return [], {}
    nearest, linear = warp_label(moving, offset), warp_label_linear(moving, offset)
    lost = math.inf if rules.lost_is_infinite else None
    columns = [
        dice(nearest, fixed, labels, moving),
        dice(linear, fixed, labels, moving),
        *surface_scores(nearest, fixed, moving, labels, pair.fixed_grid.spacing_mm, lost),
    ]
    values = dict(zip(LABEL_COLUMNS, columns, strict=True))
    rows = [{"label": k, **{c: float(v[0, i]) for c, v in values.items()}} for i, k in enumerate(labels)]
    present = present_labels(fixed, labels) & present_labels(moving, labels)
    counts = {
        "n_labels": int(present.sum()),
        "n_missing": int((~present).sum()),
        "n_lost": int((present & ~present_labels(nearest, labels)).sum()),
    }
    return rows, {column: float(mean_over_labels(value)) for column, value in values.items()} | counts


def surface_scores(
    warped: Tensor, fixed: Tensor, moving: Tensor, labels: Sequence[int], spacing_mm: list[float], lost: float | None
) -> tuple[Tensor, Tensor]:
    """HD95 in mm and in voxels, (1, L) each; on isotropic voxels the one is the other times the voxel size."""
    ones = [1.0] * len(spacing_mm)
    voxels = hd95_mm(warped, fixed, labels, ones, moving, lost)
    if np.allclose(spacing_mm, spacing_mm[0], rtol=1e-6, atol=0):
        return voxels * spacing_mm[0], voxels
    return hd95_mm(warped, fixed, labels, spacing_mm, moving, lost), voxels


def landmark_scores(offset: Tensor, truth: Truth, pair: Pair) -> dict[str, float]:
    """TRE with the field read linearly, and by Learn2Reg's cubic spline; in the moving image's mm."""
    if truth.fixed_keypoints is None or truth.moving_keypoints is None:
        return {}
    arguments = (offset, truth.fixed_keypoints, truth.moving_keypoints, pair.moving_grid.spacing_mm)
    return {"tre_mm": float(tre_mm(*arguments)), "tre_l2r_mm": float(tre_mm(*arguments, "cubic"))}


def regularity_scores(ddf: Tensor, truth: Truth) -> dict[str, float]:
    """SDlogJ in both definitions, folds over the whole grid, NDV of 3-D fields."""
    folded = folds(ddf)
    scores = {
        "sdlogj": float(sdlogj(ddf, truth.sdlogj_mask)),
        "sdlogj_l2r": float(sdlogj_l2r(ddf, truth.sdlogj_mask)),
        "folds": float(folded.count),
        "folds_percent": float(folded.percent),
    }
    return scores | ({"ndv_percent": float(ndv(ddf, truth.ndv_mask))} if ddf.ndim == 5 else {})


def as_batch(voxels: np.ndarray, ndim: int) -> Tensor:
    """(1, 1, *S) of an array of ndim axes and trailing ones."""
    return torch.from_numpy(voxels.reshape(1, 1, *voxels.shape[:ndim]))
