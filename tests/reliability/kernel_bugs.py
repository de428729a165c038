"""Mistakes that marching kernels are known for, made on purpose in those that triton compiles.

They stand apart from the twelve seeded bugs, which no GPU is needed for: their tests run in triton's interpreter.
"""

from tests.reliability.mutants import Mutant

__all__ = ["KERNEL_BUGS"]

KERNELS, LAUNCH = "common/lncc_kernels_cuda.py", "common/lncc_cuda.py"
KERNEL_BUGS = [
    Mutant(
        KERNELS,
        "for k in tl.static_range(-(SIDE // 2), SIDE // 2 + 1):",
        "for k in tl.static_range(-(SIDE // 2), SIDE // 2):",
        "half a window too narrow",
    ),
    Mutant(KERNELS, "return there & (x < width - STEP)", "return there", "no mask at the end of a row"),
    Mutant(
        KERNELS,
        "there = inside & (z + k >= 0) & (z + k < planes)",
        "there = inside & (z + k >= 0)",
        "no mask behind the last plane",
    ),
    Mutant(KERNELS, "return add(ahead, behind[K + 1])", "return add(ahead, behind[K])", "a row that left stays"),
    Mutant(
        KERNELS,
        "tl.store(grad_f_ptr + place, w * sums[0] + f * sums[3] - sums[4], own)",
        "tl.store(grad_f_ptr + place, f * sums[0] + w * sums[3] - sums[4], own)",
        "images swapped in a gradient",
    ),
    Mutant(
        KERNELS,
        "derivatives + (by_f, slope * mean_w + by_f * mean_f)",
        "derivatives + (by_f, slope * mean_f + by_f * mean_w)",
        "means swapped in a derivative",
    ),
    Mutant(KERNELS, "(EPS if MODE == 3 else 0.0)", "0.0", "epsilon below the line alone"),
    Mutant(KERNELS, "(0.0 if MODE == 2 else EPS)", "EPS", "epsilon beside the floor"),
    Mutant(
        KERNELS,
        "own_f, own_w = var_f > floor, var_w > floor",
        "own_f, own_w = var_f > 0.0, var_w > 0.0",
        "a floored variance has a slope",
    ),
    Mutant(LAUNCH, "self.width, kernel_size**ndim", "self.width, kernel_size**3", "voxels of a cube in a plane"),
    Mutant(LAUNCH, "columns = triton.cdiv(self.area, LANES)", "columns = max(self.area // LANES, 1)", "a tile too few"),
    Mutant(
        KERNELS,
        "(lane % width).to(tl.int32), lane < planes.to(tl.int64) * width",
        "(lane % width).to(tl.int32), lane + 1 < planes.to(tl.int64) * width",
        "the last lane idle",
    ),
    Mutant(KERNELS, "fw += a * b", "fw = (fw + a * b).to(tl.float16).to(DTYPE)", "sums in half precision"),
    Mutant(
        KERNELS,
        "(source + volume * planes) * area + lane",
        "source * area + lane",
        "every volume's map at the first one's place",
    ),
    Mutant(KERNELS, "parts_ptr += volume * 3 * length", "parts_ptr += volume * length", "parts a third as far apart"),
    Mutant(
        KERNELS,
        "field = stored.to(tl.int64) * height * width",
        "field = planes.to(tl.int64) * height * width",
        "the stride of what is written for what is read",
    ),
    Mutant(
        KERNELS,
        "total += tl.where(own, value, 0.0)",
        "total += tl.where(inside, value, 0.0)",
        "windows around the volume counted",
    ),
    Mutant(
        LAUNCH,
        "kernel_size - 1 if self.fields else kernel_size // 2",
        "kernel_size // 2",
        "half the planes that a gradient needs around a slab",
    ),
    Mutant(
        LAUNCH,
        "f, w, grad_f, grad_w = w, f, grad_w, grad_f",
        "grad_f, grad_w = grad_w, grad_f",
        "the other image's gradient",
    ),
    Mutant(LAUNCH, "image[index : index + 1] for image in stack", "image[:1] for image in stack", "the first again"),
]
