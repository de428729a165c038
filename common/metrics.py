"""How well two images are aligned: label overlap, surface distance, landmark error.

Label warps and regularity are re-exported.

Batched, results per pair in float64. Label maps are (B, 1, *S) of an integer dtype; the ddf is (B, N, *S) in voxels of
the fixed grid, warped(x) = moving(x + ddf(x)).

A label missing from an image is no score: it is NaN, and :func:`mean_over_labels` leaves it out. A label which the warp
lost, present in the fixed map and not in the warped one, is the worst score: Dice 0, HD95 the image's diagonal.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from .errors import RegInputError
from .label_warp import warp_label, warp_label_linear
from .regularity import Folds, NonDiffeomorphic, folds, ndv, non_diffeomorphic, sdlogj, sdlogj_l2r
from .surface import percentile_distance, surface_distances

__all__ = [
    "Folds",
    "NonDiffeomorphic",
    "dice",
    "folds",
    "hd95_mm",
    "landmark_errors_mm",
    "mean_over_labels",
    "ndv",
    "non_diffeomorphic",
    "present_labels",
    "sdlogj",
    "sdlogj_l2r",
    "tre_mm",
    "warp_label",
    "warp_label_linear",
]

TABLE_VALUES = 2**20  # widest range of labels looked up in a table; some atlases have ids near 2^31


@torch.no_grad()
def dice(
    warped_label: Tensor, fixed_label: Tensor, labels: Sequence[int], moving_label: Tensor | None = None
) -> Tensor:
    """Dice overlap 2 |A and B| / (|A| + |B|) of each label; (B, L) in [0, 1].

    Args:
        warped_label: (B, 1, *S) integer map.
        fixed_label: (B, 1, *S) integer map.
        labels: the L distinct values to compare, background left out by whoever calls.
        moving_label: (B, 1, *S_moving) integer map before the warp. With it a label is NaN where the fixed or the
            moving map lacks it, which is Learn2Reg's rule; without it, only where fixed and warped map both do.

    Returns:
        (B, L) float64 on the device of ``fixed_label``, in the order of ``labels``.

    Raises:
        RegInputError: if a map is not of an integer dtype, shapes differ, or labels repeat.
    """
    fixed, warped = _compact_pair(warped_label, fixed_label, labels)
    overlap, in_fixed, in_warped = (
        _count(compact, len(labels)) for compact in (fixed * (fixed == warped), fixed, warped)
    )
    values = 2 * overlap / (in_fixed + in_warped).double()  # 0 / 0 is NaN
    if moving_label is None:
        return values
    return values.masked_fill(~((in_fixed > 0) & present_labels(moving_label, labels)), torch.nan)


@torch.no_grad()
def hd95_mm(
    warped_label: Tensor,
    fixed_label: Tensor,
    labels: Sequence[int],
    spacing_mm: Sequence[float],
    moving_label: Tensor | None = None,
    lost_mm: float | None = None,
) -> Tensor:
    """95th percentile of the distance between the surfaces of each label, the larger of both ways; (B, L) in mm.

    Surface elements are weighted by area, see ``common.surface``.

    Args:
        warped_label: (B, 1, *S) integer map, 2-D or 3-D.
        fixed_label: (B, 1, *S) integer map.
        labels: the L distinct values to compare.
        spacing_mm: voxel size along each array axis; Learn2Reg passes ones, whatever the image.
        moving_label: as for :func:`dice`.
        lost_mm: the distance of a label that only one of the two maps has. None takes the diagonal of the image, which
            no distance exceeds; Learn2Reg has ``math.inf``.

    Returns:
        (B, L) float64 on the device of ``fixed_label``; NaN by the rule of :func:`dice`.

    Raises:
        RegInputError: as :func:`dice`, or if spacing_mm does not have one positive number for each axis.
    """
    size = fixed_label.shape[2:]
    _check_spacing(spacing_mm, size)
    if lost_mm is None:
        lost_mm = float(np.linalg.norm(np.multiply(size, spacing_mm)))
    fixed, warped = (x.cpu().numpy() for x in _compact_pair(warped_label, fixed_label, labels))
    rows = [_hd95_of_pair(w, f, len(labels), spacing_mm, lost_mm) for w, f in zip(warped, fixed, strict=True)]
    values = torch.tensor(rows, dtype=torch.float64, device=fixed_label.device).view(len(rows), len(labels))
    if moving_label is None:
        return values
    kept = present_labels(fixed_label, labels) & present_labels(moving_label, labels)
    return values.masked_fill(~kept, torch.nan)


@torch.no_grad()
def present_labels(label: Tensor, labels: Sequence[int]) -> Tensor:
    """Which labels each map holds: (B, L) boolean.

    Args:
        label: (B, 1, *S) integer map.
        labels: the L distinct values to look for.

    Raises:
        RegInputError: if the map is not (B, 1, *S) of an integer dtype, or labels repeat.
    """
    return _count(_compact(label, labels), len(labels)) > 0


def mean_over_labels(values: Tensor, present: Tensor | None = None) -> Tensor:
    """Mean of (B, L) scores over the labels that have one; (B,), NaN where none has.

    Args:
        values: (B, L); NaN is left out, an infinite value makes the mean infinite.
        present: (B, L) boolean, what to average over besides; ``present_labels(fixed_label, labels)`` keeps a label out
            that only the warped map has.
    """
    if present is not None:
        values = values.masked_fill(~present, torch.nan)
    return values.nanmean(dim=1)


@torch.no_grad()
def landmark_errors_mm(
    ddf: Tensor,
    fixed_keypoints: Tensor,
    moving_keypoints: Tensor,
    spacing_mm: Sequence[float],
    interpolation: str = "linear",
) -> Tensor:
    """Distance of each warped landmark, fixed + ddf(fixed), from its counterpart in the moving image; (B, K) in mm.

    Args:
        ddf: (B, N, *S) in voxels.
        fixed_keypoints: (B, K, N) voxel coordinates in array order.
        moving_keypoints: (B, K, N) voxel coordinates in array order, on a grid of the same voxel size.
        spacing_mm: voxel size along each array axis.
        interpolation: how ddf is read between voxels. "linear" is what warping an image does; the field goes on
            beyond the grid as on its border. "cubic" is Learn2Reg's: a spline through the voxels, zero beyond the grid;
            on a rough field the two differ by tenths of a voxel.

    Returns:
        (B, K) float64 on the device of ``ddf``.

    Raises:
        RegInputError: if shapes do not fit, coordinates are not finite, or interpolation is another word.
    """
    ndim = _check_keypoints(ddf, fixed_keypoints, moving_keypoints)
    _check_spacing(spacing_mm, ddf.shape[2:])
    if interpolation not in ("linear", "cubic"):
        raise RegInputError(f'interpolation is "{interpolation}", expected "linear" or "cubic".')
    order, mode = {"linear": (1, "nearest"), "cubic": (3, "constant")}[interpolation]
    fixed = fixed_keypoints.double().cpu()
    field = torch.promote_types(ddf.dtype, torch.float32)  # scipy reads no half precision
    moved = torch.stack(
        [
            torch.from_numpy(ndimage.map_coordinates(u.numpy(), x.numpy().T, np.float64, order, mode))
            for pair, x in zip(ddf.to(field).cpu(), fixed, strict=True)
            for u in pair
        ]
    ).view(len(fixed), ndim, -1)
    offset = fixed + moved.mT - moving_keypoints.double().cpu()
    return (offset * torch.tensor(spacing_mm, dtype=torch.float64)).norm(dim=2).to(ddf.device)


def tre_mm(
    ddf: Tensor,
    fixed_keypoints: Tensor,
    moving_keypoints: Tensor,
    spacing_mm: Sequence[float],
    interpolation: str = "linear",
) -> Tensor:
    """Target registration error: the mean of :func:`landmark_errors_mm` over the landmarks; (B,) in mm.

    NaN without landmarks. Arguments and errors are those of :func:`landmark_errors_mm`.
    """
    return landmark_errors_mm(ddf, fixed_keypoints, moving_keypoints, spacing_mm, interpolation).mean(dim=1)


def _compact_pair(warped_label: Tensor, fixed_label: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    if warped_label.shape != fixed_label.shape:
        raise RegInputError(
            f"warped_label is {list(warped_label.shape)} and fixed_label {list(fixed_label.shape)}, expected one "
            "shape; warp the moving label onto the fixed grid first."
        )
    return _compact(fixed_label, labels), _compact(warped_label, labels)


def _compact(label: Tensor, labels: Sequence[int]) -> Tensor:
    """Each voxel's place in ``labels``, counted from 1, and 0 for every other value; (B, *S) int32."""
    if label.is_floating_point() or label.is_complex() or label.ndim < 4 or label.shape[1] != 1:
        raise RegInputError(
            f"a label map is {label.dtype} {list(label.shape)}, expected an integer dtype and (B, 1, *S); "
            "round it and convert it with .long()."
        )
    values = torch.tensor(list(labels), dtype=torch.int64, device=label.device)
    if values.numel() == 0 or values.unique().numel() != values.numel():
        raise RegInputError(f"labels are {list(labels)}, expected at least one value and none twice.")
    voxels, low, span = label[:, 0].long(), int(values.min()), int(values.max() - values.min())
    place = torch.arange(1, len(values) + 1, dtype=torch.int32, device=label.device)
    if span > TABLE_VALUES:
        values, order = values.sort()
        at = torch.searchsorted(values, voxels.contiguous()).clamp_(max=len(values) - 1)
        return place[order[at]] * (values[at] == voxels)
    table = place.new_zeros(span + 3)  # one entry below the least and one above the greatest value
    table[values - low + 1] = place
    return table[(voxels - low + 1).clamp_(0, span + 2)]


