"""Phantom pairs with known deformation, registered by a bundle from several starts: what error maps are measured on.

A pair's arrays stay in a folder, so that a stopped run goes on and another fit needs no other registration.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from common.checkpoint import LoadWeights
from common.datalist import GRID_NAME
from common.files import save_atomically
from common.geometry import ddf_to_mm, resample_mm
from common.phantom import Phantom, known_ddf, phantom_subject, write_nifti
from common.starts import answers

from ..register import bundle_folder

__all__ = ["HALVES", "STARTS", "Answer", "Case", "answer_of", "cases_of", "is_trained", "regions_of"]

STARTS = (2, 4, 8)
"""After how many of them the spread is kept."""


class Case(NamedTuple):
    """A pair of subjects, of this and the next seed."""

    seed: int
    size: tuple[int, ...]
    deformation_mm: float
    noise: float

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.seed}-{'x'.join(map(str, self.size))}-{self.deformation_mm}-{self.noise}"


class Half(NamedTuple):
    """What the pairs of one half are made with; pair k takes the k-th of each, in turn."""

    seed: int
    sizes: tuple[tuple[int, ...], ...]
    deformations_mm: tuple[float, ...]
    noises: tuple[float, ...]


HALVES = {
    "calibration": Half(1000, ((64, 64, 80), (56, 56, 72), (48, 48, 64)), (0.8, 2.0, 1.2, 1.6), (0.01, 0.05, 0.025)),
    "held-out": Half(5000, ((60, 64, 84), (72, 68, 88), (52, 52, 66)), (1.0, 2.2, 1.4, 1.8), (0.015, 0.06, 0.035)),
}
"""Nothing in common: subjects, grids, strengths of the deformation, noise."""


class Answer(NamedTuple):
    """A registration and the truth, on the network's grid."""

    image: Tensor
    """(1, C, *S) as the network saw it."""
    ddf: Tensor
    """(1, N, *S) in voxels."""
    spreads: dict[int, Tensor]
    """By the number of starts, (1, N, *S) in voxels."""
    truth_mm: Tensor
    """The known displacement, (1, N, *S) in RAS mm."""
    label: Tensor
    """Of the fixed subject, (1, 1, *S)."""
    affine: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel size along each axis."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0)

    @property
    def error_mm(self) -> Tensor:
        """Length of the answer's difference from the truth, (1, 1, *S)."""
        return (ddf_to_mm(self.ddf, self.affine) - self.truth_mm).norm(dim=1, keepdim=True)


