"""Independent LNCC for the tests: two passes in float64, images to try it on, and how near to it every backend is."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from common.lncc import BACKENDS, lncc, lncc_mean

COMPUTED = [backend for backend in BACKENDS if backend not in ("auto", "triton")]  # wherever the tests run
OPTIONS = [
    {"squared": squared, "eps_mode": mode}
    for mode in ("product", "normalized", "floor", "ratio")
    for squared in (True, False)
    if squared or mode != "ratio"
]
HALF_FLOORED = [{"squared": squared, "eps_mode": "floor", "eps": 2.0} for squared in (True, False)]
"""About half of the variances of ``random_pair`` in windows of 27 voxels lie below that."""
EXACT = 1e-12  # of float64: values, relative; maps and gradients, of their largest entry
VALUE, LARGEST, NORM = 1e-6, 2e-5, 1e-5  # of float32: values, relative; gradients, of the largest entry and in 2-norm


def reference(
    fixed: torch.Tensor,
    warped: torch.Tensor,
    kernel_size: int,
    *,
    squared: bool = True,
    eps: float = 1e-5,
    eps_mode: str = "product",
) -> torch.Tensor:
    """The map of every formula in float64, of deviations from each window's own mean (two passes), for autograd."""
    radius, axes = kernel_size // 2, range(2, fixed.ndim)

    def deviations(image: torch.Tensor) -> torch.Tensor:
        windows = F.pad(image.double(), [radius] * 2 * len(axes))
        for axis in axes:
            windows = windows.unfold(axis, kernel_size, 1)
        windows = windows.flatten(fixed.ndim)
        return windows - windows.mean(-1, keepdim=True)

    f, w = deviations(fixed), deviations(warped)
    cov, var_f, var_w = (f * w).sum(-1), (f * f).sum(-1), (w * w).sum(-1)
    above, below = {
        "product": (0.0, eps),
        "normalized": (0.0, eps * kernel_size ** (2 * len(axes))),
        "floor": (0.0, 0.0),
        "ratio": (eps, eps),
    }[eps_mode]
    if eps_mode == "floor":
        var_f, var_w = var_f.clamp(min=eps), var_w.clamp(min=eps)
    denominator = var_f * var_w + below
    return (cov**2 + above) / denominator if squared else cov / denominator.sqrt()


def oracle(
    fixed: torch.Tensor, warped: torch.Tensor, kernel_size: int, eps: float = 1e-5, squared: bool = True
) -> torch.Tensor:
    """The VoxelMorph map (or its signed root) in float64."""
    return reference(fixed.detach(), warped.detach(), kernel_size, eps=eps, squared=squared)


def oracle_gradient(fixed: torch.Tensor, warped: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Gradient of the mean of the VoxelMorph map by the warped image, by autograd in float64."""
    w = warped.detach().double().requires_grad_()
    return torch.autograd.grad(reference(fixed.detach(), w, kernel_size).mean(), w)[0]


def random_pair(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images in [0, 1] that correlate in part, ready for gradients."""
    generator = torch.Generator().manual_seed(seed)
    fixed, noise = torch.rand(2, *shape, dtype=torch.float64, generator=generator)
    warped = 0.6 * fixed + 0.4 * noise
    return fixed.to(dtype).requires_grad_(), warped.to(dtype).requires_grad_()


def assert_agrees_with_reference(
    backend: str, options: dict, shape: tuple[int, ...], kernel_size: int, dtype: torch.dtype, device: str = "cpu"
) -> None:
    """Hold a backend's mean, map and the gradients of both by both images to what float64 and float32 allow.

    The reference sees the very images: what rounding them to float32 changes is no error of the backend.
    """
    images = [image.detach() for image in random_pair(*shape, dtype=dtype)]
    weight = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(dtype)

    def results(map_of: Callable, mean_of: Callable, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
        pair = [image.to(device, dtype).requires_grad_() for image in images]
        value, mean = (function(*pair, kernel_size, **options) for function in (map_of, mean_of))
        weighted = (weight.to(device, dtype) * value).mean()
        gradients = (gradient for of in (mean, weighted) for gradient in torch.autograd.grad(of, pair))
        return [tensor.detach().cpu().double() for tensor in (value, mean, weighted, *gradients)]

    found = results(
        lambda *of, **how: lncc(*of, backend=backend, **how),
        lambda *of, **how: lncc_mean(*of, backend=backend, **how),
        dtype,
        device,
    )
    expected = results(reference, lambda *of, **how: reference(*of, **how).mean(), torch.float64, "cpu")
    exact = dtype == torch.float64
    if exact:
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=EXACT)
    torch.testing.assert_close(found[1:3], expected[1:3], rtol=EXACT if exact else VALUE, atol=0)
    for gradient, true in zip(found[3:], expected[3:], strict=True):
        error = gradient - true
        assert float(error.abs().max()) <= (EXACT if exact else LARGEST) * float(true.abs().max())
        assert float(error.norm()) <= (EXACT if exact else NORM) * float(true.norm())
