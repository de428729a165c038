"""Which way a labelled brain lies, told by where its structures are.

Arrays without a header say nothing of left and right, and a header may say the wrong thing. Labels that name the sides
do say it: the axes and their directions follow from the centers of a few large structures.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["ASEG", "SEG35", "Structures", "label_orientation", "reorient"]


class Structures(NamedTuple):
    """Label numbers of what tells the directions apart."""

    left: tuple[int, ...]
    """Of the left cerebrum."""
    right: tuple[int, ...]
    brain_stem: tuple[int, ...]
    cerebellum: tuple[int, ...]


ASEG = Structures(left=(2, 3), right=(41, 42), brain_stem=(16,), cerebellum=(7, 8, 46, 47))
"""FreeSurfer's."""
SEG35 = Structures(left=(1, 2), right=(20, 21), brain_stem=(13,), cerebellum=(5, 6, 24, 25))
"""The 35 of neurite-OASIS."""


def label_orientation(labels: np.ndarray, structures: Structures) -> str | None:
    """The axis codes of a label map (X, Y, Z), such as "LIA": where each array axis points to.

    The cerebrum's left side lies to the left of its right one, the brain stem below the cerebrum, the cerebellum behind
    it.

    Returns:
        None if a structure is missing.
    """
    cerebrum = (*structures.left, *structures.right)
    groups = (structures.left, structures.right, cerebrum, structures.brain_stem, structures.cerebellum)
    masks = [np.isin(labels, group) for group in groups]
    if not all(mask.any() for mask in masks):
        return None
    left, right, whole, stem, cerebellum = map(center, masks)
    codes, free = {}, [0, 1, 2]
    for toward, back, direction in (("L", "R", left - right), ("S", "I", whole - stem), ("A", "P", whole - cerebellum)):
        axis = max(free, key=lambda k, d=direction: abs(d[k]))
        codes[axis] = toward if direction[axis] > 0 else back
        free.remove(axis)
    return "".join(codes[axis] for axis in range(3))


def center(mask: np.ndarray) -> np.ndarray:
    """The mean voxel of a mask (X, Y, Z)."""
    sums = [mask.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return np.array([np.average(np.arange(len(weights)), weights=weights) for weights in sums])


def reorient(voxels: np.ndarray, codes: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """The same voxels with their axes in another order and direction; nothing is interpolated.

    Args:
        voxels: (X, Y, Z).
        codes: where its axes point to, such as "RAS".
        target: where those of the result shall point to, such as "LIA".
    """
    opposite = dict(zip("LRPAIS", "RLAPSI", strict=True))
    order = [next(k for k, code in enumerate(codes) if wanted in (code, opposite[code])) for wanted in target]
    flips = [k for k, axis in enumerate(order) if codes[axis] != target[k]]
    return np.ascontiguousarray(np.flip(voxels.transpose(order), flips))
