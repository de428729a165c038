"""How regular a field is: folds, the spread of log Jacobians and the non-diffeomorphic volume.

All take a ddf (B, N, *S) in voxels of the fixed grid, warped(x) = moving(x + ddf(x)), and answer per pair, in float64.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import RegInputError
from .spatial import jacobian_determinant

__all__ = ["Folds", "NonDiffeomorphic", "folds", "ndv", "non_diffeomorphic", "sdlogj", "sdlogj_l2r"]

DET_FLOOR, DET_CEILING = 1e-9, 1e9  # bounds of the determinant before the logarithm, as in Learn2Reg's evaluation
TILE_VOXELS = (
    2**14
)  # what `non_diffeomorphic` works on at once: fits a processor's cache, too small to split over threads


class Folds(NamedTuple):
    """Voxels whose Jacobian determinant is not positive; each (B,), float64."""

    count: Tensor
    percent: Tensor


class NonDiffeomorphic(NamedTuple):
    """The digital-diffeomorphism counts of a 3-D field over the voxels asked for; each (B,), float64.

    Attributes:
        voxels: how many voxels were asked for.
        nd_voxels: those whose central-difference determinant is at most zero.
        nd_tetrahedra: a tenth of the number of determinants at most zero among the ten of every voxel.
        ndv: volume in voxels that the folded tetrahedra take.
    """

    voxels: Tensor
    nd_voxels: Tensor
    nd_tetrahedra: Tensor
    ndv: Tensor


@torch.no_grad()
def folds(ddf: Tensor, mask: Tensor | None = None, crop: int = 0) -> Folds:
    """Count and percentage of the voxels where the field folds, det J <= 0.

    Args:
        ddf: (B, N, *S) in voxels, N = 2 or 3.
        mask: (B, 1, *S), not zero where voxels count; None counts all.
        crop: voxels left out along every face; 0 as TransMorph and VoxelMorph report it, 2 as Learn2Reg crops. The
            determinants of the outermost voxels are one-sided differences.

    Returns:
        ``count`` and ``percent`` of the voxels that count, (B,) each; percent is NaN where none counts.

    Raises:
        RegInputError: if ddf is no 2-D or 3-D field, or nothing is left after the crop.
    """
    values = _determinants(ddf, mask, crop)
    count = torch.stack([(~(value > 0)).sum() for value in values]).double()  # NaN is no map: it folds
    return Folds(count, 100 * count / count.new_tensor([value.numel() for value in values]))


@torch.no_grad()
def sdlogj(ddf: Tensor, mask: Tensor | None = None, crop: int = 2) -> Tensor:
    """Population standard deviation of log det J, determinants clipped to [1e-9, 1e9]; (B,).

    One fold in a thousand voxels dominates it, through log 1e-9 = -20.7: report :func:`folds` beside it.

    Args:
        ddf: (B, N, *S) in voxels, N = 2 or 3.
        mask: (B, 1, *S), not zero where voxels count; None counts all.
        crop: voxels left out along every face; the default covers the voxels of :func:`sdlogj_l2r`.

    Returns:
        At least 0, 0 for affine fields; NaN where no voxel counts.

    Raises:
        RegInputError: if ddf is no 2-D or 3-D field, or nothing is left after the crop.
    """
    return _log_spread(_determinants(ddf, mask, crop))


@torch.no_grad()
def sdlogj_l2r(ddf: Tensor, mask: Tensor | None = None) -> Tensor:
    """SDlogJ as Learn2Reg's evaluation computes it; (B,).

    It adds 3 to det J before clipping and the logarithm, and leaves out 2 voxels along every face. The values are about
    a fourth of :func:`sdlogj` on smooth fields and are only comparable with the challenge's.

    Args:
        ddf: (B, N, *S) in voxels, N = 2 or 3.
        mask: (B, 1, *S) in the fixed image, not zero where voxels count; None counts all.

    Returns:
        At least 0, 0 for affine fields; NaN where no voxel counts.

    Raises:
        RegInputError: if ddf is no 2-D or 3-D field, or nothing is left after the crop.

    Source: Hering et al., IEEE TMI 2023, doi:10.1109/TMI.2022.3213983; repository MDL-UzL/L2R, evaluation.
    """
    return _log_spread([value + 3 for value in _determinants(ddf, mask, crop=2)])


@torch.no_grad()
def ndv(ddf: Tensor, mask: Tensor | None = None) -> Tensor:
    """Non-diffeomorphic volume in percent of the voxels that count; (B,). See :func:`non_diffeomorphic`."""
    counts = non_diffeomorphic(ddf, mask)
    return 100 * counts.ndv / counts.voxels


@torch.no_grad()
def non_diffeomorphic(ddf: Tensor, mask: Tensor | None = None) -> NonDiffeomorphic:
    """Where the piecewise-linear map through the voxel centers is no diffeomorphism.

    Ten determinants decide at every voxel: one for each choice of forward or backward differences along the axes, and
    two of the tetrahedra that touch the voxel and three neighbors across its edges. Each tetrahedron with determinant
    J < 0 adds -J / 6 to the volume, half because two sets of tetrahedra fill space. Central differences alone miss
    fields that alternate from voxel to voxel.

    Args:
        ddf: (B, 3, D, H, W) in voxels, at least 3 voxels along every axis.
        mask: (B, 1, D, H, W), not zero where voxels count; None counts all. LUMIR passes ``moving > 0``. The
            outermost voxels never count.

    Returns:
        The counts, zero where no voxel counts. Memory beyond the input stays under 100 MB at any size.

    Raises:
        RegInputError: if ddf is no 3-D field or has fewer than 3 voxels along an axis.

    Source: Liu et al., IJCV 2024, arXiv:2212.06060; repository yihao6/digital_diffeomorphism.
    """
    if ddf.ndim != 5:
        raise RegInputError(
            f"ddf is {list(ddf.shape)}, expected (B, 3, D, H, W): the non-diffeomorphic volume is defined in 3-D; "
            "use folds for 2-D fields."
        )
    _check(ddf, mask, crop=1)
    rows = []
    for pair in range(ddf.shape[0]):
        counts = torch.zeros(4, dtype=torch.float64, device=ddf.device)
        for planes, lines in _tiles(ddf.shape[2:]):
            inner = None if mask is None else mask[pair, 0, planes, lines][1:-1, 1:-1, 1:-1] != 0
            counts += _count_tile(ddf[pair, :, planes, lines].double(), inner)
        rows.append(counts)
    return NonDiffeomorphic(*torch.stack(rows).unbind(1))


def _check(ddf: Tensor, mask: Tensor | None, crop: int) -> None:
    size = ddf.shape[2:]
    if len(size) not in (2, 3) or ddf.shape[1] != len(size):
        raise RegInputError(f"ddf is {list(ddf.shape)}, expected (B, 2, H, W) or (B, 3, D, H, W) in voxels.")
    if min(size) < max(2, 2 * crop + 1):
        raise RegInputError(
            f"ddf has the size {list(size)}, expected at least {max(2, 2 * crop + 1)} voxels along every axis: "
            f"{crop} are left out along every face; evaluate a larger region."
        )
    if mask is not None and tuple(mask.shape) != (ddf.shape[0], 1, *size):
        raise RegInputError(
            f"mask is {list(mask.shape)}, expected {[ddf.shape[0], 1, *size]} for this ddf; resample it to the grid."
        )


def _determinants(ddf: Tensor, mask: Tensor | None, crop: int) -> list[Tensor]:
    """For each pair the determinants of the voxels that count, as a float64 vector."""
    _check(ddf, mask, crop)
    inner = tuple(slice(crop, n - crop) for n in ddf.shape[2:])
    values = []
    for pair in range(ddf.shape[0]):
        det = jacobian_determinant(ddf[pair : pair + 1])[0][inner]
        chosen = det.flatten() if mask is None else det[mask[pair, 0][inner] != 0]
        values.append(chosen.double())
    return values


def _log_spread(values: list[Tensor]) -> Tensor:
    logs = [value.clamp(DET_FLOOR, DET_CEILING).log() for value in values]
    return torch.stack([(log - log.mean()).square().mean().sqrt() for log in logs])


def _tiles(size: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Overlapping blocks of planes and lines whose inner voxels cover the inner voxels of the grid once."""
    lines = max(1, min(TILE_VOXELS // size[2], size[1] - 2))
    planes = max(1, TILE_VOXELS // (size[2] * lines))
    cut = [
        [slice(start, min(start + step + 2, n)) for start in range(0, n - 2, step)]
        for n, step in zip(size, (planes, lines), strict=False)
    ]
    return list(product(*cut))


def _count_tile(u: Tensor, mask: Tensor | None) -> Tensor:
    """Voxels, nd_voxels, nd_tetrahedra and ndv, (4,), of the inner voxels of a tile (3, d, h, w)."""
    keep = torch.ones((), dtype=torch.bool, device=u.device) if mask is None else mask
    ahead = [_difference(u, axis) for axis in _unit_steps(1)]
    # x - phi(x - e) = (phi(x - e) - phi(x)) turned around
    behind = [[-part for part in _difference(u, axis)] for axis in _unit_steps(-1)]
    central = [[(a + b) / 2 for a, b in zip(*pair, strict=True)] for pair in zip(ahead, behind, strict=True)]
    central_det = _dot(central[0], _cross(central[1], central[2]))
    tetrahedra = torch.zeros((), dtype=torch.float64, device=u.device)
    volume = torch.zeros_like(tetrahedra)
    for det in _ten_determinants(u, ahead, behind):
        tetrahedra += (~(det > 0) & keep).sum()
        volume -= (det.clamp(max=0) * keep).sum()
    voxels = volume.new_tensor(central_det.numel()) if mask is None else mask.sum().double()
    return torch.stack([voxels, (~(central_det > 0) & keep).sum().double(), tetrahedra / 10, volume / 12])


def _unit_steps(sign: int) -> list[tuple[int, int, int]]:
    return [(sign, 0, 0), (0, sign, 0), (0, 0, sign)]


def _difference(u: Tensor, step: tuple[int, int, int]) -> list[Tensor]:
    """phi(x + step) - phi(x) of phi(x) = x + u(x) at the inner voxels, one tensor for each component."""
    there = tuple(slice(1 + k, n - 1 + k) for k, n in zip(step, u.shape[1:], strict=True))
    here = (slice(1, -1),) * 3
    return [(u[i][there] - u[i][here]).add_(step[i]) for i in range(3)]


def _ten_determinants(u: Tensor, ahead: list[list[Tensor]], behind: list[list[Tensor]]):
    """Yield the eight one-sided determinants and those of the two central tetrahedra."""
    for second in (ahead[1], behind[1]):
        for third in (ahead[2], behind[2]):
            normal = _cross(second, third)
            yield _dot(ahead[0], normal)
            yield _dot(behind[0], normal)
    for steps in (((-1, -1, 0), (-1, 0, -1), (0, -1, -1)), ((1, 1, 0), (0, 1, 1), (1, 0, 1))):
        rows = [_difference(u, step) for step in steps]
        yield _dot(rows[0], _cross(rows[1], rows[2]))


def _cross(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]


def _dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
