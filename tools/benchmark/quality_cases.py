"""Registrations that worked, and sixteen kinds of those that did not, for the self-check to tell apart.

A registration goes wrong because of what it was given (:data:`SPOILED`: the moving scan is changed before), how it was
run, or what it answered (:data:`BROKEN`: the field is changed afterwards).
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from nibabel.orientations import aff2axcodes
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch import Tensor

from common.spatial import upsample
from common.starts import start_field

from .quality_scans import Scan, Scans

__all__ = ["BROKEN", "CONDITIONAL", "GOOD", "KINDS", "SETTINGS", "SPOILED", "Case", "Setting", "Volume", "cases_of"]

GOOD = "good"
SHIFT = 0.35  # of the scan's extent
DEGREES = 75.0
CUT = 0.5  # of the longest axis that is left
NOISE_SIGMA = 1.5  # voxels
ROUGH_VOXELS = 3.0  # root mean square of what folds a field
RANDOM_STARTS = 4.0  # times what ``common.starts`` perturbs by: 6 voxels


class Setting(NamedTuple):
    """A bundle, its overlays, and values over its inference.json by id."""

    bundle: str
    overlays: tuple[str, ...] = ()
    ids: Mapping[str, object] = {}


SETTINGS = {
    "svf": Setting("svf", (), {"affine": "none"}),
    "svf auto": Setting("svf", (), {"affine": "auto"}),
    "svf mind": Setting("svf", (), {"affine": "none", "similarity": "mind"}),
    "svf mi": Setting("svf", (), {"affine": "none", "similarity": "mi"}),
    "svf mse": Setting("svf", (), {"affine": "none", "similarity": "mse"}),
    "svf mse auto": Setting("svf", (), {"affine": "auto", "similarity": "mse"}),
    "svf smooth": Setting("svf", (), {"affine": "none", "velocity_sigma": 1.2}),
    "svf rough": Setting("svf", (), {"affine": "none", "divergence_weight": 0.1}),
    "svf liver": Setting("svf", ("liver_mr",), {"affine": "none", "spacing_mm": "auto"}),
    "svf lung": Setting("svf", ("lung_ct",), {"affine": "auto"}),
    "svf one step": Setting("svf", (), {"affine": "none", "levels": [[8, 8, 1]]}),
    "svf one step auto": Setting("svf", (), {"affine": "auto", "levels": [[8, 8, 1]]}),
    "eoir": Setting("eoir", (), {"affine": "none"}),
}
USUAL = {
    "brain": "svf",
    "brain 2 mm": "svf",
    "native brain": "svf auto",
    "hippocampus": "svf auto",
    "phantom": "svf",
    "liver": "svf liver",
    "lung": "svf lung",
    "other brain": "svf auto",
}
"""By organ, the setting in which a registration works."""

FAILING = {
    "calibration": {"brain": 2, "hippocampus": 1, "phantom": 1},
    "held-out": {"brain": 5, "native brain": 2, "hippocampus": 3, "phantom": 4, "liver": 2, "lung": 2},
}
"""By half and organ, how many good pairs are made to fail, in every way; limits are chosen without them."""

STEPS = {"brain": (1, 2), "hippocampus": (1, 2), "liver": (1, 2)}
"""By organ, how far apart in their order two scans are that are paired."""

MOST = {"brain 2 mm": 4, "native brain": 5}
"""By organ, how many pairs of a step are taken; elsewhere all."""

WRONG_ORGAN = {
    "brain": "liver",
    "native brain": "liver",
    "hippocampus": "brain",
    "phantom": "hippocampus",
    "liver": "native brain",
    "lung": "native brain",
}


class Volume(NamedTuple):
    """A moving scan: voxels and labels (X, Y, Z), affine to RAS mm."""

    voxels: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray


class Case(NamedTuple):
    """One registration.

    Attributes:
        half: "calibration" or "held-out".
        kind: :data:`GOOD`, or the kind of failure.
        setting: key of :data:`SETTINGS`.
        fixed: the scan.
        moving: the scan before it is spoiled.
        spoil: key of :data:`SPOILED`, or "".
        other: another pair, fixed and moving, for a field that does not belong here.
    """

    half: str
    kind: str
    setting: str
    fixed: Scan
    moving: Scan
    spoil: str = ""
    other: tuple[Scan, Scan] | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from all others."""
        return self.half, self.fixed.organ, self.kind, self.setting, self.spoil, self.fixed.name, self.moving.name

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers of its own."""
        return np.random.default_rng(zlib.crc32("|".join(self.key).encode()))


def cases_of(half: str, scans: Scans, networks: bool = False) -> Iterator[Case]:
    """Every registration of a half, the good ones first.

    Args:
        half: its name.
        scans: its scans by organ.
        networks: whether there is a trained network.
    """
    yield from good_cases(half, scans, networks)
    for organ, count in FAILING[half].items():
        pairs = ring(scans[organ], 1)
        for k, pair in enumerate(pairs[:count]):
            yield from failing_cases(half, scans, pair, pairs[(k + 1) % len(pairs)])


def good_cases(half: str, scans: Scans, networks: bool) -> Iterator[Case]:
    """Pairs of one organ, in settings that suit it."""

    def case(setting: str, fixed: Scan, moving: Scan, spoil: str = "") -> Case:
        return Case(half, GOOD, setting, fixed, moving, spoil)

    for organ, members in scans.items():
        for step in STEPS.get(organ, (1,)):
            yield from (case(USUAL[organ], *pair) for pair in ring(members, step)[: MOST.get(organ)])
    yield from (case("svf", *pair) for step in (1, 2) for pair in ring(scans["hippocampus"], step))
    near = ring(scans["brain"], 1)
    for setting in ("svf mind", "svf smooth", "svf rough"):
        yield from (case(setting, *pair) for pair in near[:4])
    for setting in ("svf mi", "svf mind"):
        yield from (case(setting, *pair, "T2-like") for pair in near[:4])
    if networks:
        yield from (case("eoir", *pair) for pair in ring(scans["brain 2 mm"], 1)[:4])


def failing_cases(half: str, scans: Scans, pair: tuple[Scan, Scan], other: tuple[Scan, Scan]) -> Iterator[Case]:
    """A pair in every way to fail."""
    usual = USUAL[pair[0].organ]
    suffix = " auto" if SETTINGS[usual].ids["affine"] == "auto" else ""
    settings = {"shift": "svf", "rotation": "svf", "wrong contrast": f"svf mse{suffix}"}
    for kind in SPOILED:
        if kind not in GOOD_SPOILS:
            yield Case(half, kind, settings.get(kind, usual), *pair, kind)
    yield Case(half, "wrong organ", "svf auto", pair[0], scans[WRONG_ORGAN[pair[0].organ]][0])
    yield Case(half, "too few iterations", f"svf one step{suffix}", *pair)
    for kind in BROKEN:
        yield Case(half, kind, usual, *pair, "", other)


def ring(members: list[Scan], step: int) -> list[tuple[Scan, Scan]]:
    """Each scan with the one ``step`` further on; a pair of two both ways."""
    count = len(members)
    return [(members[k], members[(k + step) % count]) for k in range(count)] if count > 1 else []


def flipped(volume: Volume, letters: str) -> Volume:
    """Mirrored along the axis that runs between two of L/R, P/A and I/S, under an unchanged header."""
    axis = next(k for k, code in enumerate(aff2axcodes(volume.affine)) if code in letters)
    label = None if volume.label is None else np.flip(volume.label, axis)
    return volume._replace(voxels=np.flip(volume.voxels, axis), label=label)


def shifted(volume: Volume, rng: np.random.Generator) -> Volume:
    """Moved in its header."""
    direction = rng.standard_normal(3)
    extent = np.abs(volume.affine[:3, :3]) @ volume.voxels.shape
    affine = volume.affine.copy()
    affine[:3, 3] += SHIFT * extent * direction / np.linalg.norm(direction)
    return volume._replace(affine=affine)


def rotated(volume: Volume, rng: np.random.Generator) -> Volume:
    """Turned in its header, about its center."""
    axis = rng.standard_normal(3)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(np.radians(DEGREES) * axis / np.linalg.norm(axis)).as_matrix()
    center = (volume.affine @ [*(np.array(volume.voxels.shape) - 1) / 2, 1])[:3]
    turn[:3, 3] = center - turn[:3, :3] @ center
    return volume._replace(affine=turn @ volume.affine)


def noisy(volume: Volume, rng: np.random.Generator) -> Volume:
    """Smooth noise instead of a scan."""
    noise = gaussian_filter(rng.standard_normal(volume.voxels.shape), NOISE_SIGMA)
    return volume._replace(voxels=(1000 * (noise - noise.min())).astype(np.float32), label=None)


def constant(volume: Volume, rng: np.random.Generator) -> Volume:
    """One value everywhere."""
    return volume._replace(voxels=np.full_like(volume.voxels, 7), label=None)


def cut(volume: Volume, rng: np.random.Generator) -> Volume:
    """Half of the field of view along the longest axis."""
    axis = int(np.argmax(np.linalg.norm(volume.affine[:3, :3], axis=0) * volume.voxels.shape))
    keep = [slice(None)] * 3
    count = volume.voxels.shape[axis]
    start = 0 if rng.random() < 0.5 else count - round(CUT * count)
    keep[axis] = slice(start, start + round(CUT * count))
    affine = volume.affine.copy()
    affine[:3, 3] += start * affine[:3, axis]
    label = None if volume.label is None else volume.label[tuple(keep)]
    return Volume(volume.voxels[tuple(keep)], label, affine)


def with_curve(volume: Volume, curve: Callable[[np.ndarray], np.ndarray]) -> Volume:
    """Other gray values: a curve on those between the minimum and the 99th percentile above it; the minimum stays."""
    low = volume.voxels.min()
    inside = volume.voxels > low
    high = np.percentile(volume.voxels[inside], 99)
    gray = np.where(inside, 1000 * curve((volume.voxels - low) / (high - low)), 0)
    return volume._replace(voxels=gray.astype(np.float32))


def inverted(volume: Volume, rng: np.random.Generator) -> Volume:
    """Dark where it was bright."""
    return with_curve(volume, lambda gray: 1.2 - np.clip(gray, 0, 1.1))


def t2_like(volume: Volume, rng: np.random.Generator) -> Volume:
    """Fluid bright, gray above white matter."""
    return with_curve(volume, lambda gray: np.exp(-2.5 * np.clip(gray, 0, 1.1)))


SPOILED: Mapping[str, Callable[[Volume, np.random.Generator], Volume]] = {
    "flip up-down": lambda volume, rng: flipped(volume, "IS"),
    "flip front-back": lambda volume, rng: flipped(volume, "PA"),
    "flip left-right": lambda volume, rng: flipped(volume, "LR"),
    "shift": shifted,
    "rotation": rotated,
    "noise": noisy,
    "constant": constant,
    "wrong contrast": inverted,
    "cut field of view": cut,
    "T2-like": t2_like,
}
GOOD_SPOILS = ("T2-like",)  # what a registration with the right similarity bears


def identity(answer: Mapping[str, Tensor], other: Tensor, rng: np.random.Generator) -> Tensor:
    """Nothing, for a pair that needs something."""
    return torch.zeros_like(answer["ddf"])


def rough(answer: Mapping[str, Tensor], other: Tensor, rng: np.random.Generator) -> Tensor:
    """The field with noise that folds it."""
    ddf = answer["ddf"]
    noise = np.stack([gaussian_filter(rng.standard_normal(ddf.shape[1:]), NOISE_SIGMA) for _ in ddf])
    return ddf + torch.from_numpy(ROUGH_VOXELS * noise / noise.std()).to(ddf)


def random(answer: Mapping[str, Tensor], other: Tensor, rng: np.random.Generator) -> Tensor:
    """A smooth field that has nothing to do with the images."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return RANDOM_STARTS * start_field(answer["ddf"].shape[1:], generator)[0].to(answer["ddf"])


def backward(answer: Mapping[str, Tensor], other: Tensor, rng: np.random.Generator) -> Tensor:
    """The inverse, taken for the field."""
    return answer["inverse"]


def of_other_pair(answer: Mapping[str, Tensor], other: Tensor, rng: np.random.Generator) -> Tensor:
    """The right field of other images."""
    return upsample(other[None], list(answer["ddf"].shape[1:]))[0]


BROKEN: Mapping[str, Callable[[Mapping[str, Tensor], Tensor, np.random.Generator], Tensor]] = {
    "identity": identity,
    "folded field": rough,
    "random field": random,
    "inverse field": backward,
    "field of another pair": of_other_pair,
}
KINDS = (*(kind for kind in SPOILED if kind not in GOOD_SPOILS), "wrong organ", "too few iterations", *BROKEN)
CONDITIONAL = ("shift", "rotation", "wrong contrast", "cut field of view", "too few iterations", *BROKEN)
"""Kinds that count as failures only where they cost overlap: a registration may have got over them."""
