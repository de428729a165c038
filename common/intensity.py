"""Intensities that mean something: Hounsfield units of CT, and percentiles inside an organ.

The window itself is MONAI's ``ScaleIntensityRanged``: for lungs a_min -1000, a_max 500, b_min 0, b_max 1, clip.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.transforms import MapTransform
from torch import Tensor

from .errors import RegInputError
from .transforms import source_name

__all__ = ["CheckHounsfieldd", "ScaleMaskPercentilesd", "check_hounsfield"]

AIR_BELOW = -500.0  # HU; in the lungs, in the bowel and around the patient
AIR_SHARE = 0.05  # of the voxels at least; 0.39 and 0.43 in two chest scans of one lung each
TISSUE = (-200.0, 1000.0)  # HU; fat to dense bone
TISSUE_SHARE = 0.01  # low, since everything but the lungs may be masked away


class CheckHounsfieldd(MapTransform):
    """Refuse images that are not in Hounsfield units, so that a window in HU is not laid over something else.

    Args:
        keys: of the images, (C, *S).
        allow_missing_keys: as in MONAI.

    Raises:
        RegInputError: see :func:`check_hounsfield`.
    """

    def __init__(self, keys: str | Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """The item as it is."""
        for key in self.key_iterator(data):
            check_hounsfield(np.asarray(data[key]), source_name(data[key], key))
        return dict(data)


class ScaleMaskPercentilesd(MapTransform):
    """Scale each image so that two percentiles of the voxels in its mask become 0 and 1, clipped to [0, 1].

    What lies outside the organ (table, air, contrast agent) then has no say in the scale. An image without a loaded
    mask is scaled by all its voxels.

    Args:
        keys: of the images; the mask of one is under its key with ``_mask``, on the same grid, above 0 inside.
        lower: percentile that becomes 0.
        upper: percentile that becomes 1.
        allow_missing_keys: as in MONAI.

    Raises:
        RegInputError: if the percentiles are not in order, a mask is empty or of another size, or an image is flat
            between its percentiles.
    """

    def __init__(
        self, keys: str | Sequence[str], lower: float = 0.5, upper: float = 99.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 <= lower < upper <= 100:
            raise RegInputError(
                f"the percentiles are {lower:g} and {upper:g}, expected 0 <= lower < upper <= 100; set them."
            )
        self.percentiles = (lower, upper)

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Scale every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = torch.as_tensor(item[key]).float()
            values = counted(image, item.get(f"{key}_mask"), key)
            low, high = map(float, np.percentile(values, self.percentiles))
            if not low < high:
                raise RegInputError(
                    f"{source_name(image, key)} is {low:g} at both percentiles {self.percentiles}, expected an image "
                    "with contrast; check it and its mask."
                )
            item[key] = ((image - low) / (high - low)).clamp(0, 1)
        return item


def counted(image: Tensor, mask: object, key: Hashable) -> np.ndarray:
    """The values of an image (C, *S) where its mask is above 0; all of them without one."""
    if not isinstance(mask, Tensor):
        return np.asarray(image)
    if mask.shape[1:] != image.shape[1:]:
        raise RegInputError(
            f"{key}_mask has {list(mask.shape[1:])} voxels and {source_name(image, key)} {list(image.shape[1:])}, "
            "expected as many; give a mask on the image's grid."
        )
    values = np.asarray(image)[np.broadcast_to(np.asarray(mask) > 0, image.shape)]
    if not values.size:
        raise RegInputError(f"{key}_mask has no voxel above 0, expected an organ; give another mask.")
    return values


def check_hounsfield(voxels: np.ndarray, name: str) -> None:
    """Raise RegInputError unless an array could be a CT scan in Hounsfield units: it has air and soft tissue.

    Scans stored with another offset or scale, as 8 bit or in [0, 1], and other modalities do not have both.
    """
    air = float((voxels < AIR_BELOW).mean())
    tissue = float(((voxels >= TISSUE[0]) & (voxels <= TISSUE[1])).mean())
    if air < AIR_SHARE or tissue < TISSUE_SHARE:
        raise RegInputError(
            f"{name} has {air:.1%} of its voxels below {AIR_BELOW:g} and {tissue:.1%} from {TISSUE[0]:g} to "
            f"{TISSUE[1]:g}, expected at least {AIR_SHARE:.0%} and {TISSUE_SHARE:.0%} as in CT in Hounsfield units; "
            "convert it, or scale it by percentiles."
        )


class NormalizeIntensityd(MapTransform):
    """TO BE REPLACED: stands in until the real one is there."""

    def __init__(self, keys, modality="auto", percentiles=(0.0, 99.9)) -> None:
        super().__init__(keys)
        from monai.transforms import ScaleIntensityRangePercentilesd

        self.scale = ScaleIntensityRangePercentilesd(keys, *percentiles, 0.0, 1.0, clip=True)

    def __call__(self, data):
        return self.scale(data)


def modality_of(voxels):
    return "ct" if voxels.min() < -500 else "mr"


def similarity_for(kinds):
    return "lncc" if kinds[0] == kinds[1] else "mind"
