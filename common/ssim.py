"""Structural similarity (SSIM) of two images: the five window means as channels of one grouped convolution per axis,
or, for volumes on the CPU, the compiled loops of ``ssim_cpu``.

Only windows that lie wholly in the image count, so that no invented voxel outside is a sample.
"""

import math

import torch
from torch import Tensor, nn

from .errors import RegInputError
from .float32_convolution import convolve
from .kernels_cpu import usable

__all__ = ["WINDOWS", "SSIMLoss", "ssim"]

WINDOWS = ("gaussian", "box")
MIN_VOXELS = 32**3  # of a volume, from which on compiled loops are quicker than convolutions


def ssim(
    fixed: Tensor,
    warped: Tensor,
    *,
    window: str = "gaussian",
    kernel_size: int = 11,
    sigma: float = 1.5,
    data_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    r"""Map of the structural similarity.

    With the weighted means, variances and covariance of a window, :math:`C_1 = (k_1 L)^2` and :math:`C_2 = (k_2 L)^2`
    for the data range L, the value is

    .. math::
        \frac{(2 \mu_f \mu_w + C_1) (2 \sigma_{fw} + C_2)}
        {(\mu_f^2 + \mu_w^2 + C_1) (\sigma_f^2 + \sigma_w^2 + C_2)}

    Args:
        fixed: (B, C, *S) with two or three spatial axes; channels count apart.
        warped: the same shape; gradients reach both images.
        window: "gaussian", or "box" for equal weights.
        kernel_size: odd side of the window in voxels, at most the image's shortest side.
        sigma: standard deviation of the Gaussian in voxels.
        data_range: difference of the largest and the smallest possible intensity.
        k1: of the luminance's constant.
        k2: of the contrast's constant.

    Returns:
        (B, C, *(S - kernel_size + 1)) in [-1, 1], 1 where the windows are equal; entry i belongs to the window whose
        first voxel is i. float32, or float64 if an image is.

    Raises:
        RegInputError: the shapes differ or are not 2-D or 3-D, the window is even or does not fit, ``window`` is
            unknown, or sigma or the data range is not positive.

    Differs: scikit-image mirrors the image at its border, and leaves those windows out of its mean, which therefore is
    the mean of this map; with equal weights it divides variances by n - 1 unless ``use_sample_covariance=False``.
    MONAI takes the same windows as this.

    Source: Z. Wang et al., doi:10.1109/TIP.2003.819861; X. Jia et al., doi:10.20944/preprints202502.2200.v1 (grouping).
    """
    check(fixed, warped, window, kernel_size, sigma, data_range)
    dtype = torch.promote_types(torch.promote_types(fixed.dtype, warped.dtype), torch.float32)
    f, w = (image.as_subclass(Tensor).to(dtype).flatten(0, 1)[:, None] for image in (fixed, warped))
    weights = weights_1d(window, kernel_size, sigma).to(f)
    constants = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    if f.ndim == 5 and f[0].numel() >= MIN_VOXELS and usable(f, w):
        from .ssim_cpu import MapOnCPU  # imports numba

        value = MapOnCPU.apply(f[:, 0].contiguous(), w[:, 0].contiguous(), weights, *constants)
    else:
        means = separable_means(torch.cat((f, w, f * f, w * w, f * w), dim=1), weights)
        value = similarity(*means.unbind(1), *constants)
    return value.unflatten(0, fixed.shape[:2])


class SSIMLoss(nn.Module):
    """``1 - mean(ssim)``, 0 for equal images and 2 at most; see :func:`ssim` for the arguments."""

    def __init__(
        self,
        window: str = "gaussian",
        kernel_size: int = 11,
        sigma: float = 1.5,
        data_range: float = 1.0,
        k1: float = 0.01,
        k2: float = 0.03,
    ) -> None:
        super().__init__()
        self.settings = {"window": window, "kernel_size": kernel_size, "sigma": sigma}
        self.settings |= {"data_range": data_range, "k1": k1, "k2": k2}

    def forward(self, fixed: Tensor, warped: Tensor) -> Tensor:
        """Scalar loss of two images (B, C, *S)."""
        return 1 - ssim(fixed, warped, **self.settings).mean()

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        return ", ".join(f"{key}={value!r}" for key, value in self.settings.items())


def check(fixed: Tensor, warped: Tensor, window: str, kernel_size: int, sigma: float, data_range: float) -> None:
    """Refuse what has no value."""
    if fixed.shape != warped.shape or fixed.ndim not in (4, 5) or fixed.numel() == 0:
        raise RegInputError(
            f"ssim got images of shapes {tuple(fixed.shape)} and {tuple(warped.shape)}, expected two of the same shape "
            "(B, C, H, W) or (B, C, D, H, W); resample one onto the other's grid."
        )
    if kernel_size < 1 or kernel_size % 2 == 0 or kernel_size > min(fixed.shape[2:]):
        raise RegInputError(
            f"ssim got a window of {kernel_size} voxels for images of size {tuple(fixed.shape[2:])}, expected an odd "
            "number no larger than the shortest side; choose a smaller odd window or larger images."
        )
    if window not in WINDOWS or not sigma > 0 or not 0 < data_range < math.inf:
        raise RegInputError(
            f"ssim got window {window!r}, sigma {sigma} and data_range {data_range}, expected one of {WINDOWS} and "
            "two numbers above 0; correct them."
        )


def weights_1d(window: str, kernel_size: int, sigma: float) -> Tensor:
    """Weights (kernel_size,) of a window along one axis, float64, their sum 1; a window's are their products."""
    if window == "box":
        return torch.full((kernel_size,), 1 / kernel_size, dtype=torch.float64)
    distance = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum()


def separable_means(fields: Tensor, weights: Tensor) -> Tensor:
    """Weighted window means of every channel of (N, K, *S): one grouped convolution along each axis, no padding."""
    ndim, channels = fields.ndim - 2, fields.shape[1]
    for axis in range(ndim):
        shape = [len(weights) if k == axis else 1 for k in range(ndim)]
        fields = convolve(fields, weights.view(1, 1, *shape).expand(channels, 1, *shape), [0] * ndim, channels)
    return fields


def similarity(f: Tensor, w: Tensor, ff: Tensor, ww: Tensor, fw: Tensor, c1: float, c2: float) -> Tensor:
    """The formula of :func:`ssim` on window means of the images, their squares and their product."""
    luminance = 2 * f * w
    square = f * f + w * w
    contrast = (2 * fw - luminance + c2) / (ff + ww - square + c2)
    return (luminance + c1) / (square + c1) * contrast
