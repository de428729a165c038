"""How far off a registration may be, voxel by voxel, in mm: a length that the error stays below with 95 % probability.

The length is not derived, it is calibrated: a product of powers of what predicts errors, the exponents fitted by
quantile regression to the known errors of phantom pairs (``regbundles benchmark intervals``), in ``error_limits.json``.
Predictors are the spread of the answers from perturbed starts, which alone is too sure where all of them are wrong in
the same way, as in flat parts; the structure of the fixed image; and how far, and how unevenly, the answer moves.

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

__all__ = ["PREDICTORS", "error_limits", "error_on", "half_width", "predictors", "voxel_mm"]

LIMITS = Path(__file__).with_name("error_limits.json")
NEAR = 2.0  # voxels: standard deviation of the Gaussian over the squared spread
EDGE = 1.0  # over squared gradients, of the image and of the answer
LEAST = {"spread": 0.05, "structure": 0.01, "strain": 0.03, "length": 0.3}  # added before the logarithm, which has no 0
PREDICTORS = tuple(LEAST)


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
    """Logarithms of what predicts a voxel's error, by name, (1, 1, *S) each; see :func:`half_width` for the arguments.

    * spread: the root mean square of its neighborhood's;
    * structure: the fixed image's squared gradient, 1 where it is that of the brighter half's mean;
    * strain: the norm of the answer's Jacobian minus one;
    * length: of the answer.

    Lengths are in voxels and intensities relative, so that neither units nor resolution of a scanner matter.
    """
    fixed, sides = image[:, 1:2], [float(side) / voxel_mm(spacing_mm) for side in spacing_mm]
    steps = torch.tensor(sides).view(1, -1, *[1] * len(sides))
    moved, slopes = ddf * steps, squared_gradient(fixed, sides)
    values = {
        "spread": smoothed((spread * steps).square().sum(1, keepdim=True), NEAR).sqrt(),
        "structure": smoothed(slopes, EDGE) / slopes[fixed >= fixed.mean()].mean().clamp(min=1e-12),
        "strain": smoothed(squared_gradient(moved, sides), EDGE).sqrt(),
        "length": moved.norm(dim=1, keepdim=True),
    }
    return {name: (value + LEAST[name]).log() for name, value in values.items()}


def squared_gradient(field: Tensor, sides: Sequence[float]) -> Tensor:
    """Summed over axes and channels, (B, 1, *S), of voxels with these sides."""
    slopes = torch.gradient(field, spacing=list(sides), dim=tuple(range(2, field.ndim)))
    return sum(slope.square() for slope in slopes).sum(1, keepdim=True)


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
