"""Dictionary transforms that MONAI lacks: integer labels, foreground percentiles, the network's grid, the stacked pair.

What MONAI does well is not here: joint flips of a pair are its ``RandFlipd`` with all keys of the pair (one draw serves
all keys), whole-image percentiles its ``ScaleIntensityRangePercentilesd``.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import MapTransform, Transform
from nibabel.orientations import axcodes2ornt, io_orientation, ornt2axcodes, ornt_transform
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from .errors import RegInputError
from .working_grid import working_spacing

__all__ = ["ScaleForegroundPercentiled", "StackPaird", "ToIntegerLabeld", "ToNetworkGridd", "network_grid", "resample"]

FLOAT32_EXACT = 2**24 - 1  # the next number stands for the one above it too, which float32 does not hold
STANDARD = {2: "LA", 3: "LIA"}  # by axes: brains as FreeSurfer has them, and the phantoms


class ToIntegerLabeld(MapTransform):
    """Label maps as integers, refused if they are not whole numbers: rounding 1.5 would invent a label.

    Args:
        keys: of the label maps.
        tolerance: how far a value may lie from a whole number, for files with a float scale factor.
        dtype: integer type of the result.
        allow_missing_keys: as in MONAI.

    Raises:
        RegInputError: on a fraction, a negative or non-finite value, or one that ``dtype``, or the float32 in which it
            was loaded, cannot hold.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        tolerance: float = 1e-3,
        dtype: torch.dtype = torch.int32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.tolerance = tolerance
        self.dtype = dtype

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Convert every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = self.convert(item[key], key)
        return item

    def convert(self, label: Tensor, key: Hashable) -> Tensor:
        """One label map."""
        name = source_name(label, key)
        values = torch.as_tensor(label)
        limit = torch.iinfo(self.dtype).max
        if values.is_floating_point():
            rounded = values.round()
            wrong = ~((values - rounded).abs() <= self.tolerance)  # so written, NaN is wrong too
            if bool(wrong.any()):
                value = float(values[wrong][0])
                raise RegInputError(f"{name} holds the value {value:g}, expected whole numbers; give it a label map.")
            values = rounded
            limit = min(limit, FLOAT32_EXACT) if label.dtype == torch.float32 else limit
        low, high = (int(values.min()), int(values.max())) if values.numel() else (0, 0)
        if low < 0 or high > limit:
            raise RegInputError(
                f"{name} holds labels from {low} to {high}, expected 0 to {limit}; number its labels anew."
            )
        return values.to(self.dtype)


class ScaleForegroundPercentiled(MapTransform):
    """Scale intensities so that the background becomes 0 and a percentile of the foreground 1, clipped to [0, 1].

    Unlike a percentile of the whole image it does not depend on how much empty space surrounds the organ.

    Args:
        keys: of the images.
        upper: percentile of the voxels above ``background``.
        background: intensity of empty space; None takes the image's minimum.
        allow_missing_keys: as in MONAI.

    Raises:
        RegInputError: if no voxel is above the background: such an image cannot be registered.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        upper: float = 99.5,
        background: float | None = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.upper = upper
        self.background = background

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Scale every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = torch.as_tensor(item[key]).float()
            low = float(image.min()) if self.background is None else self.background
            foreground = image[image > low]
            if not len(foreground):
                raise RegInputError(
                    f"{source_name(image, key)} has no voxel above its background {low:g}, expected an image with "
                    "contrast; give another image or background."
                )
            high = float(np.percentile(foreground.cpu().numpy(), self.upper))
            item[key] = ((image - low) / (high - low)).clamp(0, 1)
        return item


class StackPaird(Transform):
    """The network's 2-channel image, with the geometry of the FIXED image.

    ``ConcatItemsd`` and ``torch.cat`` keep the meta of the first tensor, which is the moving image's: results would be
    written with the wrong geometry.

    Args:
        keys: of the moving and the fixed image, each (1, *S), in the order of the channels.
        name: key of the result (2, *S).
        masks: keys of masks (1, *S), of which those that the item has loaded become a third channel: 1 inside all.

    Raises:
        RegInputError: if the two do not have one channel and the same size, or nothing lies inside the masks.
    """

    def __init__(
        self, keys: Sequence[str] = ("moving", "fixed"), name: str = "image", masks: Sequence[str] = ()
    ) -> None:
        self.keys = tuple(keys)
        self.name = name
        self.masks = tuple(masks)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Add the stack; the two images stay in the item."""
        moving, fixed = (data[key] for key in self.keys)
        if moving.shape != fixed.shape or len(fixed) != 1:
            raise RegInputError(
                f"{self.keys[0]} is {list(moving.shape)} and {self.keys[1]} is {list(fixed.shape)}, expected one "
                "channel and the same size; resample them with common.transforms.ToNetworkGridd."
            )
        channels = [torch.as_tensor(t).as_subclass(Tensor) for t in (moving, fixed)]
        masks = {key: data[key] for key in self.masks if isinstance(data.get(key), Tensor)}
        if masks:
            channels.append(common_mask(masks, fixed).to(channels[1].dtype))
        stack = torch.cat(channels)
        if isinstance(fixed, MetaTensor):
            stack = MetaTensor(stack).copy_meta_from(fixed)
        return {**data, self.name: stack}


