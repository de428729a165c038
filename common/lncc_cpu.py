"""LNCC by running sums on the CPU: one sweep over the images, whose cost does not grow with the window.

A running sum keeps the rounding of everything that went through it. The sums are therefore float64, of intensities less
the image's mean, and what rounding can leave of a variance counts as none. See ``kernels_cpu`` for how the loops run.
"""

import numpy as np
import torch
from torch import Tensor

from .kernels_cpu import compiled, slabs
from .lncc_terms import EPS_MODES, Formula

__all__ = ["run"]

FLAT = 64 * np.finfo(np.float64).eps  # of the largest sum of squares a window could have: less is no variance
SPAN = 1e9  # intensities beyond it have derivatives by the sums that float32 cannot hold


def run(
    f: Tensor,
    w: Tensor,
    kernel_size: int,
    formula: Formula,
    value: Tensor | None = None,
    weight: Tensor | None = None,
    grad_f: Tensor | None = None,
    grad_w: Tensor | None = None,
) -> float:
    """Fill the outputs for one volume (*S) and return the sum of its map.

    Args:
        f: fixed volume (*S), float32 or float64 on the CPU.
        w: warped volume (*S).
        kernel_size: odd side of the window.
        formula: the formula.
        value: where to put the map (*S).
        weight: (*S) upstream gradient; ones if None.
        grad_f: where to put the gradient by ``f`` (*S).
        grad_w: where to put the gradient by ``w`` (*S).
    """
    if grad_w is None and grad_f is not None:  # the formula is symmetric; a sweep for w alone is the cheaper one
        f, w, grad_f, grad_w = w, f, grad_w, grad_f
    images = [as_volume(image) for image in (f, w)]
    radius = kernel_size // 2
    radii = (radius, radius, radius) if f.ndim == 3 else (radius, 0, radius)
    shifts = np.array([sparse(image).mean(dtype=np.float64) for image in images])
    span = [max(abs(float(end) - shift) for end in (*i.aminmax(), 0)) for i, shift in zip((f, w), shifts, strict=True)]
    count = kernel_size**f.ndim
    floors = FLAT * count * np.square(span)
    settings = (EPS_MODES.index(formula.mode), formula.squared, formula.eps, count, radii, shifts, floors)
    nothing = np.zeros((0, 0, 0), images[0].dtype)
    room = [nothing if out is None else as_volume(out) for out in (value, weight, grad_f, grad_w)]
    # a signed correlation has its steepest slopes in flat windows, where they have to cancel
    double = f.dtype == torch.float64 or max(span) > SPAN or not formula.squared
    one = np.ones(1, np.float64 if double else np.float32)
    depth, voxels = images[0].shape[0], images[0].size
    return sum(slabs(sweep, depth, voxels, lambda _: (*images, *settings, *room, one)))


def as_volume(image: Tensor) -> np.ndarray:
    """(D, H, W) in one piece; (H, W) as (H, 1, W), so that slabs of rows can be shared out."""
    array = np.ascontiguousarray(image.detach().numpy())
    return array[:, None] if array.ndim == 2 else array


def sparse(image: np.ndarray) -> np.ndarray:
    """Every fourth voxel along each axis: enough to say where the intensities lie."""
    return image[::4, ::4, ::4]


# The kernels. Sums run along the axes in turn: ``planes`` (K, H, W) hold the sums over z of the present plane's
# windows, ``columns`` (K, W) those over z and y, ``sums`` (K, W) the windows of a row; K = 5 has a sixth row of zeros
# there.


@compiled
def add_products(planes, f, w, shifts, sign):
    """Bring plane f, w and their products into the sums over z, or take them out."""
    for y in range(f.shape[0]):
        for x in range(f.shape[1]):
            a, b = f[y, x] - shifts[0], w[y, x] - shifts[1]
            planes[0, y, x] += sign * a
            planes[1, y, x] += sign * b
            planes[2, y, x] += sign * a * a
            planes[3, y, x] += sign * b * b
            planes[4, y, x] += sign * a * b


