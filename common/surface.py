"""Distances between the surfaces of two masks, each piece of surface counted by its area.

A surface element sits on every corner shared by 2 x 2 (x 2) voxels of which some, not all, belong to the mask; its area
is that of the polygons which cut the edges between inside and outside voxel centers in their middle. Distances are
those between elements. The definition is that of DeepMind's surface-distance (doi:10.2196/26151), which Learn2Reg uses;
the areas are derived here from the polygons, not taken from its table.
"""

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import ndimage

__all__ = ["SurfaceDistances", "element_areas", "percentile_distance", "surface_distances"]

Point = tuple[float, ...]


class SurfaceDistances(NamedTuple):
    """Distances (mm) from each surface element of one mask to the other mask's surface, with the elements' areas.

    Areas are mm^2 in 3-D and contour lengths in mm in 2-D. A mask without voxels has no elements; distances to it are
    infinite.
    """

    first_to_second: np.ndarray
    first_areas: np.ndarray
    second_to_first: np.ndarray
    second_areas: np.ndarray


def surface_distances(first: np.ndarray, second: np.ndarray, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Distances between the surfaces of two masks, both ways.

    Args:
        first: boolean mask of shape (D, H, W) or (H, W).
        second: boolean mask of the same shape.
        spacing_mm: voxel size along each array axis.

    Returns:
        Two vectors of distances in mm and the areas that go with them; elements in array order.
    """
    box = _bounding_box(first | second)
    areas = element_areas(tuple(float(step) for step in spacing_mm))
    codes = [_corner_codes(mask[box]) for mask in (first, second)]
    on = [(code != 0) & (code != areas.size - 1) for code in codes]
    return SurfaceDistances(
        _distance_to(on[1], on[0], spacing_mm),
        areas[codes[0][on[0]]],
        _distance_to(on[0], on[1], spacing_mm),
        areas[codes[1][on[1]]],
    )


def percentile_distance(distances: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """Smallest distance within which at least ``percent`` of the surface area lies.

    Args:
        distances: of each element, at least one.
        areas: of each element, positive.
        percent: in (0, 100].
    """
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / np.sum(areas)
    at = np.searchsorted(share, percent / 100)
    return float(distances[order][min(at, order.size - 1)])


@cache
def element_areas(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area of the surface element for each of the 2^(2^N) ways in which 2 x 2 (x 2) voxels can be inside a mask.

    Bit ``i`` of a code is the voxel at the ``i``-th offset of ``itertools.product((0, 1), repeat=N)``.

    Args:
        spacing_mm: voxel size along the two or three array axes.

    Returns:
        256 areas in mm^2 for three axes, 16 lengths in mm for two; zero where all or no voxels are inside.
    """
    step = np.asarray(spacing_mm)
    # scaling the axes scales a segment by the steps and a triangle's normal by the products of the other two
    scale = step if step.size == 2 else step.prod() / step
    areas = np.array([np.linalg.norm(pieces * scale, axis=1).sum() for pieces in _pieces(step.size)])
    areas.setflags(write=False)
    return areas


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))
    return found[0] if found else (slice(0, 0),) * mask.ndim


def _corner_codes(mask: np.ndarray) -> np.ndarray:
    """Code of the voxels around each corner of the grid, nothing lying outside: sizes grow by one."""
    code = np.pad(mask, 1).view(np.uint8)
    for axis in range(mask.ndim):
        bits = 2 ** (mask.ndim - 1 - axis)  # how far the bits of two neighbors along this axis are apart
        before, after = (np.take(code, range(k, code.shape[axis] - 1 + k), axis) for k in (0, 1))
        code = before | after << bits
    return code


def _distance_to(surface: np.ndarray, at: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    if not surface.any():
        return np.full(np.count_nonzero(at), np.inf)
    return ndimage.distance_transform_edt(~surface, sampling=spacing_mm)[at]


@cache
def _pieces(ndim: int) -> list[np.ndarray]:
    """For each code the segments (2-D) or the triangles' area vectors (3-D) of its surface, for unit voxels."""
    corners = list(product((0, 1), repeat=ndim))
    full = 2 ** len(corners) - 1
    pieces = []
    for code in range(full + 1):
        # a code and its complement share one surface: that around the fewer voxels
        fewer = code if code.bit_count() <= len(corners) / 2 else full - code
        inside = {corner for bit, corner in enumerate(corners) if fewer >> bit & 1}
        pieces.append(_segments(inside) if ndim == 2 else _triangles(inside))
    return pieces


def _segments(inside: set[Point]) -> np.ndarray:
    square = [(0, 0), (0, 1), (1, 1), (1, 0)]
    return np.array([np.subtract(a, b) for a, b in _square_contour(square, inside)]).reshape(-1, 2)


def _triangles(inside: set[Point]) -> np.ndarray:
    segments = [segment for square in _cube_faces() for segment in _square_contour(square, inside)]
    normals = [normal for polygon in _polygons(segments) for normal in _widest_triangulation(polygon)]
    return np.array(normals).reshape(-1, 3)


def _cube_faces() -> list[list[Point]]:
    """The six faces of the unit cube, each as its four corners in turn."""
    ring = [(0, 0), (0, 1), (1, 1), (1, 0)]
    return [[(*p[:axis], side, *p[axis:]) for p in ring] for axis in range(3) for side in (0, 1)]


def _square_contour(square: list[Point], inside: set[Point]) -> list[tuple[Point, Point]]:
    """Segments between the middles of a square's edges that part inside from outside corners.

    Where two opposite corners are inside, each gets a segment of its own.
    """
    middles = [tuple((a + b) / 2 for a, b in zip(square[i - 1], square[i], strict=True)) for i in range(4)]
    crossed = [i for i in range(4) if (square[i - 1] in inside) != (square[i] in inside)]
    if len(crossed) == 4:
        return [(middles[i], middles[(i + 1) % 4]) for i in range(4) if square[i] in inside]
    return [(middles[crossed[0]], middles[crossed[1]])] if crossed else []


def _polygons(segments: list[tuple[Point, Point]]) -> list[np.ndarray]:
    """Chain segments, of which two meet in every point, into closed polygons of shape (points, 3)."""
    left = list(segments)
    polygons = []
    while left:
        polygon = list(left.pop())
        while (found := next((s for s in left if polygon[-1] in s), None)) is not None:
            left.remove(found)
            polygon.append(found[found[0] == polygon[-1]])
        polygons.append(np.array(polygon[:-1]))  # the last point is the first
    return polygons


def _widest_triangulation(polygon: np.ndarray) -> np.ndarray:
    """Area vectors (triangles, 3) of the triangulation with the largest area, the one the published table holds."""
    candidates = [
        np.array([np.cross(polygon[b] - polygon[a], polygon[c] - polygon[a]) / 2 for a, b, c in triangles])
        for triangles in _triangulations(0, len(polygon) - 1)
    ]
    return max(candidates, key=lambda normals: round(np.linalg.norm(normals, axis=1).sum(), 9))


def _triangulations(first: int, last: int) -> list[list[tuple[int, int, int]]]:
    """Every way to cut the convex polygon of the points ``first`` to ``last`` into triangles of those points."""
    if last - first < 2:
        return [[]]
    return [
        [(first, middle, last), *before, *after]
        for middle in range(first + 1, last)
        for before in _triangulations(first, middle)
        for after in _triangulations(middle, last)
    ]
