"""The inverse of a displacement field in mm, on the moving image's grid, and how far it is from one."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .geometry import linear_part, mm_to_ddf, multiply, spatial_affine
from .spatial import identity_grid, warp

__all__ = ["inverse_residual_mm", "invert_mm"]

DENSE = 5  # steps of all voxels; after them a few in a hundred are left
FEW = 12  # more steps of these; smooth fields need ten to twenty in all
NEWTON = 30  # the most steps of the last thousandth, where the map turns or stretches most
NEARBY = 0.05  # voxels over which a slope is taken there
STEPS = 1 / 32, 32.0  # of those stretched or compressed further, a voxel takes more iterations
TOLERANCE = 5e-3  # voxels: below what linear interpolation of either field leaves
SLAB_VOXELS = 2**21  # of the moving grid, worked on at once
SAMPLES = 24  # voxels along each axis from which the affine part is fitted


@torch.no_grad()
def invert_mm(
    ddf_mm: Tensor,
    fixed_affine: np.ndarray,
    moving_affine: np.ndarray,
    moving_size: tuple[int, ...],
    initial: np.ndarray | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The inverse of ``y = initial @ (x + ddf_mm(x))``, from the moving world to the fixed.

    The affine part of the field is fitted by least squares and inverted exactly, so that a field which contains an
    affine alignment does too; what remains, v, is inverted by x <- x - s (x + v(x) - z). Each voxel has a step s of its
    own and takes only what makes its residual smaller. Converges where the map does not fold. Outside its grid v goes
    on constantly.

    Args:
        ddf_mm: (1, N, *S_fixed), RAS mm.
        fixed_affine: (N + 1, N + 1) of its grid.
        moving_affine: (N + 1, N + 1) of the moving image's grid.
        moving_size: its spatial shape.
        initial: (N + 1, N + 1), RAS mm, applied after the field; by default the identity.
        start: displacement (1, N, *moving_size), RAS mm, that is nearly the inverse, such as that of a velocity run
            backward: a few steps remove what the discrete integrals left, about a tenth of a voxel.

    Returns:
        The displacement (1, N, *moving_size), RAS mm, and its :func:`inverse_residual_mm`, (*moving_size): large where
        the map folds.

    Source: Chen et al., Med. Phys. 2008, doi:10.1118/1.2816107, with s = 1; steps by Barzilai and Borwein, IMA J.
    Numer. Anal. 1988, doi:10.1093/imanum/8.1.141.
    Differs: affine part taken out first, two grids.
    """
    ndim = ddf_mm.shape[1]
    fixed, moving = spatial_affine(fixed_affine, ndim), spatial_affine(moving_affine, ndim)
    ddf = mm_to_ddf(ddf_mm, fixed)
    part = affine_of(ddf)
    # in voxels of the fixed grid p + u(p) = part @ (p + v(p))
    rest = multiply(np.linalg.inv(part)[:-1, :-1], ddf) + linear_part(np.linalg.inv(part), tuple(ddf.shape[2:]), ddf)
    onto = np.eye(ndim + 1) if initial is None else spatial_affine(initial, ndim)
    to_voxels = np.linalg.inv(onto @ fixed @ part)
    inverse = ddf.new_empty(1, ndim, *moving_size)
    for planes, grid in slabs(moving, moving_size):
        size = (planes.stop - planes.start, *moving_size[1:])
        first = None if start is None else voxel_offsets(start[:, :, planes], fixed, grid)
        offset = solve(rest, linear_part(to_voxels @ grid, size, ddf), first)  # index + offset = p, in fixed voxels
        back = linear_part(fixed @ np.linalg.inv(grid), size, ddf, grid)
        inverse[:, :, planes] = multiply(fixed[:-1, :-1], offset) + back
    return inverse, inverse_residual_mm(ddf_mm, fixed, inverse, moving, initial)


