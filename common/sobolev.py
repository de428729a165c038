"""The differential operator of LDDMM, its energy, and gradients in the space that it makes of velocities.

``L = Id - alpha Laplacian`` acts on every component of a field by itself, on the periodic unit cube: along an axis of n
voxels neighbors are 1/n apart, so that one alpha means the same smoothness, in fractions of the cube, on every grid.
"""

import torch
from torch import Tensor

from .spatial import at_least_float32

__all__ = ["apply_kernel", "apply_operator", "operator_energy", "sobolev_gradient"]


def apply_operator(field: Tensor, alpha: float) -> Tensor:
    """``L field = field - alpha Laplacian(field)`` by second central differences.

    L is its own adjoint and positive definite; constants stay as they are.

    Args:
        field: (B, C, *S), N = 2 or 3 spatial axes.
        alpha: 0 or more, in units of the cube's squared side.

    Returns:
        (B, C, *S), float32 at least.

    Raises:
        ValueError: for a negative alpha.

    Source: Beg et al., IJCV 2005, doi:10.1023/B:VISI.0000043755.93987.aa, section 5.
    """
    check_alpha(alpha)
    field = at_least_float32(field)
    result = field
    for axis in range(2, field.ndim):
        neighbors = field.roll(1, axis) + field.roll(-1, axis)
        result = result + alpha * field.shape[axis] ** 2 * (2 * field - neighbors)
    return result


def operator_energy(svf: Tensor, alpha: float) -> Tensor:
    """``|L svf|^2`` summed over components and voxels, one number for each of the batch, (B,).

    Args:
        svf: (B, N, *S), voxels per unit time.
        alpha: of :func:`apply_operator`.
    """
    return apply_operator(svf, alpha).square().flatten(1).sum(dim=1)


def apply_kernel(field: Tensor, alpha: float) -> Tensor:
    """``K field = (L* L)^-1 field`` by Fourier transforms: smoother the larger alpha is, constants stay as they are.

    Args:
        field: (B, C, *S), N = 2 or 3 spatial axes.
        alpha: of :func:`apply_operator`.

    Returns:
        (B, C, *S), float32 at least; gradients pass, K being its own adjoint.

    Raises:
        ValueError: for a negative alpha.
    """
    check_alpha(alpha)
    field = at_least_float32(field)
    size, axes = field.shape[2:], list(range(2, field.ndim))
    spectrum = torch.fft.rfftn(field, dim=axes) / operator_symbol(size, alpha, field).square()
    return torch.fft.irfftn(spectrum, s=size, dim=axes)


def operator_symbol(size: torch.Size, alpha: float, like: Tensor) -> Tensor:
    """L in Fourier space, on the half of the frequencies that ``rfftn`` of a field of this size gives.

    ``1 + 2 alpha sum_i n_i^2 (1 - cos(2 pi k_i / n_i))``, 1 or more, in the precision and on the device of ``like``.
    """
    total = torch.ones([], dtype=like.dtype, device=like.device)
    for axis, n in enumerate(size):
        count = n // 2 + 1 if axis == len(size) - 1 else n
        frequencies = torch.arange(count, dtype=like.dtype, device=like.device) / n
        term = 2 * alpha * n**2 * (1 - (2 * torch.pi * frequencies).cos())
        total = total + term.view([-1 if k == axis else 1 for k in range(len(size))])
    return total


def sobolev_gradient(svf: Tensor, alpha: float) -> Tensor:
    """``svf`` itself, whose gradient passes K on its way back: the one in the space of velocities, not of voxels.

    That of ``weight * operator_energy(svf, alpha).sum()`` becomes ``2 weight svf``, that of a similarity smooth.

    Args:
        svf: (B, N, *S), voxels per unit time.
        alpha: of :func:`apply_operator`.

    Source: Beg et al. as above, section 3; inside a network's training arXiv 2404.04244, eq. 4.
    """
    check_alpha(alpha)
    return SobolevGradient.apply(svf, alpha)


class SobolevGradient(torch.autograd.Function):
    """Identity; the gradient passes through K."""

    @staticmethod
    def forward(ctx, svf: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return svf.view_as(svf)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        return apply_kernel(upstream, ctx.alpha).to(upstream.dtype), None


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless L is positive definite."""
    if not alpha >= 0:
        raise ValueError(f"alpha must be 0 or more, got {alpha}.")
