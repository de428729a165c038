"""What a registration found, brought from the network's grid to the user's own, and what it is worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from .geometry import inverse_displacement_mm, mm_to_ddf, spatial_affine, total_displacement_mm
from .inverse import invert_mm
from .metrics import dice, folds, hd95_mm, ndv, sdlogj
from .spatial import jacobian_determinant

__all__ = ["Fields", "Grid", "Images", "fields_of", "jacobian", "landmark_scores", "pair_scores", "scores_of"]

RESIDUAL_MM = 0.05  # that an inverse may leave: a twentieth of a usual voxel


@dataclass(frozen=True)
class Grid:
    """Size and (N + 1, N + 1) affine, voxels to RAS mm, of an image."""

    size: tuple[int, ...]
    affine: np.ndarray

    @property
    def spacing_mm(self) -> list[float]:
        """Voxel size along each array axis."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0).tolist()

    @property
    def orientation(self) -> str:
        """Where each array axis points to, such as "RAS"; "RA" of a 2-D image."""
        return "".join(nib.aff2axcodes(self.affine))


@dataclass(frozen=True)
class Fields:
    """The map from the fixed to the moving world, ``y = initial @ (x + own(x)) = x + total(x)``.

    Attributes:
        own: what was found after the initial alignment, (1, N, *S_fixed), RAS mm.
        total: the whole map, (1, N, *S_fixed), RAS mm.
        inverse: its inverse on the moving grid, (1, N, *S_moving), RAS mm; None if none was asked for.
        inverse_residual_mm: how far from itself each moving voxel comes back, (*S_moving); NaN where it comes from
            outside the fixed image.
        initial: (N + 1, N + 1), RAS mm, or None: no initial alignment.
        fixed: the fixed image's grid.
        moving: the moving image's grid.
    """

    own: Tensor
    total: Tensor
    inverse: Tensor | None
    inverse_residual_mm: Tensor | None
    initial: np.ndarray | None
    fixed: Grid
    moving: Grid

    @property
    def ddf(self) -> Tensor:
        """``own`` in voxels of the fixed grid."""
        return mm_to_ddf(self.own, self.fixed.affine)


@dataclass(frozen=True)
class Images:
    """The pair on the fixed grid, tensors (1, 1, *S)."""

    fixed: Tensor
    moving: Tensor  # resampled through the initial alignment alone
    warped: Tensor
    fixed_label: Tensor | None
    moving_label: Tensor | None
    warped_label: Tensor | None


def fields_of(
    pred: Tensor | Mapping[str, Tensor],
    network_affine: np.ndarray,
    fixed: Grid,
    moving: Grid,
    initial: np.ndarray | None = None,
    inverse: bool = True,
) -> Fields:
    """Bring a network's answer onto the user's grids.

    Args:
        pred: ddf (N, *S) in voxels of the network's grid, or {"ddf", "inverse", ...}: it and, where the network knows
            it, its inverse, from which the fixed point iteration on the moving grid starts.
        network_affine: (N + 1, N + 1) of that grid.
        fixed: grid of the fixed image.
        moving: grid of the moving image.
        initial: (N + 1, N + 1), fixed world to moving world, RAS mm, through which the network saw the moving image.
        inverse: whether to find it.
    """
    answer = pred if isinstance(pred, Mapping) else {"ddf": pred}
    ddf, back = plain(answer["ddf"]), plain(answer["inverse"]) if "inverse" in answer else None
    own = total_displacement_mm(ddf, network_affine, fixed.affine, fixed.size)
    total = own if initial is None else total_displacement_mm(ddf, network_affine, fixed.affine, fixed.size, initial)
    if not inverse:
        return Fields(own, total, None, None, initial, fixed, moving)
    start = None if back is None else inverse_displacement_mm(back, network_affine, moving.affine, moving.size, initial)
    found, residual = invert_mm(own, fixed.affine, moving.affine, moving.size, initial, start)
    return Fields(own, total, found, residual, initial, fixed, moving)


def plain(field: Tensor) -> Tensor:
    """(N, *S) as float32 (1, N, *S) on the CPU, without MONAI's metadata."""
    return torch.as_tensor(field).as_subclass(Tensor)[None].float().cpu()