def common_mask(masks: Mapping[str, Tensor], fixed: Tensor) -> Tensor:
    """True (1, *S) where every mask is above 0."""
    for key, mask in masks.items():
        if mask.shape != fixed.shape:
            raise RegInputError(
                f"{key} is {list(mask.shape)}, expected {list(fixed.shape)}; draw it on its image's grid."
            )
    inside = torch.stack([torch.as_tensor(mask).as_subclass(Tensor) > 0 for mask in masks.values()]).all(dim=0)
    if not bool(inside.any()):
        raise RegInputError(
            f"no voxel lies inside {' and '.join(masks)}, expected some; check that each belongs to its image."
        )
    return inside


class ToNetworkGridd(Transform):
    """Fixed and moving image on the grid a network was trained for: its orientation and spacing, the fixed content.

    The grid keeps the directions of the fixed image's axes, permuted and flipped to the nearest of ``orientation``, so
    an oblique scan is not turned: its slices were planned on the anatomy. The moving image may have any grid.

    The item gains, as arrays, what maps a result back: ``fixed_affine``, ``moving_affine`` (voxel -> RAS mm of the
    images as they came), ``fixed_size``, ``moving_size`` and ``network_affine``. Both images have ``network_affine``
    as affine afterwards. So have their masks, where the item has them loaded; paths of masks stay as they are.

    Args:
        orientation: axis codes, "LIA" or, for 2-D, such as "LA"; "standard" is these two; None is the fixed image's.
        spacing_mm: voxel size along each of these axes; None keeps the fixed image's. With both the grid is its own.
            "auto" keeps the fixed image's unless its voxels are far from cubes or too many
            (:func:`common.working_grid.working_spacing`).
        margin_mm: None covers the fixed image's whole field of view; a number, its voxels above its minimum and this
            much around them.
        keys: of the fixed and the moving image, MetaTensors (C, *S); a mask's key is its image's with ``_mask``.
        initial_key: of an optional matrix, fixed world -> moving world in RAS mm, homogeneous.

    Raises:
        RegInputError: if an image has no usable affine, ``initial`` is no such matrix, the dimensions disagree, or no
            voxel of the grid lies in the moving image.
    """

    def __init__(
        self,
        orientation: str | None,
        spacing_mm: Sequence[float] | str | None,
        margin_mm: float | None = None,
        keys: Sequence[str] = ("fixed", "moving"),
        initial_key: str = "initial",
    ) -> None:
        self.orientation = orientation
        if isinstance(spacing_mm, str) and spacing_mm != "auto":
            raise RegInputError(f"spacing_mm is '{spacing_mm}', expected numbers, null or auto.")
        self.auto = spacing_mm == "auto"
        self.spacing_mm = None if spacing_mm is None or self.auto else tuple(float(s) for s in spacing_mm)
        self.margin_mm = margin_mm
        self.keys = tuple(keys)
        self.initial_key = initial_key

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Resample both images."""
        images = [data[key] for key in self.keys]
        affines = [usable_affine(image, key) for image, key in zip(images, self.keys, strict=True)]
        ndim = images[0].ndim - 1
        orientation, spacing_mm = self._axes_of(affines[0])
        if not ndim == images[1].ndim - 1 == len(orientation) == len(spacing_mm):
            raise RegInputError(
                f"fixed and moving have {ndim} and {images[1].ndim - 1} axes, orientation '{orientation}' and "
                f"{len(spacing_mm)} spacings; expected one number of axes; give images of {len(orientation)}."
            )
        box = content_box(images[0], self.margin_mm, affines[0])
        initial = homogeneous(data.get(self.initial_key), ndim)
        if self.auto:
            spacing = working_spacing(affines[0], tuple(box[1] - box[0] + 1))
            orientation, spacing_mm = self._axes_of(affines[0], spacing)
        size, affine = network_grid(affines[0], box, orientation, spacing_mm)
        item = dict(data)
        for key, image, own, to_world in zip(self.keys, images, affines, (np.eye(ndim + 1), initial), strict=True):
            voxels, inside = resample(torch.as_tensor(image), np.linalg.solve(own, to_world @ affine), size)
            if not inside:
                raise RegInputError(
                    f"{source_name(image, key)} lies wholly outside the fixed image in world coordinates, expected an "
                    "overlap; align the two first or give `initial`."
                )
            meta = {name: value for name, value in image.meta.items() if name != "affine"}
            item[key] = MetaTensor(voxels, affine=torch.from_numpy(affine), meta=meta)
            item[f"{key}_affine"], item[f"{key}_size"] = own, np.array(image.shape[1:])
            mask = data.get(f"{key}_mask")
            if isinstance(mask, MetaTensor):
                item[f"{key}_mask"] = mask_on(mask, f"{key}_mask", to_world @ affine, size, affine)
        item["network_affine"] = affine
        return item

    def _axes_of(self, affine: np.ndarray, spacing: np.ndarray | None = None) -> tuple[str, tuple[float, ...]]:
        """Orientation and spacing of the grid, in its order, for a fixed image of this affine or another spacing."""
        own = io_orientation(affine)
        asked = STANDARD.get(len(own)) if self.orientation == "standard" else self.orientation
        orientation = asked or "".join(ornt2axcodes(own))
        if self.spacing_mm is not None:
            return orientation, self.spacing_mm
        old = np.linalg.norm(affine[:-1, :-1], axis=0) if spacing is None else spacing
        if len(orientation) != len(old):
            return orientation, tuple(old)
        order = np.argsort(ornt_transform(own, axcodes2ornt(tuple(orientation)))[:, 0])
        return orientation, tuple(float(old[axis]) for axis in order)


def network_grid(
    affine: np.ndarray, box: tuple[np.ndarray, np.ndarray], orientation: str, spacing_mm: Sequence[float]
) -> tuple[tuple[int, ...], np.ndarray]:
    """Size and affine of the grid that covers a box of an image in another orientation and spacing.

    Args:
        affine: (N + 1, N + 1), voxel -> RAS mm, of the image.
        box: first and last voxel, both inside, N numbers each.
        orientation: axis codes of the new grid.
        spacing_mm: its voxel size along these axes.

    Returns:
        Size, N whole numbers, and affine (N + 1, N + 1). The box's center is the grid's; its voxels, taken as cells,
        are covered. With the image's own orientation and spacing the grid is the image's.
    """
    ndim = len(affine) - 1
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(orientation)))  # old axis -> (new axis, sign)
    old = np.linalg.norm(affine[:ndim, :ndim], axis=0)
    directions, extent = np.zeros((ndim, ndim)), np.zeros(ndim)
    for axis, (new, sign) in enumerate(turn.astype(int)):
        directions[:, new] = sign * affine[:ndim, axis] / old[axis]
        extent[new] = (box[1][axis] - box[0][axis] + 1) * old[axis]
    size = np.maximum(np.ceil(extent / np.asarray(spacing_mm) - 1e-3), 1).astype(int)  # 1e-3: a header's rounding
    grid = np.eye(ndim + 1)
    grid[:ndim, :ndim] = directions * np.asarray(spacing_mm)
    center = affine @ np.append((np.asarray(box[0]) + box[1]) / 2, 1)
    grid[:ndim, ndim] = center[:ndim] - grid[:ndim, :ndim] @ ((size - 1) / 2)
    return tuple(int(n) for n in size), grid


def mask_on(mask: MetaTensor, key: str, to_world: np.ndarray, size: Sequence[int], affine: np.ndarray) -> MetaTensor:
    """A mask at the voxels of a grid, nearest neighbor, 0 outside: ``to_world`` leads from them to the mask's world."""
    voxels, _ = resample(mask, np.linalg.solve(usable_affine(mask, key), to_world), size, "nearest")
    meta = {name: value for name, value in mask.meta.items() if name != "affine"}
    return MetaTensor(voxels, affine=torch.from_numpy(affine), meta=meta)


