"""What every LNCC backend shares: the formula, the window statistics and the bound of their rounding error."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["EPS_MODES", "Formula", "Windows", "suffices"]

EPS_MODES = ("product", "normalized", "floor", "ratio")
ENTRY_TOLERANCE = 1e-3  # admitted error of a map entry, and of a mean
FLAT = 16 * torch.finfo(torch.float64).eps  # share of a sum of squares that rounding can leave as a variance
SLOPE_TOLERANCE = 3e-2  # admitted error of a single entry where only the mean and its gradient are wanted


@dataclass(frozen=True)
class Formula:
    """How covariance and variances (window sums of products of deviations) make one value.

    Args:
        squared: C^2 / D with values in [0, 1], or C / sqrt(D) in [-1, 1].
        eps: in units of a product of two sums, or of one sum under ``"floor"``.
        mode: one of ``EPS_MODES``; :func:`common.lncc.lncc` states them.
    """

    squared: bool
    eps: float
    mode: str

    def denominator(self, var_f: Tensor, var_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D, and the variances it is the product of."""
        if self.mode == "floor":
            var_f, var_w = var_f.clamp(min=self.eps), var_w.clamp(min=self.eps)
            return var_f * var_w, var_f, var_w
        var_f, var_w = var_f.clamp(min=0), var_w.clamp(min=0)
        return (var_f * var_w).add_(self.eps), var_f, var_w

    def value(self, windows: "Windows") -> Tensor:
        """The map of any shape the windows have; rounding may leave the range by a few units in the last place."""
        if not self.squared:
            return windows.cov * windows.inverse.sqrt()
        square = windows.cov * windows.cov
        return (square + self.eps if self.mode == "ratio" else square) * windows.inverse

    def limit(self, value: Tensor) -> Tensor:
        """The value held to its range."""
        return value.clamp(0 if self.squared else -1, 1)

    def slope(self, windows: "Windows", weight: Tensor) -> Tensor:
        """Derivative of the value by the covariance, times ``weight``."""
        if self.squared:
            return (windows.cov * windows.inverse).mul_(weight).mul_(2)
        return windows.inverse.sqrt().mul_(weight)

    def variance_factor(self, windows: "Windows", value: Tensor, weight: Tensor) -> Tensor:
        """What the derivatives by both variances share."""
        return (value * windows.inverse).mul_(weight).mul_(-2 if self.squared else -1)

    def variance_slope(self, factor: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """Twice the derivative of the value by the variance ``own``, times the weight."""
        slope = factor * other
        return slope.mul_(own > self.eps) if self.mode == "floor" else slope  # a floored variance is constant


@dataclass(frozen=True)
class Windows:
    """Statistics of every window, all of one shape.

    Args:
        mean_f, mean_w: window means.
        square_f, square_w: window sums of squares.
        cov, var_f, var_w: window sums of products of deviations, the variances as the denominator has them.
        inverse: 1 / D.
    """

    mean_f: Tensor
    mean_w: Tensor
    square_f: Tensor
    square_w: Tensor
    cov: Tensor
    var_f: Tensor
    var_w: Tensor
    inverse: Tensor

    @classmethod
    def from_sums(cls, f: Tensor, w: Tensor, ff: Tensor, ww: Tensor, fw: Tensor, count: int, formula: Formula):
        """From the window sums of the images, their squares and their product over ``count`` voxels."""
        mean_f, mean_w = f * (1 / count), w * (1 / count)
        cov = torch.addcmul(fw, f, mean_w, value=-1)
        var_f, var_w = torch.addcmul(ff, f, mean_f, value=-1), torch.addcmul(ww, w, mean_w, value=-1)
        if cov.dtype == torch.float64:  # nothing is left to fall back to: a variance that is all rounding is none
            flat_f, flat_w = var_f <= FLAT * ff, var_w <= FLAT * ww
            var_f, var_w = var_f - var_f.detach() * flat_f, var_w - var_w.detach() * flat_w  # gradients are kept
            cov = cov - cov.detach() * (flat_f | flat_w)
        product, var_f, var_w = formula.denominator(var_f, var_w)
        return cls(mean_f, mean_w, ff, ww, cov, var_f, var_w, product.reciprocal())


@torch.no_grad()
def suffices(formula: Formula, windows: Windows, rounding: float, count: int, every_entry: bool) -> bool:
    r"""Whether rounding of the window sums leaves the value accurate.

    A sum of squares s carries an error of at most ``rounding`` units u of its size, and variance and covariance inherit
    it. To first order the value then errs by at most :math:`u (s_f V_w + s_w V_f) / D`, by
    :math:`\sqrt{s_f s_w} \le (s_f V_w + s_w V_f) / 2 \sqrt{V_f V_w}`; :math:`u^2 s_f s_w / D` covers variances that are
    nothing but rounding. Without the square a vanishing covariance errs by :math:`u \sqrt{s_f s_w / D}`.

    Args:
        formula: what the value is.
        windows: float32 statistics; overflow to inf or nan gives False.
        rounding: error of a window sum in units of half the spacing of float32.
        count: voxels of a window, for what underflow takes from a sum.
        every_entry: hold every entry to ``ENTRY_TOLERANCE``; else the mean to it and entries to ``SLOPE_TOLERANCE``.
    """
    info = torch.finfo(windows.cov.dtype)
    unit = rounding * info.eps / 2
    square_f, square_w = windows.square_f + count * info.tiny, windows.square_w + count * info.tiny
    bound = square_f * square_w
    signed = None if formula.squared else (bound * windows.inverse).sqrt_()
    bound.mul_(unit).addcmul_(square_f, windows.var_w).addcmul_(square_w, windows.var_f).mul_(windows.inverse)
    if signed is not None:
        bound.add_(signed)
    if every_entry:
        return bool(bound.amax() * unit <= ENTRY_TOLERANCE)  # False on nan
    return bool((bound.amax() * unit <= SLOPE_TOLERANCE) & (bound.mean() * unit <= ENTRY_TOLERANCE))
