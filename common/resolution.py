"""Bringing two images to one resolution: what the thick slices of one cannot show is smoothed away from the other.

Otherwise each edge of the finer image meets a blurred one, and the displacement that fits the intensities best is not
the one that fits the anatomy.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor
from torch.nn import functional as F

from .spatial import at_least_float32

__all__ = ["MatchResolutiond", "resolution_gap", "smooth_by_covariance"]

LEAST_GAP = (2.0**2 - 1) / 12  # grid voxels squared: voxels twice as thick as the other image's and the grid's
REACH = 4.0  # standard deviations of a Gaussian that are padded


class MatchResolutiond(Transform):
    """Smooth each image of a pair along the directions in which the other one's voxels are much thicker.

    To be used after :class:`common.transforms.ToNetworkGridd`, whose entries it reads. Voxels are taken as boxes; the
    Gaussian has the variance by which one image's box exceeds the other's, in whatever direction. Pairs of like
    resolution are left as they are.

    Args:
        keys: of the fixed and the moving image, MetaTensors (C, *S) on one grid.
        initial_key: of an optional matrix, fixed world -> moving world in RAS mm, homogeneous.
    """

    def __init__(self, keys: Sequence[str] = ("fixed", "moving"), initial_key: str = "initial") -> None:
        self.keys = tuple(keys)
        self.initial_key = initial_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The item with the smoothed image in its place."""
        item = dict(data)
        grid = np.asarray(item["network_affine"])
        fixed, moving = (np.asarray(item[f"{key}_affine"]) for key in self.keys)
        initial = item.get(self.initial_key)
        if initial is not None:  # the moving image's voxels as they lie in the fixed world
            moving = np.linalg.solve(np.asarray(initial, dtype=float), moving)
        gap = resolution_gap(grid, fixed, moving)
        for key, covariance in zip(self.keys, (gap, -gap), strict=True):
            excess = positive_part(covariance)
            if excess.any():
                image = item[key]
                smooth = smooth_by_covariance(image.as_subclass(Tensor)[None], excess)[0]
                item[key] = MetaTensor(smooth, meta=image.meta)  # its affine is among them
        return item


def resolution_gap(grid: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """By how much the voxels of ``second`` are larger than those of ``first``: covariance of boxes, in grid voxels.

    Args:
        grid: (N + 1, N + 1), voxel -> world, of the grid that both images are on now; no box is below its voxel.
        first: (N + 1, N + 1), of an image as it was taken.
        second: of the other one.

    Returns:
        (N, N), symmetric: positive where ``second`` is coarser.
    """
    ndim = len(grid) - 1
    edges = [np.linalg.solve(grid, affine)[:ndim, :ndim] for affine in (first, second)]
    return box_covariance(edges[1]) - box_covariance(edges[0])


def box_covariance(edges: np.ndarray) -> np.ndarray:
    """Covariance (N, N) of a box of these edges, columns, in grid voxels; in no direction below a grid voxel's."""
    values, vectors = np.linalg.eigh(edges @ edges.T / 12)
    return (vectors * np.maximum(values, 1 / 12)) @ vectors.T


def positive_part(covariance: np.ndarray) -> np.ndarray:
    """What of a symmetric matrix is positive enough to matter; zeros where nothing is."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.where(values >= LEAST_GAP, values, 0.0)) @ vectors.T


def smooth_by_covariance(image: Tensor, covariance: np.ndarray) -> Tensor:
    """Gaussian smoothing by any covariance, its axes oblique or not, in the Fourier domain.

    Args:
        image: (B, C, *S), N = 2 or 3 spatial axes; the border is continued.
        covariance: (N, N), in voxels squared.

    Returns:
        The same shape.
    """
    pad = [int(np.ceil(REACH * np.sqrt(variance))) for variance in np.diag(covariance)]
    padded = F.pad(at_least_float32(image), [n for n in reversed(pad) for _ in range(2)], mode="replicate")
    size = padded.shape[2:]
    kind = {"dtype": padded.dtype, "device": padded.device}
    axes = [torch.fft.fftfreq(n, **kind) for n in size[:-1]] + [torch.fft.rfftfreq(size[-1], **kind)]
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    matrix = torch.as_tensor(covariance, **kind)
    response = torch.exp(-2 * torch.pi**2 * ((frequency @ matrix) * frequency).sum(dim=-1))
    dims = list(range(2, image.ndim))
    smooth = torch.fft.irfftn(torch.fft.rfftn(padded, dim=dims) * response, s=size, dim=dims)
    inner = [slice(n, n + length) for n, length in zip(pad, image.shape[2:], strict=True)]
    return smooth[(..., *inner)].to(image.dtype).contiguous()
