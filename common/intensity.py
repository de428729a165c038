"""Intensities for a network or a similarity: percentiles of MR, a window of Hounsfield units for CT; which is which.

A window of one's own is MONAI's ``ScaleIntensityRanged``: for lungs a_min -1000, a_max 500, b_min 0, b_max 1, clip.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.transforms import MapTransform
from monai.transforms.utils_pytorch_numpy_unification import percentile
from torch import Tensor

from .errors import RegInputError
from .transforms import source_name

__all__ = ["CheckHounsfieldd", "NormalizeIntensityd", "check_hounsfield", "modality_of", "similarity_for"]

logger = logging.getLogger(__name__)

AIR_BELOW = -500.0  # HU; in the lungs, in the bowel and around the patient
AIR_SHARE = 0.05  # of the voxels at least; 0.39 and 0.43 in two chest scans of one lung each
TISSUE = (-200.0, 1000.0)  # HU; fat to dense bone
TISSUE_SHARE = 0.01  # low, since everything but the lungs may be masked away
FAT_BELOW = -50.0  # HU; inside the body there may be no air, but there is fat,
BODY_SHARE = 0.8  # and most voxels are within TISSUE
DENSE_SHARE = 0.1  # teeth and metal are far less; phase images are spread evenly
MUSCLE = 50.0  # HU
CT_RANGE = (-5000.0, 35000.0)  # HU; -2000 and -3024 pad the field of view, metal reaches 30000 in extended scales
CT_WINDOW = (-1000.0, 1000.0)  # HU; from air to cortical bone; what is below is padding, what is above is metal
CT_OFFSET = 1024.0  # of scans that are stored without negative numbers


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


class NormalizeIntensityd(MapTransform):
    """Scale each image to [0, 1] as its modality asks for; one line of the log says which was taken.

    * MR, and whatever is no CT: two percentiles become 0 and 1, clipped, as ``ScaleIntensityRangePercentilesd`` does.
    * CT: -1000 to 1000 Hounsfield units become 0 to 1, clipped. The same number then is the same tissue in both scans
      of a pair, however much air or table they show. Scans without negative numbers are taken to be offset by 1024.

    The item gains ``<key>_modality``, "mr" or "ct", which :func:`similarity_for` reads.

    Args:
        keys: of the images, (C, *S).
        modality: "mr", "ct", or "auto", by each image's own values (:func:`modality_of`).
        percentiles: of an MR image's voxels.
        masks: whether the percentiles are those of the voxels above 0 of the loaded ``<key>_mask``, so that what lies
            outside the organ (table, air, contrast agent) has no say.
        allow_missing_keys: as in MONAI.

    Raises:
        RegInputError: if the modality is unknown, percentiles are not in order, a mask is empty or of another size, or
            an image is flat between its percentiles.
    """

    def __init__(
        self,
        keys: str | Sequence[str],
        modality: str = "auto",
        percentiles: Sequence[float] = (0.0, 99.9),
        masks: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if modality not in ("auto", "mr", "ct"):
            raise RegInputError(f"modality is '{modality}', expected auto, mr or ct.")
        lower, upper = percentiles
        if not 0 <= lower < upper <= 100:
            raise RegInputError(
                f"the percentiles are {lower:g} and {upper:g}, expected 0 <= lower < upper <= 100; set them."
            )
        self.modality = modality
        self.percentiles = (float(lower), float(upper))
        self.masks = masks

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Scale every key."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = torch.as_tensor(item[key]).float()
            modality = modality_of(np.asarray(image)) if self.modality == "auto" else self.modality
            values = counted(image, item.get(f"{key}_mask") if self.masks else None, key)
            low, high = ct_window(values) if modality == "ct" else self._percentiles_of(values, source_name(image, key))
            told = "taken for" if self.modality == "auto" else "given as"
            logger.info("%s is %s %s: %g to %g become 0 to 1.", source_name(image, key), told, modality, low, high)
            item[key] = ((image - low) / (high - low)).clamp(0, 1)
            item[f"{key}_modality"] = modality
        return item

    def _percentiles_of(self, values: Tensor, name: str) -> tuple[float, float]:
        low, high = (float(percentile(values, q)) for q in self.percentiles)  # as MONAI has them, to the last bit
        if not low < high:
            raise RegInputError(
                f"{name} is {low:g} at both percentiles {self.percentiles}, expected an image with contrast; check it "
                "and its mask."
            )
        return low, high


def modality_of(voxels: np.ndarray) -> str:
    """ "ct" if an array can hardly be anything but CT in Hounsfield units, else "mr".

    CT has air below -500 and soft tissue, or, cropped to the inside of the body, fat below -50 and mostly soft tissue.
    MR is not negative; after standardizing it is, by a few units. CT stored without negative numbers cannot be told
    from MR and is "mr" here, which costs little: its percentiles are near the window.
    """
    low, high = float(voxels.min()), float(voxels.max())
    if not CT_RANGE[0] <= low < FAT_BELOW or not MUSCLE <= high <= CT_RANGE[1]:
        return "mr"
    air = float((voxels < AIR_BELOW).mean())
    tissue = float(((voxels >= TISSUE[0]) & (voxels <= TISSUE[1])).mean())
    fat = float(((voxels >= TISSUE[0]) & (voxels < FAT_BELOW)).mean())
    dense = float((voxels > TISSUE[1]).mean())
    outside = air >= AIR_SHARE and tissue >= TISSUE_SHARE and dense <= DENSE_SHARE
    inside = fat >= TISSUE_SHARE and tissue >= BODY_SHARE
    return "ct" if outside or inside else "mr"


def similarity_for(modalities: Sequence[str]) -> str:
    """ "lncc" for images of one modality, "mind" across: the names are those of ``common.similarity``.

    MR of two contrasts counts as one modality here; say ``--similarity mind`` for those.
    """
    return "lncc" if len(set(modalities)) <= 1 else "mind"


def ct_window(values: Tensor) -> tuple[float, float]:
    """The window in the units in which a CT scan is stored."""
    offset = CT_OFFSET if float(values.min()) >= 0 else 0.0
    return CT_WINDOW[0] + offset, CT_WINDOW[1] + offset


def counted(image: Tensor, mask: object, key: Hashable) -> Tensor:
    """The values of an image (C, *S) where its mask is above 0; all of them without one."""
    if not isinstance(mask, Tensor):
        return image
    if mask.shape[1:] != image.shape[1:]:
        raise RegInputError(
            f"{key}_mask has {list(mask.shape[1:])} voxels and {source_name(image, key)} {list(image.shape[1:])}, "
            "expected as many; give a mask on the image's grid."
        )
    values = image.as_subclass(Tensor)[(mask.as_subclass(Tensor) > 0).expand(image.shape)]
    if not values.numel():
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