def cases_of(half: str, pairs: int) -> list[Case]:
    """The first pairs of a half. The numbers of sizes, strengths and noises have no common divisor: they mix."""
    of = HALVES[half]
    turns = ((of.sizes[k % 3], of.deformations_mm[k % 4], of.noises[(k // 2) % 3]) for k in count())
    return [Case(of.seed + 2 * k, *turn) for k, turn in enumerate(islice(turns, pairs))]


def answer_of(case: Case, bundle: str, weights: Path | None, work: Path) -> Answer:
    """A bundle's answer to a pair, from ``work`` where it is there already.

    Args:
        case: the pair.
        bundle: name under ``bundles``.
        weights: folder that its ``train.json`` wrote ``model.pt`` and ``grid.json`` to; None for what needs none.
        work: folder that keeps it.
    """
    path = work / bundle / f"{case.name}.npz"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = registered(case, bundle, weights)
        save_atomically(lambda temporary: save(temporary, found), path)
    return load(path)


def registered(case: Case, bundle: str, weights: Path | None) -> Answer:
    """Register a pair from its files on, as ``inference.json`` does it."""
    fixed, moving = (
        phantom_subject(case.seed + k, case.size, deformation_mm=case.deformation_mm, noise=case.noise) for k in (0, 1)
    )
    prepare, network, shrink = parts_of(bundle, weights)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{name}.nii.gz") for name in ("fixed", "moving")}
        for path, subject in zip(paths.values(), (fixed, moving), strict=True):
            write_nifti(path, subject.image[0].round().to(torch.int16).numpy(), subject.affine)
        item = prepare({name: str(path) for name, path in paths.items()})
    image, affine = item["image"].as_tensor()[None], np.asarray(item["network_affine"])
    with torch.no_grad():
        ddf = network(image).float()
    truth, label = truth_on(fixed, moving, affine, tuple(image.shape[2:]))
    return Answer(image, ddf, spreads_of(network, image, ddf, shrink), truth, label, affine)


def parts_of(bundle: str, weights: Path | None) -> tuple[Callable, Callable, float]:
    """Preprocessing, network and shrink of the starts of a bundle's ``inference.json``."""
    root, parser = bundle_folder(bundle), inference_of(bundle)
    parser.update({"bundle_root": str(root), "device": "cpu", "progress": False, "affine": "none"})
    if weights is not None:
        grid = json.loads((weights / GRID_NAME).read_text())
        parser.update({key: grid[key] for key in ("orientation", "spacing_mm")})
    sys.path.insert(0, str(root))
    network = parser.get_parsed_content("network").eval()
    if weights is not None:
        LoadWeights(network, str(weights / "model.pt"), f"bundles/{bundle}/configs/train.json")(None)
    shrink = parser["start_shrink"] if "start_shrink" in parser else 1
    return parser.get_parsed_content("preprocessing"), network, shrink


def is_trained(bundle: str) -> bool:
    """Whether a bundle needs weights."""
    return "ckpt_path" in inference_of(bundle)


def inference_of(bundle: str) -> ConfigParser:
    """Its ``inference.json``."""
    parser = ConfigParser()
    parser.read_config(str(bundle_folder(bundle) / "configs" / "inference.json"))
    return parser


def spreads_of(network: Callable, image: Tensor, ddf: Tensor, shrink: float) -> dict[int, Tensor]:
    """Root mean squares of the first few starts' differences from the answer."""
    squares, spreads = torch.zeros_like(ddf), {}
    for k, answer in enumerate(answers(network, image, max(STARTS), shrink), 1):
        squares += (answer - ddf).square()
        if k in STARTS:
            spreads[k] = (squares / k).sqrt()
    return spreads


def truth_on(fixed: Phantom, moving: Phantom, affine: np.ndarray, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The known displacement in RAS mm and the fixed label, on the network's grid."""
    known = ddf_to_mm(known_ddf(fixed, moving), fixed.affine)
    label = resample_mm(fixed.label[None].float(), fixed.affine, affine, size, mode="nearest")
    return resample_mm(known, fixed.affine, affine, size, padding_mode="border"), label.to(torch.uint8)


def save(path: Path, answer: Answer) -> None:
    """As one file."""
    arrays = {name: getattr(answer, name).numpy() for name in ("image", "ddf", "truth_mm", "label")}
    spreads = {f"spread{k}": spread.numpy() for k, spread in answer.spreads.items()}
    with path.open("wb") as file:
        np.savez(file, affine=answer.affine, **arrays, **spreads)


def load(path: Path) -> Answer:
    """What :func:`save` wrote."""
    with np.load(path) as arrays:
        image, ddf, truth, label = (torch.from_numpy(arrays[n]) for n in ("image", "ddf", "truth_mm", "label"))
        spreads = {k: torch.from_numpy(arrays[f"spread{k}"]) for k in STARTS}
        return Answer(image, ddf, spreads, truth, label, arrays["affine"])


def regions_of(answer: Answer) -> dict[str, np.ndarray]:
    """Where coverage is told, bool (*S) by name, by the labels of the fixed subject and the known displacement.

    ``body`` is all of the head; of its labels ``edges`` is what touches another one, ``inside`` the rest, and ``flat``
    what is three voxels or more from an edge; ``outside`` is empty space.
    """
    label, fixed = answer.label[0, 0].numpy(), answer.image[0, 1].numpy()
    edge = edges(label)
    depth = distance_transform_edt(~edge)
    body = (fixed > 0) | (label > 0)
    moved = answer.truth_mm[0].norm(dim=0).numpy()
    regions = {"body": body, "edges": edge & (label > 0), "inside": ~edge & (label > 0), "outside": ~body}
    regions["flat"] = (label > 0) & (depth >= 3)
    bins = {"moved below 2 mm": (0, 2), "moved 2 to 5 mm": (2, 5), "moved 5 mm or more": (5, np.inf)}
    return regions | {name: body & (moved >= low) & (moved < high) for name, (low, high) in bins.items()}


def edges(label: np.ndarray) -> np.ndarray:
    """Voxels with another value at one of their faces."""
    edge = np.zeros(label.shape, bool)
    for axis in range(label.ndim):
        changes = np.diff(label, axis=axis) != 0
        low, high = ([slice(None)] * label.ndim for _ in range(2))
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        edge[tuple(low)] |= changes
        edge[tuple(high)] |= changes
    return edge
