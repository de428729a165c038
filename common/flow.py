"""From a stationary velocity to a displacement and back: integrators and the inverse.

The flow of a velocity v (voxels per unit time) is d phi / dt = v(phi), phi_0 = id; every integrator returns the
displacement phi_1 - id as a ddf, so ``integrate(-svf)`` is the inverse of ``integrate(svf)``.
"""

import math

from torch import Tensor

from .spatial import at_least_float32, compose, warp

__all__ = ["FIRST_STEP", "integrate", "integrate_semi_lagrangian", "invert", "squarings"]

FIRST_STEP = 0.1  # voxels that the flow is started with at most: then interpolation errs more than the integration


def integrate(svf: Tensor, steps: int = 7, padding_mode: str = "border") -> Tensor:
    """Exponentiate a stationary velocity field into a ddf by scaling and squaring.

    Args:
        svf: velocity (B, N, *S), voxels per unit time.
        steps: number of squarings; the flow is started as svf / 2**steps. First order: the error halves per step.
        padding_mode: how the field goes on outside the grid, "border" or "zeros".

    Returns:
        The ddf (B, N, *S) in voxels.

    Source: Arsigny et al., MICCAI 2006, doi:10.1007/11866565_113.
    """
    ddf = at_least_float32(svf) / float(2**steps)
    for _ in range(steps):
        ddf = compose(ddf, ddf, padding_mode)
    return ddf


def squarings(svf: Tensor, first_step: float = FIRST_STEP) -> int:
    """How many squarings of :func:`integrate` start a velocity with ``first_step`` voxels at most."""
    largest = float(svf.detach().abs().amax())
    return max(0, math.ceil(math.log2(largest / first_step))) if largest > first_step else 0


def integrate_semi_lagrangian(
    svf: Tensor, steps: int = 10, iterations: int = 3, padding_mode: str = "border"
) -> Tensor:
    """Follow a stationary velocity field in ``steps`` equal time steps along mid-point trajectories.

    Each step's displacement a solves the implicit mid-point rule a(x) = dt v(x + a(x) / 2) by fixed-point iteration
    from 0; because v does not change with time it is solved once. Second order in the step.

    Args:
        svf: velocity (B, N, *S), voxels per unit time.
        steps: number of time steps.
        iterations: fixed-point iterations for the trajectory; the first gives dt v(x).
        padding_mode: how velocity and displacement go on outside the grid, "border" or "zeros".

    Returns:
        The ddf (B, N, *S) in voxels.

    Source: Staniforth and Cote, Mon. Weather Rev. 1991, doi:10.1175/1520-0493(1991)119<2206:SLISFA>2.0.CO;2, as used
    by Beg et al., IJCV 2005, doi:10.1023/B:VISI.0000043755.93987.aa.
    Differs: displacements, not coordinates, are resampled, so the border needs no special case.
    """
    velocity = at_least_float32(svf) / float(steps)
    trajectory = velocity
    for _ in range(iterations - 1):
        trajectory = warp(velocity, trajectory / 2, padding_mode=padding_mode)
    ddf = trajectory
    for _ in range(steps - 1):
        ddf = compose(ddf, trajectory, padding_mode)
    return ddf


def invert(ddf: Tensor, iterations: int = 50, tolerance: float = 1e-3) -> Tensor:
    """Invert a displacement field by the fixed-point iteration w <- -ddf(x + w).

    Converges where the field is diffeomorphic and its gradient's norm stays below 1; ``compose(ddf, inverse)`` is the
    residual, which callers report. Prefer ``integrate(-svf)`` where a velocity is known.

    Args:
        ddf: (B, N, *S) in voxels.
        iterations: the most that are made.
        tolerance: stop once no voxel of the inverse moves by more than this, in voxels.

    Returns:
        The inverse ddf (B, N, *S) in voxels.

    Source: Chen et al., Med. Phys. 2008, doi:10.1118/1.2816107.
    """
    ddf = at_least_float32(ddf)
    inverse = -ddf
    for _ in range(iterations):
        update = -warp(ddf, inverse)
        change = (update - inverse).abs().max()
        inverse = update
        if bool(change < tolerance):
            break
    return inverse