@torch.no_grad()
def inverse_residual_mm(
    ddf_mm: Tensor,
    fixed_affine: np.ndarray,
    inverse_mm: Tensor,
    moving_affine: np.ndarray,
    initial: np.ndarray | None = None,
) -> Tensor:
    """How far each moving voxel is from itself, in mm, after the inverse and then ``y = initial @ (x + ddf_mm(x))``.

    Args:
        ddf_mm: (1, N, *S_fixed), RAS mm.
        fixed_affine: (N + 1, N + 1) of its grid.
        inverse_mm: (1, N, *S_moving), RAS mm.
        moving_affine: (N + 1, N + 1) of its grid.
        initial: (N + 1, N + 1), RAS mm; by default the identity.

    Returns:
        (*S_moving); NaN where the inverse leads out of the fixed grid, where nothing is known.
    """
    ndim, size = ddf_mm.shape[1], tuple(inverse_mm.shape[2:])
    fixed, moving = spatial_affine(fixed_affine, ndim), spatial_affine(moving_affine, ndim)
    onto = np.eye(ndim + 1) if initial is None else spatial_affine(initial, ndim)
    last = torch.tensor(ddf_mm.shape[2:], device=ddf_mm.device).view(1, -1, *[1] * ndim) - 1
    out = inverse_mm.new_empty(size)
    for planes, grid in slabs(moving, size):
        back = inverse_mm[:, :, planes]
        part = tuple(back.shape[2:])
        offset = voxel_offsets(back, fixed, grid)
        there = identity_grid(list(part), offset) + offset
        inside = ((there >= 0) & (there <= last)).all(dim=1)[0]
        moved = back + warp(ddf_mm.to(offset.dtype), offset, padding_mode="border")  # x + u(x) - y
        miss = multiply(onto[:-1, :-1], moved) + linear_part(onto, part, back, grid)
        out[planes] = torch.where(inside, length(miss)[0, 0], torch.nan)
    return out


def voxel_offsets(inverse_mm: Tensor, fixed: np.ndarray, moving: np.ndarray) -> Tensor:
    """What a field in mm on a moving grid adds to its indices to give voxels of the fixed grid."""
    return mm_to_ddf(inverse_mm, fixed) + linear_part(
        np.linalg.solve(fixed, moving), tuple(inverse_mm.shape[2:]), inverse_mm
    )


