"""Batches of pairs that do not have as many landmarks."""

from collections.abc import Sequence

import torch
from monai.data import list_data_collate
from torch import Tensor
from torch.nn import functional as F

__all__ = ["collate_pairs"]


def collate_pairs(batch: Sequence[dict]) -> dict:
    """MONAI's collate function, after landmarks (K, N) are padded with NaN to the longest K of the batch.

    ``common.losses.LandmarkLoss`` leaves such landmarks out.

    Args:
        batch: items of a :class:`common.data.PairDataset`, all with the same keys.
    """
    keys = [key for key in batch[0] if key.endswith("_keypoints")]
    longest = {key: max(len(item[key]) for item in batch) for key in keys}
    return list_data_collate([{**item, **{key: padded(item[key], longest[key]) for key in keys}} for item in batch])


def padded(points: Tensor, length: int) -> Tensor:
    """Points (K, N) and rows of NaN below, (length, N)."""
    return F.pad(points, (0, 0, 0, length - len(points)), value=torch.nan)
