"""Dense spatial operators, all on one convention, held by tests/common/test_spatial.py.

image (B, C, *S) and ddf (B, N, *S), with S = (D, H, W) or (H, W) and N = len(S). ``ddf[:, k]`` displaces along array
axis k in voxels of the fixed grid, and warped(x) = moving(x + ddf(x)). Coordinates are float32 at least.
Everything but :func:`jacobian_determinant` can be scripted by TorchScript.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .kernels_cpu import usable

__all__ = ["at_least_float32", "compose", "identity_grid", "jacobian_determinant", "upsample", "warp"]


def identity_grid(size: list[int], like: Tensor) -> Tensor:
    """Voxel coordinates of a grid of shape ``size``, as float32 (1, N, *size) on ``like.device``."""
    axes = [torch.arange(n, dtype=torch.float32, device=like.device) for n in size]
    return torch.stack(torch.meshgrid(axes, indexing="ij")).unsqueeze(0)


def at_least_float32(field: Tensor) -> Tensor:
    """A ddf or svf, which a network may have made under autocast, in a precision that coordinates can have."""
    return field.to(torch.promote_types(field.dtype, torch.float32))


def warp(moving: Tensor, ddf: Tensor, mode: str = "bilinear", padding_mode: str = "border") -> Tensor:
    """Resample ``moving`` on the fixed grid through a displacement field.

    Args:
        moving: image or one-hot label of shape (B, C, *S_moving); both grids share voxel size and origin.
        ddf: displacement in voxels, fixed to moving, of shape (B, N, *S_fixed).
        mode: "bilinear" (linear in N dimensions) or "nearest"; halves go to the even neighbor in the latter, see
            ``common.metrics`` for the evaluation protocols' rounding.
        padding_mode: what lies outside the moving image, as in ``torch.nn.functional.grid_sample``.

    Returns:
        The warped image (B, C, *S_fixed) in the dtype of ``moving``.

    Raises:
        ValueError: if ``ddf`` does not have one component per spatial axis and the batch size of ``moving``.
    """
    ndim = moving.ndim - 2
    if ddf.ndim != moving.ndim or ddf.shape[1] != ndim or ddf.shape[0] != moving.shape[0]:
        raise ValueError(
            f"ddf must be ({moving.shape[0]}, {ndim}, *size) for a moving image {list(moving.shape)}, "
            f"got {list(ddf.shape)}."
        )
    if not torch.jit.is_scripting():
        if mode == "bilinear" and sampled_here(moving, ddf, padding_mode):
            return sample_here(moving, ddf, padding_mode, False)
    dtype = torch.promote_types(moving.dtype, torch.float32)  # bfloat16 cannot hold integers above 256
    points = identity_grid(ddf.shape[2:], ddf).to(dtype) + ddf.to(dtype)
    span = torch.tensor(moving.shape[2:], dtype=dtype, device=ddf.device).sub(1).clamp(min=1)
    # array axes (z, y, x) -> grid_sample's (x, y, z); the only place where the order turns
    grid = (points.movedim(1, -1) * (2 / span) - 1).flip(-1)
    return F.grid_sample(moving.to(dtype), grid, mode, padding_mode, align_corners=True).to(moving.dtype)


def compose(first: Tensor, second: Tensor, padding_mode: str = "border") -> Tensor:
    """One ddf for two warps in a row: ``warp(warp(m, first), second) = warp(m, compose(first, second))``.

    Args:
        first: ddf (B, N, *S) in voxels, applied to the image first.
        second: ddf (B, N, *S) in voxels, applied to the result.
        padding_mode: how ``first`` goes on outside its grid; "border" keeps it a displacement, "zeros" stops it.

    Returns:
        ``second(x) + first(x + second(x))``, (B, N, *S) in voxels.

    Raises:
        ValueError: if they differ in batch size or number of components.
    """
    first, second = at_least_float32(first), at_least_float32(second)
    if first.ndim != second.ndim or first.shape[1] != second.shape[1]:
        raise ValueError(f"two ddfs of one grid are composed, got {list(first.shape)} and {list(second.shape)}.")
    if not torch.jit.is_scripting():
        if sampled_here(first, second, padding_mode):
            return sample_here(first, second, padding_mode, True)
    return second + warp(first, second, padding_mode=padding_mode)


@torch.jit.unused
def sampled_here(image: Tensor, ddf: Tensor, padding_mode: str) -> bool:
    """Whether the kernels for the CPU take this: volumes with something to sample, in one of their paddings.

    Not along a single voxel with zeros around it: ``grid_sample`` knows no outside there, and results shall not depend
    on who forms them.
    """
    shapes_fit = image.ndim == ddf.ndim == 5 and ddf.shape[1] == 3 and len(image) == len(ddf)
    padded = padding_mode == "border" or (padding_mode == "zeros" and min(image.shape[2:]) > 1)
    return shapes_fit and image.numel() > 0 and padded and usable(image, ddf)


@torch.jit.unused
def sample_here(image: Tensor, ddf: Tensor, padding_mode: str, add_ddf: bool) -> Tensor:
    """See ``warp_cpu.sample_linear``."""
    from .warp_cpu import sample_linear  # imports numba

    return sample_linear(image, ddf, padding_mode, add_ddf)


def upsample(ddf: Tensor, size: list[int], factor: list[float] | None = None) -> Tensor:
    """Resample a ddf or svf onto a grid of another size over the same field of view, and rescale its voxels.

    Args:
        ddf: (B, N, *S) in voxels of its own grid.
        size: shape of the new grid, N entries.
        factor: what one old voxel measures in new voxels along each axis. By default (size - 1) / (S - 1), which is
            exact because ``align_corners=True`` lays the first and last voxel centers of both grids on each other.
            Networks published with a plain doubling pass that.

    Returns:
        (B, N, *size) in voxels of the new grid.
    """
    ddf = at_least_float32(ddf)
    mode = "trilinear" if ddf.ndim == 5 else "bilinear"
    if factor is None:
        factor = [(new - 1) / max(old - 1, 1) for new, old in zip(size, ddf.shape[2:])]  # noqa: B905 (TorchScript)
    scale = torch.tensor(factor, dtype=ddf.dtype, device=ddf.device).view([1, -1] + [1] * len(size))
    return F.interpolate(ddf, size, mode=mode, align_corners=True) * scale


def jacobian_determinant(ddf: Tensor) -> Tensor:
    """Determinant of the Jacobian of x + ddf(x): the local change of volume.

    Args:
        ddf: (B, N, *S) in voxels, N = 2 or 3, at least two voxels along every axis.

    Returns:
        (B, *S); 1 where volume is kept, at most 0 where the map folds. Central differences inside, one-sided ones at
        the faces, as ``numpy.gradient``. Because rows and columns carry the same voxel sizes, the value is the
        physical one on any grid.
    """
    dtype = torch.promote_types(ddf.dtype, torch.float32)
    ndim = ddf.ndim - 2
    # rows[i][j] = d (x_i + u_i) / d x_j
    rows = [list(torch.gradient(ddf[:, i].to(dtype), dim=tuple(range(1, ndim + 1)))) for i in range(ndim)]
    for i in range(ndim):
        rows[i][i] = rows[i][i] + 1
    if ndim == 2:
        return rows[0][0] * rows[1][1] - rows[0][1] * rows[1][0]
    return (
        rows[0][0] * (rows[1][1] * rows[2][2] - rows[1][2] * rows[2][1])
        - rows[0][1] * (rows[1][0] * rows[2][2] - rows[1][2] * rows[2][0])
        + rows[0][2] * (rows[1][0] * rows[2][1] - rows[1][1] * rows[2][0])
    )