def slabs(affine: np.ndarray, size: tuple[int, ...]) -> Iterator[tuple[slice, np.ndarray]]:
    """Some planes of a grid at a time, and the affine of the grid that these make."""
    thickness = max(1, SLAB_VOXELS // int(np.prod(size[1:])))
    for first in range(0, size[0], thickness):
        own = affine.copy()
        own[:-1, -1] += first * affine[:-1, 0]
        yield slice(first, min(first + thickness, size[0])), own


def affine_of(ddf: Tensor) -> np.ndarray:
    """The affine (N + 1, N + 1) nearest to x + ddf(x), voxels, by least squares; the identity if it has no inverse."""
    ndim, size = ddf.shape[1], ddf.shape[2:]
    axes = [np.unique(np.linspace(0, n - 1, min(n, SAMPLES)).round().astype(int)) for n in size]
    at = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(ndim, -1)
    there = at + ddf[0][(slice(None), *torch.from_numpy(at).to(ddf.device))].double().cpu().numpy()
    matrix, (solution, _, rank, _) = np.eye(ndim + 1), np.linalg.lstsq(np.vstack([at, np.ones(at.shape[1])]).T, there.T)
    if rank == ndim + 1 and np.linalg.det(solution[:-1]) > 0:
        matrix[:-1] = solution.T
    return matrix


def solve(ddf: Tensor, target: Tensor, start: Tensor | None = None) -> Tensor:
    """The offsets q with q + ddf(index + q) = target: everywhere at first, then only where it is not yet reached.

    Args:
        ddf: (1, N, *S) in voxels of its own grid.
        target: (1, N, *T), added to the indices of a grid T it gives points of the grid S.
        start: first q, by default ``target``.
    """
    offset = target if start is None else start.to(target.dtype)
    offset, error = iterate(lambda q: warp(ddf, q, padding_mode="border"), target, offset, DENSE)
    left = error[0, 0] >= TOLERANCE
    if bool(left.any()):
        offset[:, :, left] = solve_few(ddf, left, target[:, :, left], offset[:, :, left]).to(offset.dtype)
    return offset


def solve_few(ddf: Tensor, where: Tensor, target: Tensor, offset: Tensor) -> Tensor:
    """:func:`solve` for some voxels: more of the same steps, then Newton's where these do not contract.

    Args:
        ddf: (1, N, *S).
        where: bool (*T), K of them true.
        target: (1, N, K).
        offset: first q, (1, N, K).

    Returns:
        (1, N, K), float64, which holds large indices and small offsets in one number.
    """
    index, ddf, target = where.nonzero().T[None].double(), ddf.double(), target.double()
    offset, error = iterate(lambda q: at_points(ddf, index + q), target, offset.double(), FEW)
    left = error[0, 0] >= TOLERANCE
    if bool(left.any()):
        own = index[:, :, left]
        offset[:, :, left] = newton(lambda q: at_points(ddf, own + q), target[:, :, left], offset[:, :, left])
    return offset


def newton(sample: Callable[[Tensor], Tensor], target: Tensor, offset: Tensor) -> Tensor:
    """Offsets (1, N, K) after damped Newton steps, each voxel with a Jacobian matrix of its own."""
    ndim = offset.shape[1]
    residual = offset + sample(offset) - target
    error, step = length(residual), torch.ones_like(target[:, :1])
    shifts = NEARBY * torch.eye(ndim, dtype=offset.dtype, device=offset.device)
    for _ in range(NEWTON):
        if bool(error.max() < TOLERANCE):
            break
        slopes = [
            (sample(offset + d.view(1, -1, 1)) - sample(offset - d.view(1, -1, 1))) / (2 * NEARBY) for d in shifts
        ]
        matrix = torch.stack(slopes, -1)[0].movedim(0, 1) + shifts / NEARBY  # (K, N, N), rows the components
        full = torch.linalg.lstsq(matrix, residual[0].T[..., None]).solution[..., 0].T[None]
        trial = offset - step * full
        left = trial + sample(trial) - target
        size = length(left)
        better = size < error
        step = torch.where(better, (2 * step).clamp(max=1), step / 2)
        offset, residual = torch.where(better, trial, offset), torch.where(better, left, residual)
        error = torch.where(better, size, error)
    return offset


def iterate(sample: Callable[[Tensor], Tensor], target: Tensor, offset: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Damped fixed-point steps from an offset (1, N, *T), and the length of what is left, (1, 1, *T).

    Args:
        sample: the field at the places that offsets lead to, (1, N, *T).
        target: (1, N, *T).
        offset: where to start.
        steps: the most that are made.
    """
    offset, residual = offset.clone(), offset + sample(offset) - target
    error, step = length(residual), torch.ones_like(target[:, :1])
    for _ in range(steps):
        if bool(error.max() < TOLERANCE):
            break
        trial = offset - step * residual
        left = trial + sample(trial) - target
        size = length(left)
        better = size < error
        step = torch.where(better, next_step(trial - offset, left - residual), step / 2)
        offset, residual = torch.where(better, trial, offset), torch.where(better, left, residual)
        error = torch.where(better, size, error)
    return offset, error


def at_points(ddf: Tensor, points: Tensor) -> Tensor:
    """A field (1, N, *S) at points (1, N, K) in its voxels, both float64: (1, N, K)."""
    ndim = ddf.shape[1]
    column = points.reshape(1, ndim, -1, *[1] * (ndim - 1))  # a grid of K x 1 x 1 voxels, its own indices taken off
    offset = column - identity_grid(list(column.shape[2:]), column).double()
    return warp(ddf, offset, padding_mode="border").reshape(points.shape)


def length(vectors: Tensor) -> Tensor:
    """(1, N, *T) -> (1, 1, *T)."""
    return vectors.square().sum(dim=1, keepdim=True).sqrt()  # ``norm`` over an axis of three is many times slower


def next_step(moved: Tensor, gained: Tensor) -> Tensor:
    """Barzilai and Borwein's step of each voxel, (1, 1, *T): short where the map stretches, long where it compresses.

    Args:
        moved: what the last step added to the offset, (1, N, *T).
        gained: what it added to the residual.
    """
    slope = (moved * gained).sum(dim=1, keepdim=True) / (gained * gained).sum(dim=1, keepdim=True)
    return torch.where(slope > 0, slope.clamp(*STEPS), 1.0)  # also where it is not a number, as nothing moved
