"""Local normalized cross-correlation (LNCC) of two images and its gradient.

Every backend evaluates the same formula on the same five window sums; they differ in how the sums are formed:

* ``five_conv``: five dense convolutions one after the other, Algorithm 1 of doi:10.20944/preprints202502.2200.v1;
* ``group_conv``: one grouped dense convolution, Algorithm 2 of the same note;
* ``separable``: short sums along each axis with a gradient of its own, see ``lncc_separable.py``;
* ``cpu``: running sums in float64, compiled by numba, with a gradient of its own, see ``lncc_cpu.py``;
* ``triton``: fused kernels for a GPU with a gradient of their own, see ``lncc_cuda.py``.

All but ``cpu`` take sums in float32 and evaluate a bound of their rounding error at every window. Where it does not
guarantee the value (a low contrast on a high offset, flat regions of large values, overflow), the sums are taken again
in float64. Voxels outside the image count as zero and every window is divided by its full size, as in VoxelMorph.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from . import kernels_cuda, lncc_separable
from .errors import RegInputError
from .float32_convolution import convolve
from .kernels_cpu import numba_found, usable
from .lncc_autograd import LNCCMap, LNCCMean, by_volume
from .lncc_terms import EPS_MODES, Formula, Windows, suffices

__all__ = ["BACKENDS", "EPS_MODES", "lncc", "lncc_mean"]

BACKENDS = ("auto", "triton", "cpu", "separable", "group_conv", "five_conv")
DENSE_ROUNDING = 64  # rounding units in a sum that a dense convolution accumulates in one chain


def lncc(
    fixed: Tensor,
    warped: Tensor,
    kernel_size: int = 9,
    *,
    squared: bool = True,
    eps: float = 1e-5,
    eps_mode: str = "product",
    backend: str = "auto",
) -> Tensor:
    r"""Map of the local normalized cross-correlation.

    With :math:`C, V_f, V_w` the window sums of products of deviations from the window means and ``n`` the voxels of a
    window, the value is :math:`C^2 / D` (``squared``) or :math:`C / \sqrt D`, where ``eps_mode`` says what D is:

    * ``"product"``: :math:`V_f V_w + eps` (VoxelMorph, TransMorph, LKU-Net, FastLNCC's program);
    * ``"normalized"``: :math:`V_f V_w + n^2 eps`, so eps stands beside the variances proper (FastLNCC's text, not
      squared);
    * ``"floor"``: :math:`\max(V_f, eps) \max(V_w, eps)` (MONAI);
    * ``"ratio"``: :math:`V_f V_w + eps`, with eps added to :math:`C^2` too (DeepReg; squared only).

    Equal images do not reach 1 where a window is flat, and two constants do not give 0 near the border: the zeros
    outside the image are samples.

    Args:
        fixed: (B, C, *S) with two or three spatial axes; any finite float32 intensities.
        warped: the same shape; gradients reach both images.
        kernel_size: odd side of the window in voxels, at most the image's shortest side.
        squared: square of the correlation, blind to the sign of the contrast.
        eps: above 0; absolute, so its effect depends on the intensity scale.
        eps_mode: one of ``EPS_MODES``.
        backend: one of ``BACKENDS``; ``"auto"`` is ``"triton"`` for images on a GPU and ``"cpu"`` for those on the CPU
            where triton or numba is installed and works, else ``"separable"``.

    Returns:
        (B, C, *S) in [0, 1], or in [-1, 1] when not squared; float32, or float64 if an image is. Every entry is within
        1e-3 of exact arithmetic (as long as the contrast of a window exceeds about 1e-6 of the intensity).

    Raises:
        RegInputError: the shapes differ or are not 2-D or 3-D, the window is even or does not fit, eps is not positive
            or an option is unknown.

    Source: B. B. Avants et al., doi:10.1016/j.media.2007.06.004; X. Jia et al., doi:10.20944/preprints202502.2200.v1.
    """
    fixed, warped, formula = prepare(fixed, warped, kernel_size, squared, eps, eps_mode, backend)
    run = own_gradient(backend, fixed, warped)
    if run is not None:
        return LNCCMap.apply(fixed, warped, kernel_size, formula, run)
    return dense(fixed, warped, kernel_size, formula, backend, every_entry=True)


def lncc_mean(
    fixed: Tensor,
    warped: Tensor,
    kernel_size: int = 9,
    *,
    squared: bool = True,
    eps: float = 1e-5,
    eps_mode: str = "product",
    backend: str = "auto",
) -> Tensor:
    """Mean of :func:`lncc` over everything, without writing the map; arguments and errors are the same.

    The separable backend forms the gradient while the sums are in the cache: its backward pass is one product. It is
    content with float32 where the mean is guaranteed to 1e-3 and single windows to 3e-2.

    Returns:
        0-D tensor.

    Source: as :func:`lncc`.
    """
    fixed, warped, formula = prepare(fixed, warped, kernel_size, squared, eps, eps_mode, backend)
    run = own_gradient(backend, fixed, warped)
    if run is not None:
        return LNCCMean.apply(fixed, warped, kernel_size, formula, run)
    return dense(fixed, warped, kernel_size, formula, backend, every_entry=False).mean()


def prepare(
    fixed: Tensor, warped: Tensor, kernel_size: int, squared: bool, eps: float, eps_mode: str, backend: str
) -> tuple[Tensor, Tensor, Formula]:
    """Check the request; plain images in float32 or float64, and the formula with eps in its own units."""
    if fixed.shape != warped.shape or fixed.ndim not in (4, 5) or fixed.numel() == 0:
        raise RegInputError(
            f"lncc got images of shapes {tuple(fixed.shape)} and {tuple(warped.shape)}; expected two of the same shape "
            "(B, C, H, W) or (B, C, D, H, W); resample one onto the other's grid."
        )
    if kernel_size < 1 or kernel_size % 2 == 0 or kernel_size > min(fixed.shape[2:]):
        raise RegInputError(
            f"lncc got kernel_size {kernel_size} for size {tuple(fixed.shape[2:])}; expected an odd number of voxels "
            "no larger than the shortest side; choose a smaller odd window."
        )
    if eps_mode not in EPS_MODES or backend not in BACKENDS:
        raise RegInputError(
            f"lncc got eps_mode {eps_mode!r} and backend {backend!r}; expected one of {EPS_MODES} and of {BACKENDS}; "
            "correct the name."
        )
    if not eps > 0 or (eps_mode == "ratio" and not squared):
        raise RegInputError(
            f"lncc got eps {eps}, eps_mode {eps_mode!r} and squared {squared}; expected eps above 0, and squared with "
            "'ratio'; change that argument."
        )
    dtype = torch.promote_types(torch.promote_types(fixed.dtype, warped.dtype), torch.float32)
    fixed, warped = (image.as_subclass(Tensor).to(dtype) for image in (fixed, warped))
    count = kernel_size ** (fixed.ndim - 2)
    eps = float(eps * count**2 if eps_mode == "normalized" else eps)  # kernels are compiled for every type that comes
    return fixed, warped, Formula(bool(squared), eps, eps_mode)


def own_gradient(backend: str, fixed: Tensor, warped: Tensor) -> Callable | None:
    """The backend that ``LNCCMap`` and ``LNCCMean`` call on all volumes; none where autograd does the work."""
    separable = by_volume(lncc_separable.run)
    if backend == "cpu" or (backend == "auto" and usable(fixed, warped)):
        if not usable(fixed, warped):
            raise RegInputError(
                f"lncc got backend 'cpu' for images on {fixed.device} with numba "
                f"{'installed' if numba_found() else 'missing'}; expected the CPU and numba; use 'auto'."
            )
        from . import lncc_cpu  # imports numba

        return by_volume(lncc_cpu.run)
    if backend == "auto" and fixed.is_cuda and kernels_cuda.usable(fixed, warped):
        return kernels_cuda.or_else(fused, separable)
    if backend == "triton":
        if not kernels_cuda.usable(fixed, warped):
            raise RegInputError(
                f"lncc got backend 'triton' for images on {fixed.device} with triton "
                f"{'installed' if kernels_cuda.triton_found() else 'missing'}; expected a GPU and triton; use 'auto'."
            )
        return fused
    return separable if backend in ("auto", "separable") else None


def fused(*images: Tensor, **outputs: Tensor | None) -> Tensor:
    """The backend ``lncc_cuda.run``, which imports triton."""
    from . import lncc_cuda

    return lncc_cuda.run(*images, **outputs)


def dense(fixed: Tensor, warped: Tensor, kernel_size: int, formula: Formula, backend: str, every_entry: bool) -> Tensor:
    """The published algorithms, run again in float64 if float32 does not suffice."""
    sums_of = five_convolutions if backend == "five_conv" else grouped_convolution
    count = kernel_size ** (fixed.ndim - 2)
    for dtype in (fixed.dtype, torch.float64):
        f, w = (image.to(dtype).flatten(0, 1)[:, None] for image in (fixed, warped))
        windows = Windows.from_sums(*sums_of(f, w, kernel_size), count, formula)
        if dtype == torch.float64 or suffices(formula, windows, DENSE_ROUNDING, count, every_entry):
            break
    value = formula.value(windows)
    excess = value.detach() - formula.limit(value.detach())  # the range is held without touching the gradient
    return (value - excess).reshape(fixed.shape).to(fixed.dtype)


def window_sums(fields: Tensor, kernel_size: int) -> Tensor:
    """Window sums of (N, K, *S), channel by channel, zeros outside."""
    spatial, channels = fields.ndim - 2, fields.shape[1]
    count = kernel_size**spatial
    weight = fields.new_full((channels, 1, *[kernel_size] * spatial), 1 / count)
    return convolve(fields, weight, [kernel_size // 2] * spatial, channels) * count


def five_convolutions(f: Tensor, w: Tensor, kernel_size: int) -> tuple[Tensor, ...]:
    """Algorithm 1: each field of (N, 1, *S) by a convolution of its own."""
    return tuple(window_sums(field, kernel_size) for field in (f, w, f * f, w * w, f * w))


def grouped_convolution(f: Tensor, w: Tensor, kernel_size: int) -> tuple[Tensor, ...]:
    """Algorithm 2: the five fields as the channels of one grouped convolution."""
    return window_sums(torch.cat((f, w, f * f, w * w, f * w), 1), kernel_size).split(1, 1)
