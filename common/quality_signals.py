"""What can be measured of a registration to tell whether it worked: cheap, and without labels.

The images are compared by the share of the fixed image's local contrast that the other one explains: the squared
correlation in windows of a few voxels. It asks for no common gray scale, only for one that is about linear within a
window, so it serves within a modality and between those that show the same borders.
"""

from collections.abc import Mapping
from math import pi

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .geometry import mm_to_ddf
from .lncc import lncc
from .quality_view import View
from .spatial import jacobian_determinant

__all__ = ["NAMES", "signals_of"]

WINDOW = 5  # voxels of the view
NOISE = 0.02  # of the gray window; fainter contrast is not looked at
LITTLE_LEFT = 0.85  # of the contrast explained before: what is left may be noise
FAR = 0.99  # quantile of lengths and changes of volume: what moves, or changes, most
APART = 0.95  # quantile of the disagreement between starts
DET_FLOOR, DET_CEILING = 1e-3, 1e3  # of determinants before the logarithm

Signals = dict[str, float | None]

NAMES = {
    "similarity_before": "Similarity before",
    "similarity": "Similarity",
    "similarity_gain": "Similarity gain",
    "overlap": "Overlap",
    "inside_percent": "Inside (%)",
    "displacement_mm": "Displacement (mm)",
    "displacement_percent": "Displacement (%)",
    "volume_factor": "Volume factor",
    "folded_percent": "Folds (%)",
    "inverse_percent": "Inverse misses (%)",
    "starts_mm": "Starts apart (mm)",
    "starts_percent": "Starts apart (%)",
    "initial_factor": "Initial volume factor",
    "dice_change": "Dice change",
    "finite_percent": "Finite (%)",
}
"""Signals as people read them, units included."""


@torch.no_grad()
def signals_of(view: View, scores: Mapping[str, object]) -> Signals:
    """Every signal, None where it has no value.

    * ``finite_percent`` of the displacements are numbers;
    * ``similarity``, ``similarity_before``: share of the fixed image's local contrast, where it has any, that the
      warped image explains, and the moving one through the initial alignment alone; in [0, 1];
    * ``similarity_gain``: share of what was unexplained before that is explained now; None if that was little;
    * ``overlap``: Dice of where fixed and warped image have local contrast, which no modality's gray scale decides;
    * ``inside_percent`` of the foreground comes from inside the moving image;
    * ``displacement_mm``, ``displacement_percent``: how far the 1 % that moves most moves at least, after the initial
      alignment, and the same in percent of the foreground's diameter;
    * ``volume_factor``: by how much the 1 % whose volume changes most swells or shrinks at least;
    * ``folded_percent`` of all voxels fold, ``inverse_percent`` of the moving voxels miss themselves by 0.05 mm or more
      after the inverse and the map;
    * ``starts_mm``, ``starts_percent``: how far apart answers from perturbed starts are, at least, in the 5 % of the
      foreground where they are farthest, and the same in percent of its diameter;
    * ``initial_factor``: by how much the initial alignment changes volumes;
    * ``dice_change``: of the labels' mean Dice.

    Args:
        view: of the registration.
        scores: of it, see :func:`common.registration.scores_of`.
    """
    found = {"finite_percent": 100 * float(view.own.isfinite().all(dim=1).float().mean())}
    found |= likeness(view) | motion(view) | agreement(view)
    found |= {"overlap": overlap(*(has_contrast(image) for image in (view.fixed, view.warped)))}
    found |= {"inside_percent": percent(view.inside[view.foreground]), "initial_factor": factor(view.initial)}
    found |= {"folded_percent": scores.get("folded_percent")}
    found |= {"inverse_percent": scores.get("inverse_residual_over_percent")}
    if "dice" in scores:
        found["dice_change"] = scores["dice"] - scores["dice_before"]
    return {name: value if value is not None and np.isfinite(value) else None for name, value in found.items()}


def likeness(view: View) -> Signals:
    """How well the images explain each other before and after."""
    visible = view.foreground & has_contrast(view.fixed)
    before, after = (explained(view.fixed, image, visible) for image in (view.moving, view.warped))
    gain = None if before is None or before > LITTLE_LEFT else (after - before) / (1 - before)
    return {"similarity": after, "similarity_before": before, "similarity_gain": gain}


def explained(fixed: Tensor, other: Tensor, where: Tensor) -> float | None:
    """Mean share, over bool (*T), of the variance in a window that a line through the other's gray values explains."""
    if not where.any():
        return None
    window = min(WINDOW, (min(fixed.shape[2:]) - 1) // 2 * 2 + 1)
    return float(lncc(fixed, other, window, eps=NOISE**4, eps_mode="normalized")[0, 0][where].mean())


def has_contrast(image: Tensor) -> Tensor:
    """Where the gray values of (1, 1, *T) differ within a window, bool (*T)."""
    pool = F.avg_pool2d if image.ndim == 4 else F.avg_pool3d
    mean, square = (pool(values, WINDOW, 1, WINDOW // 2) for values in (image, image * image))
    return (square - mean * mean)[0, 0] > NOISE**2


def motion(view: View) -> Signals:
    """How far the foreground moves and how much its volume changes."""
    inside = view.foreground
    if not inside.any():
        return {}
    far_mm = quantile(view.own.square().sum(dim=1).sqrt()[0][inside], FAR)
    changes = jacobian_determinant(mm_to_ddf(view.own, view.affine))[0][inside].clamp(DET_FLOOR, DET_CEILING).log()
    return {
        "displacement_mm": far_mm,
        "displacement_percent": 100 * far_mm / diameter_mm(view),
        "volume_factor": float(np.exp(quantile(changes.abs(), FAR))),
    }


def agreement(view: View) -> Signals:
    """How far apart answers from several starts are."""
    if view.disagreement is None or not view.foreground.any():
        return {}
    apart_mm = max(quantile(start[view.foreground], APART) for start in view.disagreement)
    return {"starts_mm": apart_mm, "starts_percent": 100 * apart_mm / diameter_mm(view)}


def diameter_mm(view: View) -> float:
    """Of the ball, or the disk, that is as large as the foreground."""
    size = float(view.foreground.sum()) * abs(np.linalg.det(view.affine[:-1, :-1]))
    return 2 * (size / pi) ** 0.5 if view.foreground.ndim == 2 else 2 * (3 * size / (4 * pi)) ** (1 / 3)


def overlap(first: Tensor, second: Tensor) -> float:
    """Dice of two masks; 0 if both are empty."""
    return 2 * float((first & second).sum()) / max(float(first.sum() + second.sum()), 1.0)


def percent(mask: Tensor) -> float:
    """Of a mask that is set; 0 of nothing."""
    return 100 * float(mask.float().mean()) if mask.numel() else 0.0


def factor(initial: np.ndarray | None) -> float | None:
    """By how much an affine changes volumes, up or down: 1 or more."""
    if initial is None:
        return None
    change = abs(float(np.linalg.det(initial[:-1, :-1])))
    return max(change, 1 / change)


def quantile(values: Tensor, share: float) -> float:
    """Of a flat tensor, in float32; of more values than ``torch.quantile`` bears."""
    return float(np.quantile(values.numpy(), share))
