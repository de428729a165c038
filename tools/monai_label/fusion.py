"""Several label maps of one image as one, by vote."""

from collections.abc import Sequence

import numpy as np

__all__ = ["vote"]


def vote(label_maps: Sequence[np.ndarray]) -> np.ndarray:
    """The label that most maps have at each voxel; of labels with equal votes, the one that an earlier map has.

    Args:
        label_maps: integers of one shape, the most trusted first; background votes like every other value.

    Returns:
        An array of that shape, in the data type of the first.

    Source: Heckemann et al., NeuroImage 2006, doi:10.1016/j.neuroimage.2006.05.061 (vote rule).
    Differs: ties go by the order of the maps, there at random.
    """
    # an earlier map outweighs all later ones, yet these shares together are less than one vote
    weights = [1 + 2.0**-rank / 2 for rank in range(1, len(label_maps) + 1)]
    fused, most = label_maps[0].copy(), np.zeros(label_maps[0].shape)
    for value in np.unique(np.concatenate([np.unique(label_map) for label_map in label_maps])):
        votes = sum(weight * (label_map == value) for weight, label_map in zip(weights, label_maps, strict=True))
        fused[votes > most] = value
        most = np.maximum(votes, most)
    return fused
