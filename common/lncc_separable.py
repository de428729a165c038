"""LNCC by short sums along each axis, on blocks of planes that stay in the cache, with a gradient of its own.

A box filter is its own adjoint, so the gradient is three more box filters and nothing but the images (the map) or the
gradient itself (the mean) is kept between the passes.
"""

import torch
from torch import Tensor

from .lncc_terms import Formula, Windows, suffices

__all__ = ["ROUNDING", "run"]

ROUNDING = 8  # rounding units in a sum of a tree of sums; the largest seen is 7.8, see the tests
BLOCK_BYTES = {
    "cpu": 6 * 2**20
}  # of one field of one block (1.5 to 6 MiB are alike on idle cores); elsewhere a block is the volume


def run(f: Tensor, w: Tensor, kernel_size: int, formula: Formula, **outputs: Tensor | None) -> Tensor:
    """Fill the outputs for one volume (*S) and return the sum of its map, in float64 where float32 does not suffice."""
    if f.dtype == torch.float32:
        total = Sweep(f, w, kernel_size, formula, torch.float32, **outputs).run()
        if total is not None:
            return total
    return Sweep(f, w, kernel_size, formula, torch.float64, **outputs).run()


class Sweep:
    """One pass over a volume, block by block along its first axis.

    A block is some padded planes laid out flat. The sum over a window is then a sum of shifted copies of a flat vector,
    whichever the axis. Entries whose window wraps from one row into the next belong to no voxel: they are sums of real
    voxels all the same, so they cannot overflow alone, and ``weight`` takes them out of the gradient.

    Args:
        f: fixed volume (*S).
        w: warped volume (*S).
        kernel_size: odd side of the window.
        formula: the formula.
        dtype: float32, or float64 to subtract the means of the volumes (and of the padding) first.
        value: where to put the map (*S).
        weight: (*S) upstream gradient; ones if None.
        grad_f: where to put the gradient by ``f`` (*S).
        grad_w: where to put the gradient by ``w`` (*S).
    """

    def __init__(
        self,
        f: Tensor,
        w: Tensor,
        kernel_size: int,
        formula: Formula,
        dtype: torch.dtype,
        value: Tensor | None = None,
        weight: Tensor | None = None,
        grad_f: Tensor | None = None,
        grad_w: Tensor | None = None,
    ) -> None:
        self.kernel_size, self.formula, self.size = kernel_size, formula, f.shape
        self.value, self.weight, self.grad_f, self.grad_w = value, weight, grad_f, grad_w
        self.radius = kernel_size // 2
        self.count = kernel_size**f.ndim
        padded = [side + 2 * self.radius for side in self.size]
        self.strides = (padded[1] * padded[2], padded[2], 1) if f.ndim == 3 else (padded[1], 1)
        self.plane = self.strides[0]
        self.tail = 2 * self.radius * sum(self.strides[1:])  # entries of a plane that no window of it starts at
        self.f, self.w = self.pad(f, dtype), self.pad(w, dtype)
        limit = BLOCK_BYTES.get(f.device.type)
        planes = limit // (self.f.element_size() * self.plane) if limit else self.size[0]
        self.planes = min(max(1, planes), self.size[0])
        room = (2 * self.radius + max(self.planes, self.radius)) * self.plane
        self.scratch = [self.f.new_empty(room) for _ in range(1 + f.ndim)]  # reused: fresh pages cost as much as a sum
        self.ones = self.lay_out(f.new_ones((self.planes, *self.size[1:])))

    def pad(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Flat padded volume; in float64 less its mean, which the zeros outside lose with it."""
        inner = [slice(self.radius, self.radius + side) for side in self.size]
        out = torch.zeros([side + 2 * self.radius for side in self.size], dtype=dtype, device=image.device)
        out[tuple(inner)] = image
        return (out.sub_(image.mean(dtype=dtype)) if dtype == torch.float64 else out).flatten()

    def lay_out(self, image: Tensor) -> Tensor:
        """Planes laid flat as a block, zero at the entries of no voxel."""
        out = self.f.new_zeros(image.shape[0] * self.plane)
        self.voxels(out, image.shape[0]).copy_(image)
        return out[: out.numel() - self.tail]

    def voxels(self, flat: Tensor, planes: int) -> Tensor:
        """The (planes, *S[1:]) entries of a flat block that belong to voxels."""
        return flat.as_strided((planes, *self.size[1:]), self.strides, flat.storage_offset())

    def box(self, flat: Tensor) -> Tensor:
        """Window sums: entry i is the sum over the window whose first corner is entry i of ``flat``."""
        *inner, last = self.strides
        for stride, out in zip(inner, self.scratch[2:], strict=True):
            flat = running_sum(flat, self.kernel_size, stride, *self.scratch[:2], out)
        return running_sum(flat, self.kernel_size, last, *self.scratch[:2], torch.empty_like(flat))

    def windows(self, first: int, last: int) -> Windows:
        """Statistics of the windows centered on planes ``first`` to ``last`` - 1."""
        part = slice(first * self.plane, (last + 2 * self.radius) * self.plane)
        f, w = self.f[part], self.w[part]
        sums = (self.box(field) for field in (f, w, f * f, w * w, f * w))
        return Windows.from_sums(*sums, self.count, self.formula)

    def run(self) -> Tensor | None:
        """Fill the outputs; the sum of the map, or None once float32 does not suffice."""
        total = torch.zeros((), dtype=torch.float64, device=self.f.device)
        adjoint = Adjoint(self) if self.grad_f is not None or self.grad_w is not None else None
        every_entry = self.value is not None or self.weight is not None
        for first in range(0, self.size[0], self.planes):
            last = min(first + self.planes, self.size[0])
            windows = self.windows(first, last)
            if self.f.dtype == torch.float32 and not suffices(self.formula, windows, ROUNDING, self.count, every_entry):
                return None
            value = self.formula.limit(self.formula.value(windows))
            if adjoint:
                adjoint.add(windows, value, first, last)
            inside = self.voxels(value, last - first)
            total += inside.sum(dtype=torch.float64)
            if self.value is not None:
                self.value[first:last] = inside
        if adjoint:
            adjoint.finish()
        return total


class Adjoint:
    """The gradient of a sweep: box filters of the weighted derivatives, one radius behind the sums.

    The gradient by w is f box(c) + w box(q) - box(c mean_f + q mean_w), with c the derivative by the covariance and q
    twice that by the variance of w; exchange the images for the other gradient.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.kept = 2 * sweep.radius * sweep.plane
        fields = 1 + 2 * (sweep.grad_f is not None) + 2 * (sweep.grad_w is not None)
        self.fields = sweep.f.new_zeros(fields, self.kept + max(sweep.planes, sweep.radius) * sweep.plane)

    def add(self, windows: Windows, value: Tensor, first: int, last: int) -> None:
        """Take the derivatives on planes ``first`` to ``last`` - 1, then finish the planes that are complete."""
        s = self.sweep
        weight = s.ones[: value.numel()] if s.weight is None else s.lay_out(s.weight[first:last])
        slope = s.formula.slope(windows, weight)
        factor = s.formula.variance_factor(windows, value, weight)
        derivatives = [slope]
        if s.grad_f is not None:
            by_f = s.formula.variance_slope(factor, windows.var_f, windows.var_w)
            derivatives += [by_f, (slope * windows.mean_w).addcmul_(by_f, windows.mean_f)]
        if s.grad_w is not None:
            by_w = s.formula.variance_slope(factor, windows.var_w, windows.var_f)
            derivatives += [by_w, (slope * windows.mean_f).addcmul_(by_w, windows.mean_w)]
        start = self.kept + s.tail // 2
        for field, derivative in zip(self.fields, derivatives, strict=True):
            field[start : start + derivative.numel()] = derivative
        self.write(first, last)

    def finish(self) -> None:
        """Nothing comes from behind the volume; write the planes that waited for it."""
        self.fields[:, self.kept :] = 0
        self.write(self.sweep.size[0], self.sweep.size[0] + self.sweep.radius)

    def write(self, first: int, last: int) -> None:
        """Write the gradients of planes ``first`` - radius to ``last`` - radius - 1; keep what the next ones need."""
        s = self.sweep
        used = self.kept + (last - first) * s.plane
        slope, *rest = (s.box(field[:used]) for field in self.fields)
        start = first * s.plane + s.tail // 2
        f, w = (image[start : start + slope.numel()] for image in (s.f, s.w))
        if s.grad_f is not None:
            self.store(s.grad_f, (w * slope).addcmul_(f, rest[0]).sub_(rest[1]), first, last)
        if s.grad_w is not None:
            self.store(s.grad_w, (f * slope).addcmul_(w, rest[-2]).sub_(rest[-1]), first, last)
        self.fields[:, : self.kept] = self.fields[:, used - self.kept : used].clone()

    def store(self, out: Tensor, gradient: Tensor, first: int, last: int) -> None:
        """Copy the planes that lie in the volume; the first ones of all lie before it."""
        begin, end = max(first - self.sweep.radius, 0), max(last - self.sweep.radius, 0)
        out[begin:end] = self.sweep.voxels(gradient, last - first)[last - first - (end - begin) :]


def running_sum(flat: Tensor, taps: int, stride: int, ping: Tensor, pong: Tensor, out: Tensor) -> Tensor:
    """Sum of ``taps`` (odd) entries ``stride`` apart, from each entry on; sums of 2, 4, 8, ... are shared.

    A tree of sums errs by a few units in the last place; a difference of cumulative sums would lose the contrast.
    ``ping`` and ``pong`` are room for the shared sums; the result is at the front of ``out`` (``flat`` for one tap).
    """
    total, power, span, covered = flat, flat, 1, 1
    while 2 * span <= taps:
        length = power.numel() - span * stride
        power = torch.add(power[:length], power[span * stride :], out=ping[:length])
        ping, pong = pong, ping
        span *= 2
        if taps & span:
            length = min(total.numel(), power.numel() - covered * stride)
            total = torch.add(total[:length], power[covered * stride :][:length], out=out[:length])
            covered += span
    return total
