"""How far off a registration may be, voxel by voxel, in mm: a length that the error stays below with 95 % probability.

The length is not derived, it is calibrated: a power law of what predicts errors, its exponents fitted by quantile
regression to the known errors of phantom pairs (``regbundles benchmark intervals``), stands in ``error_limits.json``.
Predictors are the spread of the answers from perturbed starts, which alone is too sure wherever all of them are wrong
in the same way, the structure of the fixed image, and how little the warped image resembles it there.

Source: R. Koenker, G. Bassett, Econometrica 1978, doi:10.2307/1913643 (quantile regression).
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .geometry import resample_mm
from .registration import Grid
from .smooth import gaussian_smooth
from .spatial import warp

__all__ = ["PREDICTORS", "error_limits", "error_on", "half_width", "predictors", "voxel_mm"]

LIMITS = Path(__file__).with_name("error_limits.json")
NEAR = 2.0  # voxels: standard deviation of the Gaussian over spread and residual
EDGE = 1.0  # over squared gradients
LEAST = {"spread": 0.05, "structure": 0.01, "residual": 0.01}  # added before the logarithm, which has no 0
OF_PAIR = ("spread", "residual")  # whose means over the tissue say how hard the pair is
PREDICTORS = (*LEAST, *(f"pair_{name}" for name in OF_PAIR))


def error_on(data: Mapping, fixed: Grid) -> Tensor:
    """The map on the fixed image's grid, (1, 1, *S_fixed) in mm.

    Args:
        data: the item as it reaches the output: "image" (C, *S), "pred" with "ddf" and "spread", "network_affine".
        fixed: the fixed image's grid.
    """
    affine = np.asarray(data["network_affine"], dtype=float)
    image, ddf, spread = (
        torch.as_tensor(field).as_subclass(Tensor)[None].float().cpu()
        for field in (data["image"], data["pred"]["ddf"], data["pred"]["spread"])
    )
    limit = half_width(image, ddf, spread, np.linalg.norm(affine[:-1, :-1], axis=0))
    return resample_mm(limit, affine, fixed.affine, fixed.size, padding_mode="border")


def half_width(
    image: Tensor,
    ddf: Tensor,
    spread: Tensor,
    spacing_mm: Sequence[float],
    exponents: Mapping[str, float] | None = None,
) -> Tensor:
    """The length in mm that the displacement's error stays below with 95 % probability, (1, 1, *S).

    Args:
        image: (1, C, *S), channel 0 moving, 1 fixed.
        ddf: the answer, (1, N, *S) in voxels.
        spread: root mean square of its components' differences from the answers from other starts, (1, N, *S), voxels.
        spacing_mm: of the N axes.
        exponents: of the ``PREDICTORS``, and "constant"; by default those of the calibration.
    """
    weights = error_limits()["exponents"] if exponents is None else exponents
    found = predictors(image, ddf, spread, spacing_mm)
    exponent = sum(weights[name] * value for name, value in found.items()) + weights["constant"]
    return exponent.exp() * voxel_mm(spacing_mm)


def predictors(image: Tensor, ddf: Tensor, spread: Tensor, spacing_mm: Sequence[float]) -> dict[str, Tensor]:
    """Logarithms of what predicts a voxel's error, by name: (1, 1, *S), of the pair as a whole 0-D; see
    :func:`half_width` for the arguments.

    Lengths are in voxels and intensities relative, so that neither the scanner's units nor its resolution matter.
    """
    moving, fixed = image[:, :1], image[:, 1:2]
    steps = torch.as_tensor(np.asarray(spacing_mm) / voxel_mm(spacing_mm)).float().view(1, -1, *[1] * len(spacing_mm))
    tissue = fixed >= fixed.mean()
    slopes = sum(slope.square() for slope in torch.gradient(fixed, dim=tuple(range(2, fixed.ndim))))
    values = {
        "spread": smoothed((spread * steps).square().sum(1, keepdim=True), NEAR).sqrt(),
        "structure": smoothed(slopes, EDGE) / slopes[tissue].mean().clamp(min=1e-12),
        "residual": unlikeness(fixed, warp(moving, ddf)),
    }
    found = {name: (value + LEAST[name]).log() for name, value in values.items()}
    return found | {f"pair_{name}": found[name][tissue].mean() for name in OF_PAIR}


def unlikeness(fixed: Tensor, warped: Tensor) -> Tensor:
    """1 - the squared local correlation under a Gaussian window, (1, 1, *S): 0 where one explains the other."""
    mean = [smoothed(image, NEAR) for image in (fixed, warped)]
    variance = [
        (smoothed(image * image, NEAR) - m * m).clamp(min=0) for image, m in zip((fixed, warped), mean, strict=True)
    ]
    covariance = smoothed(fixed * warped, NEAR) - mean[0] * mean[1]
    floor = 1e-6  # of intensities in [0, 1]: where both are flat they explain each other
    return (1 - (covariance.square() + floor) / (variance[0] * variance[1] + floor)).clamp(min=0)


def smoothed(field: Tensor, sigma: float) -> Tensor:
    """The Gaussian mean of what lies inside of the image."""
    return gaussian_smooth(field, sigma) / gaussian_smooth(torch.ones_like(field), sigma)


def voxel_mm(spacing_mm: Sequence[float]) -> float:
    """The edge of a cube of a voxel's volume."""
    return float(np.exp(np.mean(np.log(spacing_mm))))


@cache
def error_limits() -> dict:
    """The calibration: "exponents" by predictor, and the table and command that they come from."""
    return json.loads(LIMITS.read_text())
