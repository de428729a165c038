"""Which study looks most like an image, when nobody says whose labels to carry over."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch.nn import functional as F

from common.volumes import open_volume, read_voxels

__all__ = ["likeness", "most_similar"]

SIDE = 32  # voxels along each axis of what is compared: gyri are gone, ventricles and outline are there
BINS = 32
REMEMBERED = 512  # views that stay in memory, 128 KiB each


def most_similar(image: Path, candidates: Mapping[str, Path]) -> list[str]:
    """Names of the candidates, the one most like ``image`` first; equal ones by name."""
    view = view_of(image)
    return sorted(candidates, key=lambda name: (-likeness(view, view_of(candidates[name])), name))


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Normalized mutual information of two arrays of one shape: 1 for independent ones, 2 for the same.

    Source: Studholme et al., Pattern Recognition 1999, doi:10.1016/S0031-3203(98)00091-0.
    """
    joint, _, _ = np.histogram2d(first.ravel(), second.ravel(), BINS)
    shared = entropy(joint)
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / shared if shared else 2.0


def entropy(counts: np.ndarray) -> float:
    """Of a histogram, in nats."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def view_of(path: Path) -> np.ndarray:
    """A coarse cube of an image's foreground; read once as long as the file stays as it is."""
    return coarse_view(str(path), path.stat().st_mtime_ns)


@lru_cache(REMEMBERED)
def coarse_view(path: str, changed: int) -> np.ndarray:
    """The box in which an image is brighter than its mean, in RAS order, averaged onto ``SIDE`` voxels along each axis.

    The box makes heads comparable that lie elsewhere, or are larger, in their fields of view.
    """
    image = nib.as_closest_canonical(nib.Nifti1Image(read_voxels(open_volume(path)), open_volume(path).affine))
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    inside = np.argwhere(voxels > voxels.mean())
    low, high = (inside.min(0), inside.max(0) + 1) if len(inside) else (np.zeros(3, int), np.array(voxels.shape))
    box = voxels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return F.adaptive_avg_pool3d(torch.from_numpy(np.ascontiguousarray(box))[None], SIDE)[0].numpy()
