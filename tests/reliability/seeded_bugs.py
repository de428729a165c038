"""Twelve mistakes that code like this is known for, made on purpose, in every place that could have it by itself."""

from tests.reliability.mutants import Mutant

__all__ = ["BUGS"]

BUGS: dict[str, list[Mutant]] = {
    "axes swapped": [
        Mutant(
            "common/spatial.py",
            "grid = (points.movedim(1, -1) * (2 / span) - 1).flip(-1)",
            "grid = points.movedim(1, -1) * (2 / span) - 1",
            "warp",
        ),
        Mutant(
            "common/losses.py",
            "grid = (points.to(ddf.dtype) * (2 / span) - 1).flip(-1)",
            "grid = points.to(ddf.dtype) * (2 / span) - 1",
            "landmarks",
        ),
        Mutant(
            "common/transform_files.py",
            "axes = (*reversed(range(vectors.ndim - 1)), vectors.ndim - 1)",
            "axes = tuple(range(vectors.ndim))",
            "composite files",
        ),
    ],
    "align_corners off": [
        Mutant(
            "common/spatial.py",
            "grid, mode, padding_mode, align_corners=True)",
            "grid, mode, padding_mode, align_corners=False)",
            "warp",
        ),
        Mutant(
            "common/spatial.py",
            "F.interpolate(ddf, size, mode=mode, align_corners=True)",
            "F.interpolate(ddf, size, mode=mode, align_corners=False)",
            "upsample",
        ),
    ],
    "no LPS": [
        Mutant(
            "common/geometry.py",
            "return np.array([-1.0, -1.0, 1.0])[:ndim]",
            "return np.array([1.0, 1.0, 1.0])[:ndim]",
            "everywhere",
        ),
        Mutant(
            "common/transform_files.py",
            "components = (vectors_last(ddf_mm) * lps_sign(ndim)).astype(np.float32)",
            "components = vectors_last(ddf_mm).astype(np.float32)",
            "field files",
        ),
    ],
    "voxels for mm": [
        Mutant(
            "common/geometry.py",
            "return multiply(spatial_affine(affine, ddf.shape[1])[:-1, :-1], ddf)",
            "return ddf",
            "ddf_to_mm",
        ),
        Mutant(
            "common/metrics.py",
            "return (offset * torch.tensor(spacing_mm, dtype=torch.float64)).norm(dim=2)",
            "return offset.norm(dim=2)",
            "landmark errors",
        ),
    ],
    "composed the other way": [
        Mutant(
            "common/spatial.py",
            "return second + warp(first, second, padding_mode=padding_mode)",
            "return first + warp(second, first, padding_mode=padding_mode)",
            "by torch",
        ),
        Mutant(
            "common/spatial.py",
            "return sample_here(first, second, padding_mode, True)",
            "return sample_here(second, first, padding_mode, True)",
            "by the kernels for the CPU",
        ),
        Mutant("common/maps.py", "Linear(part.matrix @ parts[-1].matrix)", "Linear(parts[-1].matrix @ part.matrix)"),
    ],
    "one squaring too few": [
        Mutant("common/flow.py", "for _ in range(steps):", "for _ in range(steps - 1):"),
    ],
    "+3 lost": [
        Mutant(
            "common/regularity.py",
            "[value + 3 for value in _determinants(ddf, mask, crop=2)]",
            "_determinants(ddf, mask, crop=2)",
        ),
    ],
    "NDV by central differences": [
        Mutant(
            "common/regularity.py",
            "for det in _ten_determinants(u, ahead, behind):",
            "for det in [central_det] * 10:",
        ),
    ],
    "HD95 in voxels": [
        Mutant(
            "common/metrics.py",
            "surface_distances(warped[box] == value, fixed[box] == value, spacing_mm)",
            "surface_distances(warped[box] == value, fixed[box] == value, [1.0] * warped.ndim)",
            "distances and areas",
        ),
        Mutant(
            "common/surface.py",
            "ndimage.distance_transform_edt(~surface, sampling=spacing_mm)[at]",
            "ndimage.distance_transform_edt(~surface)[at]",
            "distances alone",
        ),
    ],
    "LNCC's window off its middle": [
        Mutant(
            "common/lncc.py",
            "return convolve(fields, weight,",
            "return convolve(fields.roll(1, -1), weight,",
            "dense",
        ),
        Mutant(
            "common/lncc_separable.py",
            "inner = [slice(self.radius, self.radius + side) for side in self.size]",
            "inner = [slice(2 * self.radius, 2 * self.radius + side) for side in self.size]",
            "separable",
        ),
        Mutant(
            "common/lncc_cpu.py",
            "out[x] = column[x + radius] - column[x - radius - 1]",
            "out[x] = column[x + radius] - column[x - radius]",
            "running sums",
        ),
    ],
    "padded wrongly": [
        Mutant(
            "common/spatial.py",
            'def warp(moving: Tensor, ddf: Tensor, mode: str = "bilinear", padding_mode: str = "border")',
            'def warp(moving: Tensor, ddf: Tensor, mode: str = "bilinear", padding_mode: str = "zeros")',
            "warp",
        ),
        Mutant(
            "common/padding.py",
            "padding += [0, cells * step - image.shape[axis]]",
            "padding += [cells * step - image.shape[axis], 0]",
            "at the near end",
        ),
    ],
    "cropped one off": [
        Mutant(
            "common/padding.py",
            "field = field.narrow(axis, 0, size[axis - 2])",
            "field = field.narrow(axis, min(1, field.shape[axis] - size[axis - 2]), size[axis - 2])",
            "a network's answer",
        ),
        Mutant(
            "common/regularity.py",
            "inner = tuple(slice(crop, n - crop) for n in ddf.shape[2:])",
            "inner = tuple(slice(crop, n - crop - 1) for n in ddf.shape[2:])",
            "determinants",
        ),
    ],
}
