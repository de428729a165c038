"""A bundle's inference in this process: its reading, intensities and network, without what it writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from common.geometry import spatial_affine, total_displacement_mm

from ..repository import REPOSITORY

__all__ = ["BundleInProcess", "Fields"]


class Fields(NamedTuple):
    """A registration on the fixed image's own grid, (1, N, *S) in RAS mm."""

    own: Tensor
    """What the bundle found, without the initial alignment."""
    total: Tensor
    """The whole way from the fixed to the moving world."""


class BundleInProcess:
    """Registers pairs of files as ``configs/inference.json`` does, on the CPU.

    Args:
        name: folder under ``bundles``.
        overlays: names of configs over inference.json.
        overrides: values by id.
    """

    def __init__(self, name: str, overlays: Sequence[str] = (), overrides: dict | None = None) -> None:
        configs = REPOSITORY / "bundles" / name / "configs"
        parser = ConfigParser()
        parser.read_config([str(configs / f"{file}.json") for file in ("inference", *overlays)])
        parser.update({"device": "cpu", **(overrides or {})})
        self.prepare = parser.get_parsed_content("preprocessing")
        self.network = parser.get_parsed_content("network_def")

    def __call__(self, fixed: Path, moving: Path, initial: np.ndarray | None = None) -> Fields:
        """Register two NIfTI files.

        Args:
            fixed: path of the fixed image.
            moving: path of the moving image.
            initial: (4, 4) fixed world to moving world, RAS mm; the identity by default.
        """
        item = {"fixed": str(fixed), "moving": str(moving)}
        item = self.prepare(item if initial is None else {**item, "initial": initial})
        with torch.no_grad():
            ddf = self.network(item["image"].as_tensor()[None])
        header = nib.load(fixed)
        affine, size = spatial_affine(header.affine, ddf.shape[1]), tuple(int(n) for n in header.shape[: ddf.shape[1]])
        own = total_displacement_mm(ddf, item["network_affine"], affine, size)
        if initial is None:
            return Fields(own, own)
        return Fields(own, total_displacement_mm(ddf, item["network_affine"], affine, size, initial))
