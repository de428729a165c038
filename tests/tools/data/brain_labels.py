"""A labelled brain of boxes, for data sets whose labels name the sides."""

import numpy as np

from tools.data.label_orientation import Structures, reorient

SIZE = (20, 24, 28)


def brain(structures: Structures, others=(), codes="LIA", seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Image in [0, 1] and labels, LIA or in other axes: cerebrum above brain stem, cerebellum behind, others inside.

    Args:
        structures: label numbers of what lies where.
        others: label numbers of single voxels in the cerebrum.
        codes: of the axes.
        seed: of the image, and of where the brain ends.
    """
    labels = np.zeros(SIZE, np.int16)  # L, I, A
    end = 24 + seed % 3
    for side, values in ((slice(10, 18), structures.left), (slice(2, 10), structures.right)):
        labels[side, 3:12, 8:end] = values[0]
        labels[side, 3:6, 8:end] = values[-1]
    labels[8:12, 13:20, 12:16] = structures.brain_stem[0]
    for k, value in enumerate(structures.cerebellum):
        labels[4 + 3 * k : 7 + 3 * k, 13:18, 5:11] = value
    inside = np.argwhere(labels == structures.left[0])
    for voxel, value in zip(inside, others, strict=False):
        labels[tuple(voxel)] = value
    wave = 0.5 + 0.3 * np.cos(np.indices(SIZE).sum(0) / (3 + 0.2 * seed))
    image = np.where(labels > 0, wave, 0).astype(np.float32)
    return reorient(image, "LIA", codes), reorient(labels, "LIA", codes)