def resample(image: Tensor, matrix: np.ndarray, size: Sequence[int], mode: str = "bilinear") -> tuple[Tensor, bool]:
    """An image at the voxels of another grid, its minimum outside its field of view; of a mask 0.

    Where the new grid is coarser, the image is first blurred to the new resolution (a Gaussian whose width at half
    maximum, added in squares to one old voxel, gives the new one), so that nothing aliases. A mask is not.

    Args:
        image: (C, *S).
        matrix: (N + 1, N + 1), voxel of the new grid -> voxel of ``image``.
        size: of the new grid.
        mode: "bilinear" (linear in N dimensions), or "nearest" for a mask.

    Returns:
        float32 (C, *size), and whether any voxel of the new grid lies inside ``image``.
    """
    ndim = image.ndim - 1
    image = image.as_subclass(Tensor).float()
    step = np.abs(matrix[:ndim, :ndim]).max(axis=1)  # old voxels along each old axis per new voxel
    blur = np.sqrt(np.maximum(step**2 - 1, 0)) / 2.3548  # full width at half maximum -> standard deviation
    is_mask = mode == "nearest"
    fill = torch.zeros(()) if is_mask else image.amin(dim=tuple(range(1, ndim + 1)), keepdim=True)
    if not is_mask and (blur > 0.05).any():  # below that a Gaussian is one sample wide
        image = torch.from_numpy(gaussian_filter(image.cpu().numpy(), (0, *blur), mode="nearest"))
    # in float64, then float32: a voxel index of 500 keeps five digits
    index = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), axis=-1)
    points = torch.from_numpy(index @ matrix[:ndim, :ndim].T + matrix[:ndim, ndim]).float()
    limit = torch.tensor(image.shape[1:], dtype=torch.float32)
    inside = ((points >= -0.5) & (points <= limit - 0.5)).all(dim=-1)  # a voxel is a cell
    grid = (points * (2 / (limit - 1).clamp(min=1)) - 1).flip(-1)
    voxels = F.grid_sample(image[None], grid[None], mode, "border", align_corners=True)[0]
    return torch.where(inside, voxels, fill), bool(inside.any())