@compiled
def add_fields(planes, fields, sign):
    """Bring a plane of every field into the sums over z, or take it out."""
    for k in range(fields.shape[0]):
        for y in range(fields.shape[1]):
            for x in range(fields.shape[2]):
                planes[k, y, x] += sign * fields[k, y, x]


@compiled
def add_row(columns, planes, y, sign):
    """Bring row y into the sums over y, or take it out."""
    for k in range(planes.shape[0]):
        for x in range(planes.shape[2]):
            columns[k, x] += sign * planes[k, y, x]


@compiled
def run_along_row(columns, sums, radius):
    """Sums of a row's windows from the sums over z and y.

    Three rows at a time, because each addition waits for the one before.
    """
    width = columns.shape[1]
    for k in range(columns.shape[0]):
        column, out = columns[k], sums[k]
        out[0] = 0.0
        for x in range(radius + 1):
            out[0] += column[x]
        for x in range(1, radius + 1):
            out[x] = column[x + radius]
        for x in range(radius + 1, width - radius):
            out[x] = column[x + radius] - column[x - radius - 1]
        for x in range(width - radius, width):
            out[x] = -column[x - radius - 1]
    for k in range(0, columns.shape[0], 3):
        a, b, c = sums[k], sums[k + 1], sums[k + 2]
        total_a = total_b = total_c = 0.0
        for x in range(width):
            total_a += a[x]
            total_b += b[x]
            total_c += c[x]
            a[x], b[x], c[x] = total_a, total_b, total_c


@compiled
def inside(position, size, radius):
    """How many of a window's voxels lie inside along an axis."""
    return min(position + radius, size - 1) - max(position - radius, 0) + 1


