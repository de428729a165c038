"""Maps from the fixed to the moving world as transform files hold them: affines, fields and B-splines in a row.

Points are RAS mm. Beyond its own grid a field or a spline leaves points where they are, as ITK, ANTs and elastix have
it; ``common.geometry.transform_points`` goes on with the border's value instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from .errors import RegInputError
from .geometry import mm_to_voxels, spatial_affine, transform_points, voxels_to_mm

__all__ = ["Field", "Linear", "Map", "Spline", "concatenate"]

POINTS = 2**21  # worked on at once: 50 MB a float64 copy; indices stay exact in the float32 of `identity_grid`


@dataclass(frozen=True)
class Linear:
    """``y = matrix @ x``.

    Attributes:
        matrix: (N + 1, N + 1) homogeneous, RAS mm.
    """

    matrix: np.ndarray

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.matrix) - 1

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where points (K, N) go."""
        return points @ self.matrix[:-1, :-1].T + self.matrix[:-1, -1]


@dataclass(frozen=True)
class Field:
    """``y = x + ddf_mm(x)``, linear between voxels; x where no voxel surrounds x.

    Attributes:
        ddf_mm: (1, N, *S), RAS mm.
        affine: (N + 1, N + 1) of its grid.
    """

    ddf_mm: Tensor
    affine: np.ndarray

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.ddf_mm.shape[1]

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial shape of the grid."""
        return tuple(self.ddf_mm.shape[2:])

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where points (K, N) go."""
        voxels = mm_to_voxels(points, self.affine)
        inside = ((voxels >= -0.5) & (voxels < np.array(self.size) - 0.5)).all(axis=1)  # a voxel reaches half a voxel
        return np.where(inside[:, None], transform_points(points, self.ddf_mm, self.affine), points)


@dataclass(frozen=True)
class Spline:
    """``y = x + sum_k c_k B(x - k)``, uniform B-splines; x where not all of its control points surround x.

    Attributes:
        coefficients_mm: (N, *G), float64, RAS mm.
        affine: (N + 1, N + 1), indices of the control points to RAS mm.
        order: of the B-spline, 1 to 3.

    Source: Rueckert et al., IEEE TMI 1999, doi:10.1109/42.796284.
    """

    coefficients_mm: np.ndarray
    affine: np.ndarray
    order: int = 3

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.coefficients_mm)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where points (K, N) go."""
        index = mm_to_voxels(points, self.affine)
        margin = (self.order - 1) / 2
        last = np.array(self.coefficients_mm.shape[1:]) - 1 - margin
        inside = ((index >= margin) & (index <= last)).all(axis=1)
        moved = np.array(points, dtype=np.float64)
        for axis, values in enumerate(self.coefficients_mm):
            moved[inside, axis] += map_coordinates(values, index[inside].T, order=self.order, prefilter=False)
        return moved


Part = Linear | Field | Spline


@dataclass(frozen=True)
class Map:
    """Parts one after the other: ``y = parts[-1](... parts[0](x))``.

    Attributes:
        parts: at least one, all of the same dimension.
    """

    parts: tuple[Part, ...]

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.parts[0].ndim

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where points (K, N) of the fixed world lie in the moving world, both RAS mm; float64."""
        points = np.asarray(points, dtype=np.float64)
        pieces = np.array_split(points, max(1, -(-len(points) // POINTS)))
        return np.concatenate([reduce(lambda at, part: part.points(at), self.parts, piece) for piece in pieces])

    def on_grid(self, size: tuple[int, ...], affine: np.ndarray) -> Tensor:
        """The whole way from each voxel of a grid, sampled there.

        Args:
            size: spatial shape of the grid.
            affine: (N + 1, N + 1), its voxels to the fixed world, RAS mm.

        Returns:
            ddf_mm (1, N, *size), RAS mm, float32.
        """
        matrix = spatial_affine(affine, self.ndim)
        precise = Map(tuple(in_float64(part) for part in self.parts))  # once, not for every slab
        planes = max(1, POINTS // int(np.prod(size[1:])))
        field = torch.empty(1, self.ndim, *size)
        for first in range(0, size[0], planes):
            slab = (min(planes, size[0] - first), *size[1:])
            index = np.indices(slab).reshape(self.ndim, -1).T + np.eye(self.ndim)[0] * first
            at = voxels_to_mm(index, matrix)
            field[0, :, first : first + slab[0]] = torch.from_numpy((precise.points(at) - at).T.reshape(-1, *slab))
        return field

    def merged(self) -> "Map":
        """The same map with neighboring affines multiplied."""
        parts: list[Part] = []
        for part in self.parts:
            if isinstance(part, Linear) and parts and isinstance(parts[-1], Linear):
                parts[-1] = Linear(part.matrix @ parts[-1].matrix)
            else:
                parts.append(part)
        return Map(tuple(parts))

    @property
    def matrix(self) -> np.ndarray | None:
        """(N + 1, N + 1), RAS mm, of a map that is affine as a whole; None of any other."""
        parts = self.merged().parts
        return parts[0].matrix if len(parts) == 1 and isinstance(parts[0], Linear) else None

    @property
    def volume(self) -> float:
        """The determinant of its affines alone: by what they multiply volume."""
        return float(np.prod([np.linalg.det(part.matrix) for part in self.parts if isinstance(part, Linear)]))


def concatenate(maps: Sequence[Map]) -> Map:
    """One map for several, the first applied to points first.

    Raises:
        RegInputError: if they are of different dimension.
    """
    if len({one.ndim for one in maps}) != 1:
        raise RegInputError(
            f"the transforms have {[one.ndim for one in maps]} dimensions, expected one number; name those of one pair."
        )
    return Map(tuple(part for one in maps for part in one.parts))


def in_float64(part: Part) -> Part:
    """A part whose field, if it is one, is float64."""
    return Field(part.ddf_mm.double(), part.affine) if isinstance(part, Field) else part
