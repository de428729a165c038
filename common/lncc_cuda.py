"""LNCC by three fused kernels that triton compiles for a GPU, with a gradient of their own.

Every kernel marches along one axis and keeps the last window of its lanes in registers, so that it loads what it sums
over that axis once:

* ``sum_in_plane`` forms the five window sums over x, from neighbors in the cache, and over y;
* ``correlate`` sums them over z, evaluates map, mean and derivatives, and sums the derivatives over z in the same
  march; they take the place of the sums in memory;
* ``slope_in_plane`` sums the derivatives over x and y and multiplies them with the images.

Bytes that pass between memory and chip, per voxel in float32, where h = 1 + 2 (kernel_size - 1) / planes of a slab:

================  ====  =====  =================
kernel            read  write  both gradients
================  ====  =====  =================
sum_in_plane       8 h   20 h  the same
correlate         20 h     12  20 written
slope_in_plane      20      4  28 read, 8 written
================  ====  =====  =================

A mean with one gradient thus moves 48 h + 36, and 8 in its backward pass, a product. The least that any method moves is
12: both images in, one gradient out. Between them stand the maps that cross from one axis to the next. Not taken: a
kernel for each axis of each filter moves above 200; a tile of three axes on chip needs values of other threads, which
triton exchanges behind a barrier for each shift; differences of running sums keep the rounding of all that has passed.

A volume is worked off in slabs of planes, or a batch in groups of volumes, within ``SCRATCH_BYTES``. Sums are float32,
short and without tensor cores. The bound of their rounding is taken in the same march, and volumes that it does not
vouch for are done again in float64, less their means: that verdict is the one wait for the device.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise

import torch
import triton
from torch import Tensor

from .lncc_kernels_cuda import conclude, correlate, slope_in_plane, sum_in_plane
from .lncc_terms import ENTRY_TOLERANCE, EPS_MODES, FLAT, SLOPE_TOLERANCE, Formula

__all__ = ["ROUNDING", "run"]

ROUNDING = 16  # rounding units in a sum that is a chain along each axis; the tests see 5.1 at side 9, 6.6 at side 15
SCRATCH_BYTES = 96 * 2**20  # of the five sums: with one gradient 16 bytes a voxel at 160x192x224 and window 9
LANES = 128  # of a program, a voxel a thread: none may see what another has written over
ROWS = 64  # that a program in the plane writes; it reads kernel_size - 1 more


def run(
    f: Tensor,
    w: Tensor,
    kernel_size: int,
    formula: Formula,
    value: Tensor | None = None,
    weight: Tensor | None = None,
    grad_f: Tensor | None = None,
    grad_w: Tensor | None = None,
) -> Tensor:
    """Fill the outputs for a stack of volumes (N, *S) and return the sum of their maps, 0-D in float64.

    Args:
        f: fixed volumes (N, *S), float32 or float64, on a GPU (or anywhere under TRITON_INTERPRET=1).
        w: warped volumes (N, *S).
        kernel_size: odd side of the window.
        formula: the formula.
        value: where to put the maps (N, *S), contiguous.
        weight: (N, *S) upstream gradient; ones if None.
        grad_f: where to put the gradient by ``f`` (N, *S), contiguous.
        grad_w: where to put the gradient by ``w`` (N, *S), contiguous.
    """
    if grad_w is None and grad_f is not None:  # the formula is symmetric: one set of kernels for one gradient
        f, w, grad_f, grad_w = w, f, grad_w, grad_f
    stack = [None if image is None else as_volumes(image) for image in (f, w, value, weight, grad_f, grad_w)]
    settings = (kernel_size, f.ndim - 1, formula)
    with torch.cuda.device(f.device) if f.is_cuda else nullcontext():  # triton launches on the current device
        totals, sound = Sweep(*stack, *settings, f.dtype).run()
        if f.dtype == torch.float32:
            for index in [index for index, enough in enumerate(sound.tolist()) if not enough]:
                volume = [None if image is None else image[index : index + 1] for image in stack]
                totals[index] = Sweep(*volume, *settings, torch.float64).run()[0][0]
        return totals.sum()


def as_volumes(image: Tensor) -> Tensor:
    """(N, D, H, W) in one piece; (N, H, W) as (N, H, 1, W), so that both axes have their march."""
    image = image.detach().contiguous()
    return image[:, :, None] if image.ndim == 3 else image


class Sweep:
    """The three kernels over a stack of volumes (N, D, H, W), slab by slab.

    Args:
        f: fixed volumes.
        w: warped volumes.
        value: room for the map.
        weight: upstream gradient.
        grad_f: room for the gradient by ``f``, only beside ``grad_w``.
        grad_w: room for the gradient by ``w``.
        kernel_size: odd side of the window.
        ndim: spatial axes of the images.
        formula: the formula.
        dtype: of the sums: float32 with a verdict on their rounding, or float64 less the means of the volumes.
    """

    def __init__(
        self,
        f: Tensor,
        w: Tensor,
        value: Tensor | None,
        weight: Tensor | None,
        grad_f: Tensor | None,
        grad_w: Tensor | None,
        kernel_size: int,
        ndim: int,
        formula: Formula,
        dtype: torch.dtype,
    ) -> None:
        self.f, self.w, self.value, self.weight, self.grad_f, self.grad_w = f, w, value, weight, grad_f, grad_w
        self.formula, self.dtype, self.side = formula, dtype, kernel_size
        self.number, self.depth, self.height, self.width = f.shape
        self.area, self.count = self.height * self.width, kernel_size**ndim
        self.sides = {"SIDE_Y": kernel_size if ndim == 3 else 1, "SIDE_X": kernel_size}
        self.lanes = {"LANES": LANES, "num_warps": max(LANES // 32, 1)}
        self.fields = 0 if grad_w is None else 3 if grad_f is None else 5
        self.halo = kernel_size - 1 if self.fields else kernel_size // 2
        double = dtype == torch.float64
        self.shifts = torch.stack([i.flatten(1).mean(1, dtype=dtype) for i in (f, w)], 1) if double else None

    def run(self) -> tuple[Tensor, Tensor]:
        """Fill the outputs; the sum of each volume's map (N,), float64, and whether its rounding is admissible (N,)."""
        slabs = list(self.slabs())
        room = 5 * max((last - first) * (high - low) for first, last, low, high, *_ in slabs) * self.area
        scratch = self.f.new_empty(room, dtype=self.dtype)
        columns = triton.cdiv(self.area, LANES)
        chapters = sum(first == 0 for first, *_ in slabs)
        parts = self.f.new_empty((self.number, 3, chapters, columns), dtype=self.dtype)
        for index, slab in enumerate(slabs):
            self.sum(scratch, slab)
            self.correlate(scratch, parts, index % chapters, slab)
            if self.fields:
                self.slope(scratch, slab)
        return self.conclude(parts)

    def slabs(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """First and last volume, lowest and highest plane that is read, first and last one that is written.

        Either several whole volumes or a part of one: their planes lie in a row, in memory and in the scratch.
        """
        planes = max(SCRATCH_BYTES // (5 * self.dtype.itemsize * self.area), 2 * self.halo + 1)
        group = min(planes // self.depth, 65535)  # more programs a grid does not take along its second axis
        if group:
            for first in range(0, self.number, group):
                yield first, min(first + group, self.number), 0, self.depth, 0, self.depth
            return
        count = triton.cdiv(self.depth, planes - 2 * self.halo)
        bounds = [index * self.depth // count for index in range(count + 1)]
        for volume in range(self.number):
            for begin, end in pairwise(bounds):
                low, high = max(begin - self.halo, 0), min(end + self.halo, self.depth)
                yield volume, volume + 1, low, high, begin, end

    def in_plane(self, planes: int) -> tuple[int, int]:
        """How many programs a kernel takes that marches over the rows of so many planes."""
        return triton.cdiv(planes * self.width, LANES), triton.cdiv(self.height, ROWS)

    def sum(self, scratch: Tensor, slab: tuple[int, ...]) -> None:
        """Window sums over y and x of the slab's planes."""
        first, last, low, high, *_ = slab
        planes = (last - first) * (high - low)
        sum_in_plane[self.in_plane(planes)](
            self.f, self.w, self.shifts, scratch, first * self.depth + low, planes, self.depth, self.height, self.width,
            ROWS=ROWS, **self.sides, **self.lanes,
        )  # fmt: skip

    def correlate(self, scratch: Tensor, parts: Tensor, chapter: int, slab: tuple[int, ...]) -> None:
        """Map, parts of its sum, and the derivatives' sums over z in the scratch."""
        first, last, low, high, begin, end = slab
        correlate[(parts.shape[3], last - first)](
            scratch, self.value, self.weight, self.shifts, parts, first, first * self.depth + low, high - low,
            begin - low, end - low, self.area, chapter, parts.shape[2],
            SIDE=self.side, COUNT=self.count, MODE=EPS_MODES.index(self.formula.mode), SQUARED=self.formula.squared,
            EPS=self.formula.eps, UNIT=ROUNDING * torch.finfo(self.dtype).eps / 2, TINY=torch.finfo(self.dtype).tiny,
            FLAT=FLAT, FIELDS=self.fields, **self.lanes,
        )  # fmt: skip

    def slope(self, scratch: Tensor, slab: tuple[int, ...]) -> None:
        """Gradients of the slab's own planes."""
        first, last, low, high, begin, end = slab
        planes = (last - first) * (end - begin)
        slope_in_plane[self.in_plane(planes)](
            scratch, self.f, self.w, self.shifts, self.grad_f, self.grad_w, begin - low, first * self.depth + begin,
            planes, (last - first) * (high - low), self.depth, self.height, self.width,
            ROWS=ROWS, FIELDS=self.fields, **self.sides, **self.lanes,
        )  # fmt: skip

    def conclude(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Sums of the parts of every volume, and the verdict of ``lncc_terms.suffices``."""
        totals = parts.new_empty(self.number, dtype=torch.float64)
        sound = parts.new_empty(self.number, dtype=torch.int32)
        every_entry = self.value is not None or self.weight is not None
        conclude[(self.number,)](
            parts, totals, sound, parts[0, 0].numel(), self.depth * self.area,
            WORST=ENTRY_TOLERANCE if every_entry else SLOPE_TOLERANCE, MEAN=ENTRY_TOLERANCE, LANES=1024,
        )  # fmt: skip
        return totals, sound