def _count(compact: Tensor, length: int) -> Tensor:
    """Voxels of each label, (B, L), of a map from :func:`_compact`."""
    return torch.stack([torch.bincount(pair.flatten(), minlength=length + 1)[1:] for pair in compact])


def _hd95_of_pair(
    warped: np.ndarray, fixed: np.ndarray, length: int, spacing_mm: Sequence[float], lost_mm: float
) -> list[float]:
    boxes = zip(ndimage.find_objects(warped, length), ndimage.find_objects(fixed, length), strict=True)
    return [_hd95_of_label(warped, fixed, k, box, spacing_mm, lost_mm) for k, box in enumerate(boxes, start=1)]


def _hd95_of_label(warped, fixed, value: int, boxes, spacing_mm: Sequence[float], lost_mm: float) -> float:
    if None in boxes:
        return float("nan") if boxes == (None, None) else lost_mm
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*boxes, strict=True))
    between = surface_distances(warped[box] == value, fixed[box] == value, spacing_mm)
    return max(
        percentile_distance(between.first_to_second, between.first_areas, 95),
        percentile_distance(between.second_to_first, between.second_areas, 95),
    )


def _check_spacing(spacing_mm: Sequence[float], size: Sequence[int]) -> None:
    if len(spacing_mm) != len(size) or not all(0 < step < float("inf") for step in spacing_mm):
        raise RegInputError(
            f"spacing_mm is {list(spacing_mm)}, expected {len(size)} positive numbers in the order of the array axes."
        )


def _check_keypoints(ddf: Tensor, fixed_keypoints: Tensor, moving_keypoints: Tensor) -> int:
    ndim = ddf.ndim - 2
    expected = (ddf.shape[0], fixed_keypoints.shape[1] if fixed_keypoints.ndim == 3 else "K", ndim)
    if ddf.shape[1] != ndim or not expected == tuple(fixed_keypoints.shape) == tuple(moving_keypoints.shape):
        raise RegInputError(
            f"fixed_keypoints are {list(fixed_keypoints.shape)} and moving_keypoints {list(moving_keypoints.shape)} "
            f"for a ddf {list(ddf.shape)}, expected (B, K, N) points in pairs and a (B, N, *S) field."
        )
    if not (fixed_keypoints.isfinite().all() and moving_keypoints.isfinite().all()):
        raise RegInputError("keypoints hold NaN or infinite coordinates, expected finite ones; drop those landmarks.")
    return ndim
