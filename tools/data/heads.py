"""Whether a scan shows a brain alone, or a head from which it was not cut out."""

import numpy as np
from nibabel.affines import voxel_sizes

from common.brain import VOLUME_ML

from .brain import outside_fraction

__all__ = ["foreground", "why_not_stripped"]

FULL_ABOVE = 0.5  # of the voxels that are no background: 0.23 to 0.31 in stripped scans, even if tightly cropped
UNLABELLED_ABOVE = (
    0.5  # of those: 0.04 to 0.08 in brains labelled all over, 0.30 to 0.37 without their fluid; heads more
)


def foreground(voxels: np.ndarray) -> np.ndarray:
    """Where an image differs from the one value that its eight corners have; everywhere if these differ.

    Args:
        voxels: (X, Y, Z).
    """
    corners = voxels[:: voxels.shape[0] - 1, :: voxels.shape[1] - 1, :: voxels.shape[2] - 1]
    return voxels != corners.flat[0] if (corners == corners.flat[0]).all() else np.ones(voxels.shape, bool)


def why_not_stripped(voxels: np.ndarray, affine: np.ndarray, labels: np.ndarray | None = None) -> str | None:
    """What speaks against a scan being skull-stripped, as half a sentence, or None.

    Three things do, each a sign of its own: air that is not one value or next to none of it; more tissue than a brain
    has; tissue that the labels leave out. A newborn's or an animal's head in air of exactly one value, without labels,
    is not noticed: it is no larger than a brain may be.

    Args:
        voxels: (X, Y, Z).
        affine: (4, 4), its voxels to RAS mm.
        labels: of the same size, where there are some.
    """
    inside = foreground(voxels)
    share, volume = float(inside.mean()), float(inside.sum() * np.prod(voxel_sizes(affine)) / 1000)
    if share > FULL_ABOVE:
        return f"{share:.0%} of its voxels are no background (a stripped brain's: under {FULL_ABOVE:.0%})"
    if volume > VOLUME_ML[1]:
        return f"it shows {volume:.0f} ml (a brain: under {VOLUME_ML[1]:.0f})"
    outside = 0.0 if labels is None else outside_fraction(inside, labels)
    if outside > UNLABELLED_ABOVE:
        return f"{outside:.0%} of what it shows has no label (in a labelled brain: under {UNLABELLED_ABOVE:.0%})"
    return None
