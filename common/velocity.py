"""Register one pair by optimising a dense stationary velocity, coarse to fine.

What is descended is not the gradient by the velocity, which would go back through every squaring, but the force at the
end point: with phi = exp(v), the derivative of the similarity along phi o exp(w) by w at w = 0 is
``force(x) = dL/dwarped(x) * grad warped(x)``, and exp(v) o exp(w) is exp(v + w) to first order. The force is smoothed,
its momentum makes a step of prescribed length, and after every step the velocity is smoothed and its divergence, the
change of volume, lowered: fluid and elastic regularisation of log-domain demons. The map is diffeomorphic throughout
and ``integrate(-svf)`` inverts it.

Source: Vercauteren et al., MICCAI 2008, doi:10.1007/978-3-540-85988-8_90.
Differs: any similarity instead of squared differences, a step of prescribed mean length instead of a Gauss-Newton one,
momentum, a velocity that may live on a coarser grid than the images, and the divergence, which
doi:10.1007/s11263-010-0405-z removes altogether.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from .errors import RegInputError
from .flow import FIRST_STEP, integrate, squarings
from .instance import Plateau, Report, minimize
from .similarity import Similarity
from .smooth import gaussian_smooth
from .spatial import compose, upsample, warp

__all__ = [
    "SmoothedMomentum",
    "VelocityRegistration",
    "displacement",
    "force",
    "lower_divergence",
    "warp_by_velocity",
    "warp_exactly",
]

MIN_SIDE = 8  # voxels that shrinking leaves along an axis
ROUGH = 0.4  # voxels: first step of the integration inside of the optimisation, see ``flow.squarings``
ANTIALIAS = 0.5  # standard deviation of the Gaussian before shrinking, in voxels of the smaller grid


class VelocityRegistration:
    """The settings of a registration, and the registration of a pair with them.

    Args:
        similarity: what is made alike.
        levels: coarse to fine, (velocity shrink, image shrink, steps) each: by how much the grid of the velocity and
            that of the images is coarser than the fixed image's, and how many steps are made.
        learning_rate: root mean square of a step's components, in voxels of the velocity's grid.
        momentum: share of the last steps' direction that is kept.
        force_sigma: of the Gaussian that smooths the force, in voxels of the velocity's grid (fluid regularisation).
        velocity_sigma: of the Gaussian that smooths the velocity after every step (elastic regularisation).
        divergence_weight: how much its divergence is lowered after every step. The standard deviation of log det J
            falls with it, at little cost in overlap; 0 for organs that do change their volume, such as lungs.
        warping: how the moving image goes through the velocity, and so what is descended: ``warp_by_velocity``, or
            ``warp_exactly`` with the gradient through every squaring.
        regularizer: further loss on the svf, such as :class:`common.losses.GradientLoss`.
        stop: ends a level early.

    Raises:
        RegInputError: for levels that are none, or numbers out of range.
    """

    def __init__(
        self,
        similarity: Similarity,
        levels: Sequence[Sequence[float]],
        *,
        learning_rate: float = 0.15,
        momentum: float = 0.5,
        force_sigma: float = 1.0,
        velocity_sigma: float = 0.5,
        divergence_weight: float = 0.4,
        warping: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None,
        regularizer: Callable[[Tensor], Tensor] | None = None,
        stop: Plateau | None = None,
    ) -> None:
        check_levels(levels)
        if not (learning_rate > 0 and 0 <= momentum < 1 and min(force_sigma, velocity_sigma, divergence_weight) >= 0):
            raise RegInputError(
                f"learning_rate is {learning_rate}, momentum {momentum}, force_sigma {force_sigma}, velocity_sigma "
                f"{velocity_sigma} and divergence_weight {divergence_weight}, expected a rate above 0, a momentum from "
                "0 to below 1 and nothing negative; correct them."
            )
        self.similarity = similarity
        self.levels = [(float(velocity), float(image), int(steps)) for velocity, image, steps in levels]
        self.step = {"lr": learning_rate, "momentum": momentum, "force_sigma": force_sigma, "sigma": velocity_sigma}
        self.step["divergence_weight"] = divergence_weight
        self.warping = warping or warp_by_velocity
        self.regularizer = regularizer
        self.stop = stop

    @property
    def steps(self) -> int:
        """The most steps that a registration takes."""
        return sum(steps for _, _, steps in self.levels)

    def velocity(
        self,
        moving: Tensor,
        fixed: Tensor,
        *,
        start: Tensor | None = None,
        mask: Tensor | None = None,
        report: Report | None = None,
    ) -> Tensor:
        """The velocity that, after ``start``, aligns a pair.

        Args:
            moving: image (1, 1, *S), finite.
            fixed: image (1, 1, *S).
            start: ddf (1, N, *S) in voxels that stays as it is: the result is to be applied after it, as
                ``displacement`` does. None for the identity.
            mask: (1, 1, *S), above 0 where the similarity counts.
            report: told every step.

        Returns:
            svf (1, N, *T) in voxels of its own grid, that of the last level.

        Raises:
            RegInputError: for images that differ in shape or are no single pair, or a mask without a voxel.
            RegNumericsError: if the similarity ceases to be finite.
        """
        check_pair(moving, fixed, start, mask)
        size = list(fixed.shape[2:])
        svf = fixed.new_zeros(1, len(size), *smaller(size, self.levels[0][0]), dtype=torch.float32)
        for velocity_shrink, image_shrink, steps in self.levels:
            svf = resized(svf, smaller(size, velocity_shrink))
            level = self._level(moving, fixed, start, mask, smaller(size, image_shrink))
            svf = self._descend(svf, *level, steps, report)
        return svf

    def _level(
        self, moving: Tensor, fixed: Tensor, start: Tensor | None, mask: Tensor | None, size: list[int]
    ) -> tuple:
        """Features of both images, the start and the mask on a level's grid."""
        with torch.no_grad():
            features = [self.similarity.features(shrunk(image, size)) for image in (moving, fixed)]
            start = None if start is None else resized(start, size)
            mask = None if mask is None else resampled((mask > 0).to(fixed.dtype), size).ge(0.5)
        return *features, start, mask

    def _descend(
        self,
        svf: Tensor,
        moving: Tensor,
        fixed: Tensor,
        start: Tensor | None,
        mask: Tensor | None,
        steps: int,
        report: Report | None,
    ) -> Tensor:
        with torch.inference_mode(False):
            before, svf = svf, svf.clone().requires_grad_()
            moving, fixed = (image.clone() if image.is_inference() else image for image in (moving, fixed))

        def terms() -> dict[str, Tensor]:
            values = {"similarity": self.similarity(self.warping(moving, svf, start), fixed, mask)}
            if self.regularizer is not None:
                values["regularizer"] = self.regularizer(svf)
            return values

        loss = minimize(terms, SmoothedMomentum([svf], **self.step), steps, stop=self.stop, report=report).loss
        # steps have a length also where nothing but rounding pulls, as between equal images
        return before if loss and loss[-1] > loss[0] else svf.detach()


