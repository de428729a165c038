"""Millimeters: voxels to world and back, fields in mm, images on other grids. The only file that knows units.

World coordinates are NIfTI's, RAS mm. An affine is float64 (N + 1, N + 1), from the voxels of a grid to its world.
``ddf_mm`` is (B, N, *S): component k displaces along world axis k (right, anterior, superior), a pull field like every
ddf: a point x of the fixed image's world lies at ``x + ddf_mm(x)`` in the moving image's. Files: transform_files.py.
"""

import numpy as np
import torch
from torch import Tensor

from .errors import RegInputError
from .float32_convolution import full_float32
from .spatial import identity_grid, warp

__all__ = [
    "ddf_to_mm",
    "inverse_displacement_mm",
    "linear_part",
    "mm_to_ddf",
    "mm_to_voxels",
    "ras_to_lps",
    "resample_mm",
    "spatial_affine",
    "total_displacement_mm",
    "transform_points",
    "voxel_offset",
    "voxels_to_mm",
    "warp_mm",
]

MIN_CONDITION = 1e-6  # smallest over largest singular value of voxel axes that can be told apart in float32


def spatial_affine(affine: np.ndarray, ndim: int) -> np.ndarray:
    """The float64 (N + 1, N + 1) affine of the first ``ndim`` axes; the (4, 4) of a 2-D NIfTI file fits too.

    Raises:
        RegInputError: if it has another shape, is not finite, or maps the grid onto less than ``ndim`` dimensions.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape not in ((ndim + 1, ndim + 1), (4, 4)):
        raise RegInputError(
            f"an affine has shape {matrix.shape}, expected {(ndim + 1, ndim + 1)}; give voxels to RAS mm."
        )
    keep = [*range(ndim), -1]
    matrix = matrix[np.ix_(keep, keep)]
    singular = np.linalg.svd(matrix[:-1, :-1], compute_uv=False) if np.isfinite(matrix).all() else np.zeros(2)
    if singular[-1] <= MIN_CONDITION * singular[0]:
        raise RegInputError(
            f"the affine {matrix.tolist()} cannot be inverted, expected voxels with an extent; mend it."
        )
    return matrix


def voxels_to_mm(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """World points (K, N), RAS mm, of voxel coordinates (K, N)."""
    points = np.asarray(points, dtype=np.float64)
    matrix = spatial_affine(affine, points.shape[-1])
    return points @ matrix[:-1, :-1].T + matrix[:-1, -1]


def mm_to_voxels(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxel coordinates (K, N) of world points (K, N), RAS mm."""
    points = np.asarray(points, dtype=np.float64)
    matrix = spatial_affine(affine, points.shape[-1])
    return np.linalg.solve(matrix[:-1, :-1], (points - matrix[:-1, -1]).T).T


def ras_to_lps(points: np.ndarray) -> np.ndarray:
    """Points or displacements (..., N) with the first two components negated: RAS to LPS, and LPS to RAS."""
    return np.asarray(points) * lps_sign(np.shape(points)[-1])


def lps_sign(ndim: int) -> np.ndarray:
    """(-1, -1, 1) or (-1, -1): what turns RAS components into LPS and back."""
    return np.array([-1.0, -1.0, 1.0])[:ndim]


def ddf_to_mm(ddf: Tensor, affine: np.ndarray) -> Tensor:
    """A field in voxels of its own grid, both images on that grid, in RAS mm.

    Args:
        ddf: (B, N, *S) in voxels.
        affine: (N + 1, N + 1) of the grid.
    """
    return multiply(spatial_affine(affine, ddf.shape[1])[:-1, :-1], ddf)


def mm_to_ddf(ddf_mm: Tensor, affine: np.ndarray) -> Tensor:
    """The inverse of :func:`ddf_to_mm`: RAS mm to voxels of the grid that the field lies on."""
    return multiply(np.linalg.inv(spatial_affine(affine, ddf_mm.shape[1])[:-1, :-1]), ddf_mm)


