"""The device code of ``lncc_cuda``: marches whose lanes keep the last window of what they pass in registers.

A *row* is a tuple of vectors, a lane of each for every voxel of the program; a *ring* is the tuple of the last SIDE
rows. The loop over the march is unrolled by SIDE, so that the slots of a ring are registers with fixed names. Window
sums follow van Herk (doi:10.1016/0167-8655(92)90069-C): sums from every slot of the last ring to its end, plus the sum
of the present ring up to here. That is three additions a step whatever the window, and nothing stays of rows that
have left it.
"""

# ruff: noqa: N803, RUF005 (compile-time constants are capitals, as triton's own; it joins tuples by + alone)

import triton
import triton.language as tl

__all__ = ["conclude", "correlate", "slope_in_plane", "sum_in_plane"]


@triton.jit
def zeros(COUNT: tl.constexpr, LANES: tl.constexpr, DTYPE: tl.constexpr):
    """A row of ``COUNT`` vectors."""
    row = (tl.zeros([LANES], DTYPE),)
    for _ in tl.static_range(COUNT - 1):
        row = row + (tl.zeros([LANES], DTYPE),)
    return row


@triton.jit
def empty_ring(SIDE: tl.constexpr, COUNT: tl.constexpr, LANES: tl.constexpr, DTYPE: tl.constexpr):
    """A ring of rows of zeros: nothing has been passed yet."""
    ring = (zeros(COUNT, LANES, DTYPE),)
    for _ in tl.static_range(SIDE - 1):
        ring = ring + (zeros(COUNT, LANES, DTYPE),)
    return ring


@triton.jit
def add(first, second):
    """Sum of two rows."""
    row = (first[0] + second[0],)
    for k in tl.static_range(1, len(first)):
        row = row + (first[k] + second[k],)
    return row


@triton.jit
def sums_to_end(ring, SIDE: tl.constexpr):
    """Row k: the sum of rows k to SIDE - 1."""
    sums = (ring[SIDE - 1],)
    for k in tl.static_range(1, SIDE):
        sums = (add(ring[SIDE - 1 - k], sums[0]),) + sums
    return sums


@triton.jit
def window_sum(ahead, behind, K: tl.constexpr, SIDE: tl.constexpr):
    """Sum of the last SIDE rows at step K of a ring: those of this ring, and of the last one from slot K + 1 on."""
    if K + 1 < SIDE:
        return add(ahead, behind[K + 1])
    else:
        return ahead


@triton.jit
def lanes_in_plane(planes, width, LANES: tl.constexpr):
    """Plane and x of every lane, and whether it has any: planes lie in a row, so that few lanes are idle."""
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    return lane // width, (lane % width).to(tl.int32), lane < planes.to(tl.int64) * width


@triton.jit
def shift_of(shifts_ptr, volume, inside):
    """What is taken off the two images: their means, or nothing."""
    if shifts_ptr is None:
        return 0.0, 0.0
    else:
        return (
            tl.load(shifts_ptr + 2 * volume, mask=inside, other=0.0),
            tl.load(shifts_ptr + 2 * volume + 1, mask=inside, other=0.0),
        )


@triton.jit
def neighbor(x, width, there, STEP: tl.constexpr):
    """Where the voxel ``STEP`` further along the row exists; x itself lies in the row."""
    if STEP < 0:
        return there & (x >= -STEP)
    elif STEP > 0:
        return there & (x < width - STEP)
    else:
        return there