def jacobian(fields: Fields, total: bool = False) -> Tensor:
    """Determinant of the Jacobian on the fixed grid, (1, 1, *S): of what was found, or of the whole map.

    1 keeps volume, 2 says that what is one cubic millimeter in the fixed image is two in the moving one.
    """
    determinant = jacobian_determinant(fields.ddf)
    if total and fields.initial is not None:
        ndim = fields.own.shape[1]
        determinant = determinant * float(np.linalg.det(spatial_affine(fields.initial, ndim)[:-1, :-1]))
    return determinant.reshape(1, 1, *determinant.shape[-fields.own.shape[1] :])


def scores_of(fields: Fields, images: Images, labels: Sequence[int], surfaces: bool = False) -> dict:
    """:func:`pair_scores` of what was found, and what its inverse leaves.

    Args:
        fields: what was found.
        images: with the label maps.
        labels: the values to score, if any.
        surfaces: HD95 of the labels too.
    """
    scores = pair_scores(fields.ddf, images, labels, fields.fixed.spacing_mm if surfaces else None)
    return scores if fields.inverse_residual_mm is None else scores | inverse_scores(fields.inverse_residual_mm)


def pair_scores(
    ddf: Tensor, images: Images, labels: Sequence[int], spacing_mm: Sequence[float] | None = None
) -> dict[str, float | dict]:
    """Mean Dice before and after and per label, where there are labels; SDlogJ, folds and NDV of a field.

    Args:
        ddf: (1, N, *S) in voxels.
        images: with the label maps.
        labels: the values to score, if any.
        spacing_mm: voxel size along each array axis, for HD95 of the labels, which takes seconds; None leaves it out.
    """
    scores = {}
    if labels:
        maps = (images.moving_label, images.warped_label, images.fixed_label)
        scores |= label_scores("dice", dice, labels, *maps)
    if labels and spacing_mm is not None:
        scores |= label_scores("hd95_mm", partial(surface_distance, spacing_mm), labels, *maps)
    scores |= {"sdlogj": float(sdlogj(ddf)), "folded_percent": float(folds(ddf).percent)}
    if ddf.ndim == 5:
        scores["ndv_percent"] = float(ndv(ddf))
    return scores


def label_scores(
    name: str, metric: Callable[..., Tensor], labels: Sequence[int], moving: Tensor, warped: Tensor, fixed: Tensor
) -> dict:
    """A metric's mean over the labels that both images have and its values a label, None where unknown; before too."""
    scores = {}
    for when, label in (("_before", moving), ("", warped)):
        values = metric(label, fixed, labels, moving)[0]
        known = {str(k): None if v != v else v for k, v in zip(labels, values.tolist(), strict=True)}
        scores |= {f"{name}{when}": float(values.nanmean()), f"{name}_per_label{when}": known}
    return scores


def surface_distance(spacing_mm: Sequence[float], label: Tensor, fixed: Tensor, labels: Sequence[int], moving: Tensor):
    """HD95 in mm, (1, L), called as Dice is."""
    return hd95_mm(label, fixed, labels, spacing_mm, moving)


def landmark_scores(before_mm: np.ndarray | Tensor, after_mm: np.ndarray | Tensor) -> dict[str, float | dict]:
    """Mean TRE before and after, and median, 95th percentile and largest value; NaN, and none, without landmarks.

    Args:
        before_mm: (K,) distances from their partners, through the initial alignment alone.
        after_mm: likewise through the whole map.
    """
    scores = {}
    for when, errors in (("_before", before_mm), ("", after_mm)):
        errors = np.asarray(errors, dtype=float)
        scores[f"tre_mm{when}"] = float(errors.mean()) if len(errors) else float("nan")
        if len(errors):
            found = {"p50": np.quantile(errors, 0.5), "p95": np.quantile(errors, 0.95), "max": errors.max()}
            scores[f"tre_mm_quantiles{when}"] = {name: float(value) for name, value in found.items()}
    return scores


def inverse_scores(residual_mm: Tensor) -> dict[str, float | None]:
    """The largest residual, and the percentage of voxels above 0.05 mm; None where nothing is known of any voxel."""
    known = residual_mm[residual_mm.isfinite()]
    scores = {"inverse_residual_mm": None, "inverse_residual_over_percent": None}
    if known.numel():
        over = 100 * float((known > RESIDUAL_MM).double().mean())
        scores = {"inverse_residual_mm": float(known.max()), "inverse_residual_over_percent": over}
    return scores