def total_displacement_mm(
    ddf: Tensor,
    network_affine: np.ndarray,
    fixed_affine: np.ndarray,
    fixed_size: tuple[int, ...],
    initial: np.ndarray | None = None,
) -> Tensor:
    """The whole way from the fixed to the moving world, on the grid of the fixed image.

    The network saw the fixed image, and the moving image through ``initial``, both on the network's grid. So a fixed
    point x goes to ``initial @ (x + u(x))``, u being ``ddf`` in mm, and this returns that minus x. Outside the
    network's grid u keeps the value of the nearest border voxel.

    Args:
        ddf: (B, N, *S) in voxels of the network's grid.
        network_affine: (N + 1, N + 1), voxels of the network's grid to the fixed world, RAS mm.
        fixed_affine: (N + 1, N + 1), voxels of the wanted grid to the same world.
        fixed_size: spatial shape of the wanted grid.
        initial: (N + 1, N + 1) from the fixed to the moving world, RAS mm, as ``common.affine`` returns it; by default
            the identity.

    Returns:
        ddf_mm (B, N, *fixed_size) in RAS mm, float32 at least.
    """
    ndim = ddf.shape[1]
    network, fixed = spatial_affine(network_affine, ndim), spatial_affine(fixed_affine, ndim)
    start = np.eye(ndim + 1) if initial is None else spatial_affine(initial, ndim)
    onto_network = linear_part(np.linalg.solve(network, fixed), fixed_size, ddf)
    moved = warp(ddf, onto_network.expand(ddf.shape[0], *onto_network.shape[1:]), padding_mode="border")
    local = multiply((start @ network)[:-1, :-1], moved)
    return local + linear_part(start, fixed_size, ddf, fixed)


def inverse_displacement_mm(
    inverse: Tensor,
    network_affine: np.ndarray,
    moving_affine: np.ndarray,
    moving_size: tuple[int, ...],
    initial: np.ndarray | None = None,
) -> Tensor:
    """The whole way back, from the moving to the fixed world, on the grid of the moving image.

    It undoes :func:`total_displacement_mm`: a moving point y comes from ``z + w(z)`` with ``z = initial^-1 @ y``, w
    being ``inverse`` in mm, and this returns that minus y. Outside the network's grid w keeps the nearest border's
    value.

    Args:
        inverse: (B, N, *S) in voxels of the network's grid, the inverse of its ddf.
        network_affine: (N + 1, N + 1), voxels of the network's grid to the fixed world, RAS mm.
        moving_affine: (N + 1, N + 1), voxels of the wanted grid to the moving world.
        moving_size: spatial shape of the wanted grid.
        initial: (N + 1, N + 1) from the fixed to the moving world, RAS mm; by default the identity.

    Returns:
        ddf_mm (B, N, *moving_size) in RAS mm, float32 at least.
    """
    ndim = inverse.shape[1]
    network, moving = spatial_affine(network_affine, ndim), spatial_affine(moving_affine, ndim)
    back = np.eye(ndim + 1) if initial is None else np.linalg.inv(spatial_affine(initial, ndim))
    onto_network = linear_part(np.linalg.solve(network, back @ moving), moving_size, inverse)
    moved = warp(inverse, onto_network.expand(inverse.shape[0], *onto_network.shape[1:]), padding_mode="border")
    return multiply(network[:-1, :-1], moved) + linear_part(back, moving_size, inverse, moving)


def linear_part(matrix: np.ndarray, size: tuple[int, ...], like: Tensor, affine: np.ndarray | None = None) -> Tensor:
    """``matrix @ x - x`` at the points x of a grid, (1, N, *size), float32 at least, on the device of ``like``.

    Args:
        matrix: (N + 1, N + 1) homogeneous.
        size: spatial shape of the grid.
        like: tensor whose device, and dtype if that is wider than float32, the result has.
        affine: (N + 1, N + 1) from the grid's voxels to the points; by default the points are the voxels.
    """
    ndim = len(size)
    points = np.eye(ndim + 1) if affine is None else affine
    difference = (matrix - np.eye(ndim + 1)) @ points  # subtracted here, in float64, not after rounding
    dtype = torch.promote_types(like.dtype, torch.float32)
    offset = torch.as_tensor(difference[:-1, -1], dtype=dtype, device=like.device).view(1, -1, *[1] * ndim)
    return multiply(difference[:-1, :-1], identity_grid(list(size), like).to(dtype)) + offset