@triton.jit
def products_along_row(
    f_ptr, w_ptr, shift, x, width, there, SIDE: tl.constexpr, LANES: tl.constexpr, DTYPE: tl.constexpr
):
    """Sums over x of the images, their squares and their product; what lies outside is zero before the shift."""
    f, w, ff, ww, fw = zeros(5, LANES, DTYPE)
    for k in tl.static_range(-(SIDE // 2), SIDE // 2 + 1):
        mask = neighbor(x, width, there, k)
        a = tl.load(f_ptr + k, mask=mask, other=0.0).to(DTYPE) - shift[0]
        b = tl.load(w_ptr + k, mask=mask, other=0.0).to(DTYPE) - shift[1]
        f += a
        w += b
        ff += a * a
        ww += b * b
        fw += a * b
    return f, w, ff, ww, fw


@triton.jit(do_not_specialize=["first", "planes", "depth", "height", "width"])
def sum_in_plane(
    f_ptr, w_ptr, shifts_ptr, sums_ptr, first, planes, depth, height, width,
    SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Window sums over y and x of ``planes`` planes from ``first`` on: (planes, H, W) images to (5, planes, H, W)."""
    dtype: tl.constexpr = sums_ptr.dtype.element_ty
    plane, x, inside = lanes_in_plane(planes, width, LANES)
    shift = shift_of(shifts_ptr, (first + plane) // depth, inside)
    source, target = (first + plane) * height * width + x, plane * height * width + x
    field = planes.to(tl.int64) * height * width
    begin = tl.program_id(1) * ROWS
    end = tl.minimum(begin + ROWS, height)
    ring = empty_ring(SIDE_Y, 5, LANES, dtype)
    for y in range(begin - SIDE_Y // 2, end + SIDE_Y // 2, SIDE_Y):
        behind = sums_to_end(ring, SIDE_Y)
        ahead = zeros(5, LANES, dtype)
        ring = ()
        for k in tl.static_range(SIDE_Y):
            there = inside & (y + k >= 0) & (y + k < height)
            start = source + (y + k) * width
            row = products_along_row(f_ptr + start, w_ptr + start, shift, x, width, there, SIDE_X, LANES, dtype)
            ring = ring + (row,)
            ahead = add(ahead, row)
            sums = window_sum(ahead, behind, k, SIDE_Y)
            out = y + k - SIDE_Y // 2
            for j in tl.static_range(5):
                tl.store(sums_ptr + j * field + target + out * width, sums[j], inside & (out >= begin) & (out < end))


@triton.jit
def rows_outside(shift, AREA: tl.constexpr):
    """The sums in the plane of what lies before and behind the volume."""
    if isinstance(shift[0], tl.constexpr):
        return 0.0, 0.0, 0.0, 0.0, 0.0
    else:
        a, b = -shift[0], -shift[1]
        return a * AREA, b * AREA, a * a * AREA, b * b * AREA, a * b * AREA


@triton.jit
def derive(
    sums, weight, MODE: tl.constexpr, SQUARED: tl.constexpr, EPS: tl.constexpr, COUNT: tl.constexpr,
    FLAT: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    """A row of windows: the map, the statistics that its rounding depends on, and the weighted derivatives.

    The formulas are those of ``lncc_terms.Formula``; modes are counted as in ``EPS_MODES``. The derivatives are that by
    the covariance, and for ``w``, then ``f``, twice that by the variance and the share of the means.
    """
    f, w, ff, ww, fw = sums
    mean_f, mean_w = f * (1.0 / COUNT), w * (1.0 / COUNT)
    var_f, var_w, cov = ff - f * mean_f, ww - w * mean_w, fw - f * mean_w
    if f.dtype == tl.float64:  # a variance that is all rounding is none
        flat_f, flat_w = var_f <= FLAT * ff, var_w <= FLAT * ww
        var_f, var_w = tl.where(flat_f, 0.0, var_f), tl.where(flat_w, 0.0, var_w)
        cov = tl.where(flat_f | flat_w, 0.0, cov)
    floor: tl.constexpr = EPS if MODE == 2 else 0.0
    own_f, own_w = var_f > floor, var_w > floor
    var_f, var_w = tl.where(var_f < floor, floor, var_f), tl.where(var_w < floor, floor, var_w)  # keeps nan
    inverse = 1.0 / (var_f * var_w + (0.0 if MODE == 2 else EPS))
    if SQUARED:
        value = (cov * cov + (EPS if MODE == 3 else 0.0)) * inverse
        value = tl.where(value > 1.0, 1.0, value)
        slope, factor = 2.0 * cov * inverse * weight, -2.0 * value * inverse * weight
    else:
        root = tl.sqrt(inverse)
        value = cov * root
        value = tl.where(value > 1.0, 1.0, tl.where(value < -1.0, -1.0, value))
        slope, factor = root * weight, -value * inverse * weight
    by_f, by_w = factor * var_w, factor * var_f
    if MODE == 2:  # a floored variance is constant
        by_f, by_w = tl.where(own_f, by_f, 0.0), tl.where(own_w, by_w, 0.0)
    derivatives = (slope, by_w, slope * mean_f + by_w * mean_w)
    if FIELDS == 5:
        derivatives = derivatives + (by_f, slope * mean_w + by_f * mean_f)
    return value, (var_f, var_w, inverse), derivatives


@triton.jit
def rounding_bound(sums, statistics, SQUARED: tl.constexpr, UNIT: tl.constexpr, SMALLEST: tl.constexpr):
    """What ``lncc_terms.suffices`` asks of a row of windows: the bound of the value's rounding, or inf."""
    square_f, square_w = sums[2] + SMALLEST, sums[3] + SMALLEST
    var_f, var_w, inverse = statistics
    product = square_f * square_w
    bound = (product * UNIT + square_f * var_w + square_w * var_f) * inverse
    if not SQUARED:
        bound += tl.sqrt(product * inverse)
    sound = (bound < float("inf")) & (inverse > 0.0)  # fast division gives 0 from 2^126 on
    return tl.where(sound, bound, float("inf")) * UNIT


@triton.jit(do_not_specialize=["first", "source", "planes", "begin", "end", "area", "chapter", "chapters"])
def correlate(
    sums_ptr, value_ptr, weight_ptr, shifts_ptr, parts_ptr, first, source, planes, begin, end, area, chapter, chapters,
    SIDE: tl.constexpr, COUNT: tl.constexpr, MODE: tl.constexpr, SQUARED: tl.constexpr, EPS: tl.constexpr,
    UNIT: tl.constexpr, TINY: tl.constexpr, FLAT: tl.constexpr, FIELDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """From window sums in the plane to the map, parts of its sum, and sums of its derivatives over z.

    A lane is a column of voxels. It writes derivatives at planes that it has read ``SIDE - 1`` steps ago, so they can
    take the place of the sums. All loads of a ring come before its stores, which would hold them up.
    """
    dtype: tl.constexpr = sums_ptr.dtype.element_ty
    radius: tl.constexpr = SIDE // 2
    reach: tl.constexpr = 2 * radius if FIELDS > 0 else radius
    area = area.to(tl.int64)  # offsets may go beyond what 32 bits count
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    inside = lane < area
    volume = tl.program_id(1)
    column, outer = volume * planes * area + lane, (source + volume * planes) * area + lane
    field = tl.num_programs(1) * planes * area
    outside = rows_outside(shift_of(shifts_ptr, first + volume, True), COUNT // SIDE)
    ring = empty_ring(SIDE, 5, LANES, dtype)
    slopes = empty_ring(SIDE, 3 if FIELDS == 0 else FIELDS, LANES, dtype)
    total, worst, bounds = zeros(3, LANES, dtype)
    for z in range(begin - reach, end + reach, SIDE):
        behind = sums_to_end(ring, SIDE)
        ahead = zeros(5, LANES, dtype)
        ring = ()
        weights = ()
        for k in tl.static_range(SIDE):
            there = inside & (z + k >= 0) & (z + k < planes)
            place = sums_ptr + column + (z + k) * area
            row = ()
            for j in tl.static_range(5):
                row = row + (tl.load(place + j * field, mask=there, other=outside[j]),)
            ring = ring + (row,)
            if weight_ptr is not None:
                center = z + k - radius
                there = inside & (center >= 0) & (center < planes)
                place = weight_ptr + outer + center * area
                weights = weights + (tl.load(place, mask=there, other=0.0).to(dtype),)
            else:
                weights = weights + (1.0,)
        if FIELDS > 0:
            slopes_behind = sums_to_end(slopes, SIDE)
            slopes_ahead = zeros(FIELDS, LANES, dtype)
            slopes = ()
        for k in tl.static_range(SIDE):
            ahead = add(ahead, ring[k])
            sums = window_sum(ahead, behind, k, SIDE)
            center = z + k - radius
            value, statistics, derivatives = derive(sums, weights[k], MODE, SQUARED, EPS, COUNT, FLAT, FIELDS)
            own = inside & (center >= begin) & (center < end)
            total += tl.where(own, value, 0.0)
            if value_ptr is not None:
                tl.store(value_ptr + outer + center * area, value, own)
            known = inside & (center >= begin - reach + radius) & (center < end + reach - radius)
            known = known & (center >= 0) & (center < planes)
            if dtype == tl.float32:
                bound = rounding_bound(sums, statistics, SQUARED, UNIT, COUNT * TINY)
                worst = tl.maximum(worst, tl.where(known, bound, 0.0))
                bounds += tl.where(own, bound, 0.0)
            if FIELDS > 0:
                row = ()
                for j in tl.static_range(FIELDS):
                    row = row + (tl.where(known, derivatives[j], 0.0),)
                slopes = slopes + (row,)
                slopes_ahead = add(slopes_ahead, row)
                sloped = window_sum(slopes_ahead, slopes_behind, k, SIDE)
                out = center - radius
                place = sums_ptr + column + out * area
                for j in tl.static_range(FIELDS):
                    tl.store(place + j * field, sloped[j], inside & (out >= begin) & (out < end))
    step = chapters.to(tl.int64) * tl.num_programs(0)
    part = parts_ptr + (first + volume) * 3 * step + chapter * tl.num_programs(0) + tl.program_id(0)
    tl.store(part, tl.sum(total, 0))
    tl.store(part + step, tl.max(worst, 0))
    tl.store(part + 2 * step, tl.sum(bounds, 0))


@triton.jit
def fields_along_row(ptr, field, x, width, there, FIELDS: tl.constexpr, SIDE: tl.constexpr):
    """Sums over x of every field."""
    sums = ()
    for j in tl.static_range(FIELDS):
        total = tl.load(ptr + j * field, mask=there, other=0.0)
        for k in tl.static_range(1, SIDE // 2 + 1):
            total += tl.load(ptr + j * field - k, mask=neighbor(x, width, there, -k), other=0.0)
            total += tl.load(ptr + j * field + k, mask=neighbor(x, width, there, k), other=0.0)
        sums = sums + (total,)
    return sums


@triton.jit(do_not_specialize=["start", "first", "planes", "stored", "depth", "height", "width"])
def slope_in_plane(
    sums_ptr, f_ptr, w_ptr, shifts_ptr, grad_f_ptr, grad_w_ptr, start, first, planes, stored, depth, height, width,
    SIDE_Y: tl.constexpr, SIDE_X: tl.constexpr, ROWS: tl.constexpr, FIELDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Gradients of ``planes`` planes: the fields' sums over y and x, times the images.

    The fields (FIELDS, stored, H, W) are read from plane ``start`` on, images and gradients from plane ``first`` on.
    """
    dtype: tl.constexpr = sums_ptr.dtype.element_ty
    plane, x, inside = lanes_in_plane(planes, width, LANES)
    shift = shift_of(shifts_ptr, (first + plane) // depth, inside)
    source, target = sums_ptr + (start + plane) * height * width + x, (first + plane) * height * width + x
    field = stored.to(tl.int64) * height * width
    begin = tl.program_id(1) * ROWS
    end = tl.minimum(begin + ROWS, height)
    ring = empty_ring(SIDE_Y, FIELDS, LANES, dtype)
    for y in range(begin - SIDE_Y // 2, end + SIDE_Y // 2, SIDE_Y):
        behind = sums_to_end(ring, SIDE_Y)
        ahead = zeros(FIELDS, LANES, dtype)
        ring = ()
        for k in tl.static_range(SIDE_Y):
            there = inside & (y + k >= 0) & (y + k < height)
            row = fields_along_row(source + (y + k) * width, field, x, width, there, FIELDS, SIDE_X)
            ring = ring + (row,)
            ahead = add(ahead, row)
            sums = window_sum(ahead, behind, k, SIDE_Y)
            out = y + k - SIDE_Y // 2
            own = inside & (out >= begin) & (out < end)
            place = target + out * width
            f = tl.load(f_ptr + place, mask=own, other=0.0).to(dtype) - shift[0]
            w = tl.load(w_ptr + place, mask=own, other=0.0).to(dtype) - shift[1]
            tl.store(grad_w_ptr + place, f * sums[0] + w * sums[1] - sums[2], own)
            if FIELDS == 5:
                tl.store(grad_f_ptr + place, w * sums[0] + f * sums[3] - sums[4], own)


@triton.jit(do_not_specialize=["length", "voxels"])
def conclude(
    parts_ptr, totals_ptr, sound_ptr, length, voxels, WORST: tl.constexpr, MEAN: tl.constexpr, LANES: tl.constexpr
):
    """Sum of a volume's map from its parts (3, length), and whether the bound of its rounding is admissible."""
    volume = tl.program_id(0)
    parts_ptr += volume * 3 * length
    total, worst, bounds = zeros(3, LANES, tl.float64)
    for start in range(0, length, LANES):
        lane = start + tl.arange(0, LANES)
        total += tl.load(parts_ptr + lane, mask=lane < length, other=0.0).to(tl.float64)
        worst = tl.maximum(worst, tl.load(parts_ptr + length + lane, mask=lane < length, other=0.0).to(tl.float64))
        bounds += tl.load(parts_ptr + 2 * length + lane, mask=lane < length, other=0.0).to(tl.float64)
    tl.store(totals_ptr + volume, tl.sum(total, 0))
    mean = tl.sum(bounds, 0) / voxels
    tl.store(sound_ptr + volume, ((tl.max(worst, 0) <= WORST) & (mean <= MEAN)).to(tl.int32))