class SmoothedMomentum(Optimizer):
    """Descent of fields (B, N, *S) by steps of a prescribed mean length.

    The gradient is smoothed, averaged over the steps and divided by the root of its mean square over all voxels and
    steps so far: one step length for the whole field, so that regions without structure stay where they are. The field
    is smoothed after the step.

    Args:
        params: the fields.
        lr: root mean square of a step's components, voxels.
        momentum: decay of the averaged gradient.
        force_sigma: of the Gaussian over the gradient, voxels.
        sigma: of the Gaussian over the field, voxels.
        divergence_weight: length of the step down half the squared divergence that follows.
        decay: of the mean square.

    Differs: Adam (arXiv 1412.6980) divides every component by its own root mean square.
    """

    def __init__(
        self,
        params,
        lr: float,
        momentum: float = 0.5,
        force_sigma: float = 1.0,
        sigma: float = 0.5,
        divergence_weight: float = 0.4,
        decay: float = 0.99,
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "force_sigma": force_sigma, "sigma": sigma}
        super().__init__(params, settings | {"divergence_weight": divergence_weight, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step of every field that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for field in group["params"]:
                if field.grad is not None:
                    self._move(field, group)
        return loss

    def _move(self, field: Tensor, group: dict) -> None:
        state = self.state[field]
        gradient = gaussian_smooth(field.grad, group["force_sigma"])
        if not state:
            state |= {"steps": 0, "mean": torch.zeros_like(gradient), "square": 0.0}
        state["steps"] += 1
        state["mean"].lerp_(gradient, 1 - group["momentum"])
        square = float(torch.linalg.vector_norm(gradient)) ** 2 / gradient.numel()
        state["square"] += (1 - group["decay"]) * (square - state["square"])
        mean_square = state["square"] / (1 - group["decay"] ** state["steps"])
        if mean_square == 0:  # nothing pulls
            return
        bias = 1 - group["momentum"] ** state["steps"]
        field.add_(state["mean"], alpha=-group["lr"] / (bias * mean_square**0.5))
        field.copy_(lower_divergence(gaussian_smooth(field, group["sigma"]), group["divergence_weight"]))


def lower_divergence(field: Tensor, weight: float) -> Tensor:
    """A field (B, N, *S) after steps of length ``weight`` in all down half the sum of its squared divergence.

    Differences are central, with zeros outside, so that the step is a gradient and the divergence only falls. What has
    none, a rotation or a shear, stays as it is.
    """
    ndim = field.shape[1]
    steps = math.ceil(weight * ndim)  # the operator's norm is below ndim: longer ones could raise it
    for _ in range(steps):
        divergence = sum(central_difference(field[:, k], k + 1) for k in range(ndim))
        slopes = [central_difference(divergence, k + 1) for k in range(ndim)]
        field = torch.add(field, torch.stack(slopes, 1), alpha=weight / steps)
    return field


def central_difference(values: Tensor, dim: int) -> Tensor:
    """Half the difference of the neighbors along an axis, zeros outside: minus its own adjoint."""
    rest = values.shape[dim] - 1
    out = torch.zeros_like(values)
    out.narrow(dim, 0, rest).add_(values.narrow(dim, 1, rest), alpha=0.5)
    out.narrow(dim, 1, rest).sub_(values.narrow(dim, 0, rest), alpha=0.5)
    return out


def warp_by_velocity(moving: Tensor, svf: Tensor, start: Tensor | None = None) -> Tensor:
    """``moving`` through ``displacement(svf, ..., start)``; by ``svf`` it has the force at the end point as gradient.

    Args:
        moving: (B, C, *S), not differentiated.
        svf: (B, N, *T) in voxels of its own grid, which covers the same field of view.
        start: ddf (B, N, *S) in voxels, not differentiated, or None.

    Returns:
        (B, C, *S).
    """
    return WarpByVelocity.apply(moving, svf, start)


def warp_exactly(moving: Tensor, svf: Tensor, start: Tensor | None = None) -> Tensor:
    """The values of :func:`warp_by_velocity` with their own gradient, back through the squarings."""
    return warp(moving, displacement(svf, list(moving.shape[2:]), start, ROUGH))


class WarpByVelocity(torch.autograd.Function):
    """See :func:`warp_by_velocity`."""

    @staticmethod
    def forward(ctx, moving: Tensor, svf: Tensor, start: Tensor | None) -> Tensor:
        warped = warp(moving, displacement(svf, list(moving.shape[2:]), start, ROUGH))
        ctx.save_for_backward(warped)
        ctx.size = list(svf.shape[2:])
        return warped

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: Tensor):
        (warped,) = ctx.saved_tensors
        return None, restricted(force(warped, upstream), ctx.size), None


def displacement(svf: Tensor, size: list[int], start: Tensor | None = None, first_step: float = FIRST_STEP) -> Tensor:
    """The ddf of a velocity on a grid of another size over the same field of view, applied after ``start``.

    Args:
        svf: (B, N, *T) in voxels of its own grid.
        size: S.
        start: ddf (B, N, *S) in voxels, or None.
        first_step: of the integration, see :func:`common.flow.squarings`.

    Returns:
        (B, N, *S) in voxels: ``start o exp(svf)``, diffeomorphic where ``start`` is.
    """
    ddf = resized(integrate(svf, squarings(svf, first_step)), size)
    return ddf if start is None else compose(start, ddf)


def force(warped: Tensor, upstream: Tensor) -> Tensor:
    """``sum_c upstream_c grad warped_c`` by central differences, one-sided at the faces.

    Args:
        warped: (B, C, *S), at least two voxels along every axis.
        upstream: (B, C, *S), the derivative of a loss by ``warped``.

    Returns:
        (B, N, *S), the derivative of the loss by a displacement of ``warped``.
    """
    axes = tuple(range(2, warped.ndim))
    return torch.stack([(slope * upstream).sum(1) for slope in torch.gradient(warped, dim=axes)], 1)


def restricted(field: Tensor, size: list[int]) -> Tensor:
    """Forces (B, N, *S) averaged onto a coarser grid, as forces on displacements in that grid's voxels."""
    if list(field.shape[2:]) == size:
        return field
    scale = [(old - 1) / max(new - 1, 1) for old, new in zip(field.shape[2:], size, strict=True)]
    mode = "trilinear" if field.ndim == 5 else "bilinear"
    halved = [max(round(factor), 1) for factor in scale]
    pooled = (
        F.avg_pool3d(field, halved, ceil_mode=True) if field.ndim == 5 else F.avg_pool2d(field, halved, ceil_mode=True)
    )
    if list(pooled.shape[2:]) != size:
        pooled = F.interpolate(pooled, size, mode=mode, align_corners=True)
    return pooled * pooled.new_tensor(scale).view(1, -1, *[1] * len(size))


def resized(field: Tensor, size: list[int]) -> Tensor:
    """A ddf or svf on a grid of another size, in its voxels; itself if it has that size."""
    return field if list(field.shape[2:]) == size else upsample(field, size)


def resampled(image: Tensor, size: list[int]) -> Tensor:
    """An image (B, C, *S) on a grid of another size, linear, first and last voxel centers kept."""
    mode = "trilinear" if image.ndim == 5 else "bilinear"
    return F.interpolate(image, size, mode=mode, align_corners=True)


def shrunk(image: Tensor, size: list[int]) -> Tensor:
    """An image (B, C, *S) on a coarser grid, smoothed before by as much as its most shrunk axis asks."""
    if list(image.shape[2:]) == size:
        return image
    factor = max(old / new for old, new in zip(image.shape[2:], size, strict=True))
    return resampled(gaussian_smooth(image, ANTIALIAS * factor), size)


def smaller(size: Sequence[int], shrink: float) -> list[int]:
    """The size of a grid that is coarser by ``shrink``; short axes keep ``MIN_SIDE`` voxels, or what they have."""
    return [max(min(n, MIN_SIDE), round(n / shrink)) for n in size]


def check_levels(levels: Sequence[Sequence[float]]) -> None:
    """Refuse what is no schedule."""
    sound = len(levels) > 0 and all(
        len(level) == 3 and level[0] >= 1 and level[1] >= 1 and level[2] >= 0 and level[2] == int(level[2])
        for level in levels
    )
    if not sound:
        raise RegInputError(
            f"levels is {list(levels)}, expected [velocity shrink, image shrink, steps] each, shrinks of 1 or more and "
            "a whole number of steps; correct it."
        )


def check_pair(moving: Tensor, fixed: Tensor, start: Tensor | None, mask: Tensor | None) -> None:
    """Refuse what is no single pair on one grid."""
    ndim = fixed.ndim - 2
    if moving.shape != fixed.shape or fixed.shape[:2] != (1, 1) or ndim not in (2, 3) or min(fixed.shape[2:]) < 2:
        raise RegInputError(
            f"the images have shapes {list(moving.shape)} and {list(fixed.shape)}, expected (1, 1, *size) twice, with "
            "two or three axes of two voxels or more; resample one onto the other's grid."
        )
    if start is not None and start.shape != (1, ndim, *fixed.shape[2:]):
        raise RegInputError(
            f"the start has shape {list(start.shape)}, expected {[1, ndim, *fixed.shape[2:]]}; resample it onto the "
            "fixed image's grid."
        )
    if mask is not None and (mask.shape != fixed.shape or not bool((mask > 0).any())):
        raise RegInputError(
            f"the mask has shape {list(mask.shape)} and {int((mask > 0).sum())} voxels inside, expected "
            f"{list(fixed.shape)} and some; check that it belongs to the fixed image."
        )