def warp_mm(
    moving: Tensor,
    moving_affine: np.ndarray,
    ddf_mm: Tensor,
    fixed_affine: np.ndarray,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Tensor:
    """Resample a moving image, on whatever grid it has, onto the fixed grid through a field in mm.

    Args:
        moving: (B, C, *S_moving).
        moving_affine: (N + 1, N + 1), its voxels to its world, RAS mm.
        ddf_mm: (B, N, *S_fixed), fixed world to moving world, RAS mm.
        fixed_affine: (N + 1, N + 1) of the field's grid.
        mode: "bilinear" (linear in N dimensions), or "nearest" for label maps.
        padding_mode: what lies outside the moving image: "zeros", as ITK's resampling has it, or "border".

    Returns:
        (B, C, *S_fixed) in the dtype of ``moving``.
    """
    return warp(moving, voxel_offset(ddf_mm, fixed_affine, moving_affine), mode, padding_mode)


def voxel_offset(ddf_mm: Tensor, fixed_affine: np.ndarray, moving_affine: np.ndarray) -> Tensor:
    """What a field in mm adds to the indices of a fixed voxel to give its coordinates in the moving image's voxels.

    Args:
        ddf_mm: (B, N, *S_fixed), fixed world to moving world, RAS mm.
        fixed_affine: (N + 1, N + 1) of the field's grid.
        moving_affine: (N + 1, N + 1) of the moving image's grid. Equal affines add no rounding error of their own.

    Returns:
        (B, N, *S_fixed) in voxels of the moving image.
    """
    ndim = ddf_mm.shape[1]
    own, fixed = spatial_affine(moving_affine, ndim), spatial_affine(fixed_affine, ndim)
    voxels = multiply(np.linalg.inv(own[:-1, :-1]), ddf_mm)
    if np.array_equal(own, fixed):
        return voxels
    return voxels + linear_part(np.linalg.solve(own, fixed), tuple(ddf_mm.shape[2:]), voxels)


def resample_mm(
    image: Tensor,
    affine: np.ndarray,
    target_affine: np.ndarray,
    target_size: tuple[int, ...],
    initial: np.ndarray | None = None,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Tensor:
    """An image on another grid, through an affine from the target's world to the image's (by default the identity).

    Args:
        image: (B, C, *S).
        affine: (N + 1, N + 1), its voxels to its world, RAS mm.
        target_affine: (N + 1, N + 1) of the wanted grid.
        target_size: spatial shape of the wanted grid.
        initial: (N + 1, N + 1), target world to the image's world, RAS mm.
        mode: as in :func:`warp_mm`.
        padding_mode: as in :func:`warp_mm`.
    """
    ndim = len(target_size)
    start = np.eye(ndim + 1) if initial is None else spatial_affine(initial, ndim)
    like = image if image.is_floating_point() else image.new_zeros((), dtype=torch.float32)
    ddf_mm = linear_part(start, target_size, like, spatial_affine(target_affine, ndim))
    return warp_mm(image, affine, ddf_mm.expand(image.shape[0], *ddf_mm.shape[1:]), target_affine, mode, padding_mode)


def transform_points(points: np.ndarray, ddf_mm: Tensor, fixed_affine: np.ndarray) -> np.ndarray:
    """Where points of the fixed world lie in the moving world.

    Args:
        points: (K, N) in RAS mm.
        ddf_mm: one field (1, N, *S) in RAS mm; linear between voxels, constant beyond the border.
        fixed_affine: (N + 1, N + 1) of the field's grid.

    Returns:
        (K, N) in RAS mm, float64.
    """
    ndim = ddf_mm.shape[1]
    voxels = torch.as_tensor(mm_to_voxels(points, fixed_affine), dtype=torch.float64, device=ddf_mm.device)
    cells = voxels.T.reshape(1, ndim, -1, *[1] * (ndim - 1))  # a grid of K x 1 x 1 voxels, its own indices taken off
    there = cells - identity_grid(list(cells.shape[2:]), cells).to(cells)
    moved = warp(ddf_mm.to(torch.float64), there, padding_mode="border")
    return np.asarray(points, dtype=np.float64) + moved.reshape(ndim, -1).T.cpu().numpy()


def multiply(matrix: np.ndarray, field: Tensor) -> Tensor:
    """``matrix @ field`` over the components of (B, N, *S), in float32 at least."""
    dtype = torch.promote_types(field.dtype, torch.float32)
    factor = torch.as_tensor(matrix, dtype=dtype, device=field.device)
    with torch.autocast(field.device.type, enabled=False), full_float32():
        return torch.einsum("ij,bj...->bi...", factor, field.to(dtype))