def content_box(image: Tensor, margin_mm: float | None, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last voxel of an image (C, *S), or of what is above its minimum with a margin around it."""
    last = np.array(image.shape[1:]) - 1
    if margin_mm is None:
        return np.zeros_like(last), last
    found = np.argwhere((image > image.min()).any(dim=0).cpu().numpy())
    if not len(found):
        return np.zeros_like(last), last
    margin = np.ceil(margin_mm / np.linalg.norm(affine[:-1, :-1], axis=0)).astype(int)
    return np.maximum(found.min(axis=0) - margin, 0), np.minimum(found.max(axis=0) + margin, last)


def usable_affine(image: Tensor, key: Hashable) -> np.ndarray:
    """float64 (N + 1, N + 1) affine of a MetaTensor (C, *S), or RegInputError."""
    if not isinstance(image, MetaTensor):
        raise RegInputError(f"{key} is a {type(image).__name__} without geometry, expected what LoadImaged returns.")
    affine = np.asarray(to_affine_nd(image.ndim - 1, np.asarray(image.affine, dtype=np.float64)))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:-1, :-1])) < 1e-9:
        raise RegInputError(
            f"{source_name(image, key)} has the affine {affine.tolist()}, expected finite numbers and voxels of some "
            "volume (a 2-D image must lie in the axial plane); mend its header."
        )
    return affine


def homogeneous(matrix: object, ndim: int) -> np.ndarray:
    """``initial`` as float64 (N + 1, N + 1); the identity for None."""
    if matrix is None:
        return np.eye(ndim + 1)
    try:
        array = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    last_row = np.eye(ndim + 1)[-1]
    if array.shape != (ndim + 1, ndim + 1) or not np.isfinite(array).all() or not np.allclose(array[-1], last_row):
        raise RegInputError(
            f"initial is {matrix!r}, expected a finite homogeneous {ndim + 1} x {ndim + 1} matrix, "
            "fixed -> moving, RAS mm."
        )
    if abs(np.linalg.det(array)) < 1e-6:
        raise RegInputError(f"initial has the determinant {np.linalg.det(array):g}, expected one that can be inverted.")
    return array


def source_name(image: Tensor, key: Hashable) -> str:
    """The file an image came from, or its key."""
    return str(image.meta.get("filename_or_obj", key)) if isinstance(image, MetaTensor) else str(key)
