"""The pages of an evaluation's worst pairs: ``reports/<method>/<pair>/`` with a report, a thumbnail and its scores.

What a registration said of itself stands in them too: its verdict, seconds, settings and versions. Of a field that came
without, the self-check looks at what there is.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import nibabel as nib

from common.geometry import ddf_to_mm, resample_mm
from common.metrics import landmark_errors_mm, warp_label
from common.outputs import read_row
from common.pair_reports import WorstPairs, save_pair, view_in
from common.preflight import check_image
from common.provenance import versions
from common.quality import signals_of, verdict
from common.quality_view import coarse_view
from common.registration import Fields, Images, landmark_scores, pair_scores
from common.registration import Grid as RegistrationGrid
from common.spatial import warp

from .pair_scores import PairScores, Truth, as_batch
from .predictions import FIELD, Folder, Identity, Pair, Prediction, Predictions

__all__ = ["PairPages"]

METRICS = "metrics.json"
SAID = {"verdict": str, "reasons": list, "signals": dict, "seconds_by_step": dict, "settings": dict}
"""What a registration says of itself, and as what."""


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

    def offer(
        self, method: str, source: Predictions, pair: Pair, prediction: Prediction, truth: Truth, found: PairScores
    ) -> None:
        """Write the pages of a scored prediction if it is among the worst of its method so far."""

        def write(folder: Path) -> None:
            images = images_of(pair, prediction, truth)
            ddf, grid = prediction.ddf.float(), pair.fixed_grid
            header = {"spacing_mm": grid.spacing_mm, "orientation": "".join(nib.aff2axcodes(grid.affine))}
            labels = self.labels if images.fixed_label is not None else ()
            scores = pair_scores(ddf, images, labels, grid.spacing_mm) | landmarks(pair, prediction, truth)
            names = {"fixed": pair.fixed.name, "moving": pair.moving.name}
            own = said_by(source, pair)
            if "verdict" not in own and not isinstance(source, Identity):
                own = checked(pair, prediction, images, scores) | own
            own |= {} if math.isnan(found.pair["seconds"]) else {"seconds": found.pair["seconds"]}
            metrics = {**names, **scores, **own, "settings": settings_of(method, own.get("settings"))}
            save_pair(folder, view_in(images, ddf, header), metrics, self.names)

        self.worst[method].offer(pair.name, badness(found.pair), write)


def said_by(source: Predictions, pair: Pair) -> dict[str, object]:
    """What the registration behind a prediction said of itself in the `metrics.json` beside its field, if it did."""
    field = source.file(pair) if isinstance(source, Folder) else None
    if field is None or field.name != FIELD:
        return {}
    content = read_row(field.with_name(METRICS))
    same = content.get("fixed") == pair.fixed.name and content.get("moving") == pair.moving.name
    return {key: content[key] for key in SAID if same and isinstance(content.get(key), SAID[key])}


def settings_of(method: str, own: Mapping | None) -> dict[str, object]:
    """The method's name, the settings of its registration, and versions: its own, else those of this evaluation."""
    if own and isinstance(own.get("versions"), Mapping):
        return {"method": method, **own, "versions_of": "the registration"}
    return {"method": method, **(own or {}), "versions_of": "the evaluation", "versions": versions()}


def checked(pair: Pair, prediction: Prediction, images: Images, scores: Mapping) -> dict[str, object]:
    """The self-check of a field that came alone: no inverse, no other starts, no initial alignment apart from it.

    How far anatomy moved after the initial alignment is known only where the images' headers are that alignment: where
    both lie on one grid, as prepared data do.
    """
    fixed, moving = (RegistrationGrid(*grid) for grid in (pair.fixed_grid, pair.moving_grid))
    ddf = prediction.ddf.float()
    total = ddf_to_mm(ddf, fixed.affine)
    view = coarse_view(Fields(total, total, None, None, None, fixed, moving), images, ddf[0], fixed.affine)
    signals = signals_of(view, scores)
    if pair.moving_grid.affine is not pair.fixed_grid.affine:
        signals |= dict.fromkeys(("displacement_mm", "displacement_percent"))
    found = verdict(signals)
    return {"verdict": found.state, "reasons": list(found.reasons), "signals": signals}


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