@compiled
def sweep(first, last, f, w, mode, squared, eps, count, radii, shifts, floors, value, weight, grad_f, grad_w, one):
    """Sum of the map at planes first to last - 1; map and gradients are put where there is room.

    The gradient of a plane needs the derivatives of the ``radius`` planes around it: those outside of first to last - 1
    are formed by the neighboring slabs too. A ring holds the planes that are in use; ``one`` tells its precision.
    """
    depth, height, width = f.shape
    radius = radii[0]
    with_gradient = grad_f.size + grad_w.size > 0
    reach = radius if with_gradient else 0
    fields = 5 if grad_f.size else 3
    begin = max(first - reach, 0)
    planes, columns, sums = np.zeros((5, height, width)), np.zeros((6, width)), np.zeros((6, width))
    ring = np.zeros((2 * radius + 1, fields, height, width) if with_gradient else (1, fields, 1, 1), one.dtype)
    sloped = np.zeros((fields, height, width) if with_gradient else (fields, 1, 1))
    scale = np.ones(width)
    total = 0.0
    for z in range(max(begin - radius, 0), min(begin + radius, depth)):
        add_products(planes, f[z], w[z], shifts, 1.0)
    for z in range(begin, last + reach):
        derivatives = ring[z % ring.shape[0]]
        if with_gradient and z - ring.shape[0] >= begin:
            add_fields(sloped, derivatives, -1.0)
        if z < depth:
            if z + radius < depth:
                add_products(planes, f[z + radius], w[z + radius], shifts, 1.0)
            if z - radius - 1 >= max(begin - radius, 0):
                add_products(planes, f[z - radius - 1], w[z - radius - 1], shifts, -1.0)
            columns[:] = 0
            for y in range(min(radii[1], height)):
                add_row(columns, planes, y, 1.0)
            for y in range(height):
                advance(columns, planes, y, radii[1])
                run_along_row(columns, sums, radii[2])
                pad(sums, z, y, f.shape, radii, count, shifts)
                if weight.size:
                    scale[:] = weight[z, y]
                derive(sums, scale, mode, squared, eps, count, floors, with_gradient)
                if first <= z < last:
                    for x in range(width):
                        total += sums[0, x]
                    if value.size:
                        for x in range(width):
                            value[z, y, x] = sums[0, x]
                if with_gradient:
                    for k in range(fields):
                        for x in range(width):
                            derivatives[k, y, x] = sums[k + 1, x]
            if with_gradient:
                add_fields(sloped, derivatives, 1.0)
        if with_gradient and first <= z - radius < last:
            gradients(
                z - radius, f, w, shifts, sloped, columns[: fields + fields % 3 // 2], sums, radii, grad_f, grad_w
            )
    return total


@compiled
def advance(columns, planes, y, radius):
    """Move the sums over y on to row y."""
    if y + radius < planes.shape[1]:
        add_row(columns, planes, y + radius, 1.0)
    if y > radius:
        add_row(columns, planes, y - radius - 1, -1.0)


@compiled
def pad(sums, z, y, size, radii, count, shifts):
    """Count what lies outside the image as zero, that is as the negative means once these are taken off."""
    across = inside(z, size[0], radii[0]) * inside(y, size[1], radii[1])
    whole_rows = across * (2 * radii[2] + 1) == count
    for x in range(size[2]):
        if whole_rows and radii[2] <= x < size[2] - radii[2]:
            continue
        outside = count - across * inside(x, size[2], radii[2])
        sums[0, x] -= outside * shifts[0]
        sums[1, x] -= outside * shifts[1]
        sums[2, x] += outside * shifts[0] * shifts[0]
        sums[3, x] += outside * shifts[1] * shifts[1]
        sums[4, x] += outside * shifts[0] * shifts[1]


@compiled
def derive(sums, weight, mode, squared, eps, count, floors, with_gradient):
    """Put the map of a row in the place of its windows' sums, and the weighted derivatives that gradients are sums of.

    The formulas are those of ``lncc_terms.Formula``; modes are counted as in ``EPS_MODES``. Afterwards the rows are the
    map, the slope by the covariance, and for ``w``, then ``f``, that by the variance and the share of the means.
    """
    floored, ratio = mode == 2, mode == 3
    share = 1.0 / count
    for x in range(sums.shape[1]):
        mean_f, mean_w = sums[0, x] * share, sums[1, x] * share
        var_f, var_w = sums[2, x] - sums[0, x] * mean_f, sums[3, x] - sums[1, x] * mean_w
        cov = sums[4, x] - sums[0, x] * mean_w
        flat_f, flat_w = var_f <= floors[0], var_w <= floors[1]
        var_f, var_w = 0.0 if flat_f else var_f, 0.0 if flat_w else var_w
        cov = 0.0 if flat_f or flat_w else cov
        own_f = own_w = 1.0
        if floored:
            own_f, own_w = 1.0 if var_f > eps else 0.0, 1.0 if var_w > eps else 0.0
            var_f, var_w = max(var_f, eps), max(var_w, eps)
        inverse = 1.0 / (var_f * var_w + (0.0 if floored else eps))
        root = 1.0 if squared else np.sqrt(inverse)
        value = (cov * cov + (eps if ratio else 0.0)) * inverse if squared else cov * root
        value = min(max(value, 0.0 if squared else -1.0), 1.0)
        sums[0, x] = value
        if with_gradient:
            slope = (2.0 * cov * inverse if squared else root) * weight[x]
            factor = value * inverse * weight[x] * (-2.0 if squared else -1.0)
            by_f, by_w = factor * var_w * own_f, factor * var_f * own_w
            sums[1, x] = slope
            sums[2, x], sums[3, x] = by_w, slope * mean_f + by_w * mean_w
            sums[4, x], sums[5, x] = by_f, slope * mean_w + by_f * mean_f


@compiled
def gradients(z, f, w, shifts, planes, columns, sums, radii, grad_f, grad_w):
    """Gradients at plane z: window sums of the derivatives, times the images."""
    columns[:] = 0
    for y in range(min(radii[1], f.shape[1])):
        add_row(columns, planes, y, 1.0)
    for y in range(f.shape[1]):
        advance(columns, planes, y, radii[1])
        run_along_row(columns, sums, radii[2])
        for x in range(f.shape[2]):
            a, b = f[z, y, x] - shifts[0], w[z, y, x] - shifts[1]
            if grad_f.size:
                grad_f[z, y, x] = b * sums[0, x] + a * sums[3, x] - sums[4, x]
            if grad_w.size:
                grad_w[z, y, x] = a * sums[0, x] + b * sums[1, x] - sums[2, x]
