"""The template brain of the phantom: an analytic anatomy in millimetres.

A structure is a level function, positive inside and roughly the distance to its surface in mm. Coordinates are RAS: x
right, y anterior, z superior; ``side`` is abs(x), for what is the same on the left and the right. The proportions are
an adult head's to about a centimetre.
"""

import numpy as np

__all__ = ["LABELS", "anatomy"]

LABELS = {
    1: "left cerebral cortex",
    2: "right cerebral cortex",
    3: "left cerebral white matter",
    4: "right cerebral white matter",
    5: "left lateral ventricle",
    6: "right lateral ventricle",
    7: "left thalamus",
    8: "right thalamus",
    9: "left caudate",
    10: "right caudate",
    11: "left putamen",
    12: "right putamen",
    13: "left pallidum",
    14: "right pallidum",
    15: "left hippocampus",
    16: "right hippocampus",
    17: "third ventricle",
    18: "brainstem",
    19: "cerebellar cortex",
    20: "cerebellar white matter",
}


def anatomy(points: tuple[np.ndarray, np.ndarray, np.ndarray]) -> list[tuple[str, int, int, np.ndarray]]:
    """The template: (tissue, left label, right label, depth in mm) in the order in which they are painted.

    Args:
        points: x (right), y (anterior), z (superior) in mm; arrays of one shape.
    """
    x, y, z = points
    side = np.abs(x)
    brain, cerebellum = cerebrum(side, y, z), cerebellum_depth(side, y, z)
    fold = folds(x, y, z, 31.0)
    sulcus = 13 * np.clip((fold - 0.4) / 0.5, 0, 1)
    core = ellipsoid(side, y, z, (0, -4, 7), (33, 40, 23))  # callosum and basal ganglia: no fissure, no cortex
    pial = np.maximum(brain - sulcus, core)
    white = np.maximum(brain - 6.0 - 13 * np.clip((fold + 0.25) / 0.8, 0, 1), core)
    stem = np.maximum(
        capsule(side, y, z, (0, -10, -8), (0, -20, -28), (11, 13)),
        capsule(side, y, z, (0, -20, -28), (0, -27, -70), (13, 8)),
    )
    folia = 2.2 * np.sin(0.9 * (z - 0.35 * y + 0.02 * side**2))
    hull = np.maximum(np.maximum(np.maximum(brain, core), cerebellum), stem) + 2.0
    return [
        ("csf", 0, 0, hull),
        ("cortex", 1, 2, pial),
        ("white", 3, 4, white),
        ("cortex", 19, 19, cerebellum),
        ("white", 20, 20, np.minimum(cerebellum - 9 - folia, 30)),
        ("white", 18, 18, stem),
        *nuclei(side, y, z),
    ]


def cerebrum(side, y, z):
    """Depth in mm inside the hull of one cerebral hemisphere, the fissure cut out."""
    vault = ellipsoid(side, y, z, (0, -2, 6), (66, 83, 60))
    base = ellipsoid(side, y, z, (0, -2, 6), (66, 83, 37))
    temporal = ellipsoid(side, y, z, (42, 2, -24), (24, 44, 21))
    hull = np.maximum(np.where(z > 6, vault, base), temporal)
    return np.minimum(hull, 1.1 * (side - 1.2))


def cerebellum_depth(side, y, z):
    """Depth in mm inside the cerebellum, with the notch of the vermis."""
    lobes = ellipsoid(side, y, z, (22, -52, -43), (29, 29, 22))
    vermis = ellipsoid(side, y, z, (0, -48, -40), (14, 24, 19))
    return np.maximum(lobes, vermis)


def nuclei(side, y, z):
    """Deep nuclei and ventricles, as in :func:`anatomy`."""
    arch = 15.5 - 5.5 * ((y + 2) / 28) ** 2  # the ventricle's body rises in the middle
    body = ellipsoid(side, y, z - arch, (8 + 0.004 * (y + 2) ** 2, -2, 0), (7.0, 34, 8.0))
    horn = capsule(side, y, z, (15, -30, 10), (33, -22, -14), (7.0, 4.0))
    hippocampus = capsule(side, y, z, (23, -6, -21), (30, -33, -10), (8.0, 6.0))
    third = np.minimum(3.6 - side, ellipsoid(side, y, z, (0, -6, 3), (10, 19, 11)))
    fourth = capsule(side, y, z, (0, -36, -30), (0, -38, -44), (4.5, 3.5))
    return [
        ("thalamus", 7, 8, ellipsoid(side, y, z, (12.0, -17, 5), (10.5, 16, 10))),
        ("caudate", 9, 10, ellipsoid(side, y - 0.15 * z, z, (16, 17, 8), (7.5, 15, 11))),
        ("putamen", 11, 12, ellipsoid(side + 0.25 * (y - 3), y, z, (32, 3, 3), (7.0, 20, 12))),
        ("pallidum", 13, 14, ellipsoid(side + 0.25 * (y - 1), y, z, (22.5, 0, 2), (5.6, 12, 9))),
        ("thalamus", 15, 16, hippocampus),
        ("csf", 5, 6, np.maximum(body, horn)),
        ("csf", 17, 17, third),
        ("csf", 0, 0, fourth),
    ]


def ellipsoid(x, y, z, center, radii):
    """Approximate depth in mm inside an ellipsoid."""
    scaled = [(p - c) / r for p, c, r in zip((x, y, z), center, radii, strict=True)]
    norm = np.sqrt(sum(s * s for s in scaled)) + 1e-3
    slope = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, radii, strict=True))) + 1e-4
    return (1 - norm) * norm / slope


def capsule(x, y, z, start, end, radii):
    """Depth in mm inside a rod from ``start`` to ``end`` of linearly changing radius."""
    start, axis = np.array(start, np.float32), np.array(end, np.float32) - np.array(start, np.float32)
    offset = [p - s for p, s in zip((x, y, z), start, strict=True)]
    along = np.clip(sum(o * a for o, a in zip(offset, axis, strict=True)) / (axis**2).sum(), 0, 1)
    distance = np.sqrt(sum((o - along * a) ** 2 for o, a in zip(offset, axis, strict=True)))
    return radii[0] + along * (radii[1] - radii[0]) - distance


def folds(x, y, z, wavelength_mm):
    """A gyroid bent by slower waves, in [-1, 1]: the level sets meander over a surface as sulci do."""
    k = np.float32(2 * np.pi / wavelength_mm)
    u = k * x + 0.9 * np.sin(0.43 * k * y + 1.0) + 0.5
    v = k * y + 0.9 * np.sin(0.37 * k * z + 2.0)
    w = k * z + 0.9 * np.sin(0.41 * k * x + 0.3)
    return (np.sin(u) * np.cos(v) + np.sin(v) * np.cos(w) + np.sin(w) * np.cos(u)) / 1.5
