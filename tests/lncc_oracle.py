"""Independent LNCC for the tests: two passes in float64, and images to try it on."""

import numpy as np
import torch
from torch.nn import functional as F

from common.lncc import BACKENDS

COMPUTED = [backend for backend in BACKENDS if backend not in ("auto", "triton")]  # wherever the tests run
OPTIONS = [
    {"squared": squared, "eps_mode": mode}
    for mode in ("product", "normalized", "floor", "ratio")
    for squared in (True, False)
    if squared or mode != "ratio"
]


def oracle(
    fixed: torch.Tensor, warped: torch.Tensor, kernel_size: int, eps: float = 1e-5, squared: bool = True
) -> torch.Tensor:
    """The VoxelMorph map (or its signed root) in float64, deviations from each window's own mean (two passes)."""
    radius, axes = kernel_size // 2, tuple(range(2, fixed.ndim))
    pad = [(0, 0), (0, 0)] + [(radius, radius)] * len(axes)

    def deviations(image: torch.Tensor) -> np.ndarray:
        padded = np.pad(image.detach().double().numpy(), pad)
        windows = np.lib.stride_tricks.sliding_window_view(padded, [kernel_size] * len(axes), axis=axes)
        windows = windows.reshape(*image.shape, -1)
        return windows - windows.mean(-1, keepdims=True)

    f, w = deviations(fixed), deviations(warped)
    cov, denominator = (f * w).sum(-1), (f * f).sum(-1) * (w * w).sum(-1) + eps
    return torch.from_numpy(cov**2 / denominator if squared else cov / np.sqrt(denominator))


def oracle_gradient(fixed: torch.Tensor, warped: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Gradient of the mean of the two-pass map by the warped image, by autograd in float64."""
    f, w = fixed.detach().double(), warped.detach().double().requires_grad_()
    radius = kernel_size // 2

    def deviations(image: torch.Tensor) -> torch.Tensor:
        windows = F.pad(image, [radius] * 6)
        for axis in (2, 3, 4):
            windows = windows.unfold(axis, kernel_size, 1)
        windows = windows.flatten(5)
        return windows - windows.mean(-1, keepdim=True)

    a, b = deviations(f), deviations(w)
    value = (a * b).sum(-1) ** 2 / ((a * a).sum(-1) * (b * b).sum(-1) + 1e-5)
    return torch.autograd.grad(value.mean(), w)[0]


def random_pair(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images in [0, 1] that correlate in part, ready for gradients."""
    generator = torch.Generator().manual_seed(seed)
    fixed, noise = torch.rand(2, *shape, dtype=torch.float64, generator=generator)
    warped = 0.6 * fixed + 0.4 * noise
    return fixed.to(dtype).requires_grad_(), warped.to(dtype).requires_grad_()
