"""The networks that benchmarks compare, each as its bundle's ``train.json`` makes it: network, loss, optimizer."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from common.errors import RegInputError

from ..repository import REPOSITORY
from .measuring import check_device

__all__ = ["FAST_LNCC", "VARIANTS", "TrainingParts", "Variant", "check_request", "training_parts", "variants_named"]


class Variant(NamedTuple):
    """A bundle and what makes it one of its published networks."""

    bundle: str
    settings: Mapping[str, Any]
    """Values of its configurations, by id."""


VOXELMORPH_1 = {"encoder": [8, 32, 32, 32], "decoder": [32, 32, 32, 32, 32, 8, 8]}
PATCH_LIGHT = {"channels": [8, 16, 32, 64, 128]}
PATCH_SMALL = {
    **PATCH_LIGHT,
    "patch_size": 48,
    "core_size": 32,
    "batch_size": 2,
    "patches": 2,
    "alphas": [0.0044, 0.0022, 0.00044],  # of 96 mm at 2 mm a voxel: the paper's on its 64 mm, in square mm
}
PATCH_PAPER = {"patch_size": 64, "core_size": 32, "patches": 16, "alphas": [0.01, 0.005, 0.001]}
VARIANTS = {
    "VoxelMorph-1": Variant("voxelmorph", VOXELMORPH_1),
    "VoxelMorph-1 diffeomorphic": Variant(
        "voxelmorph", {**VOXELMORPH_1, "integrate_steps": 7, "half_resolution": True}
    ),
    "VoxelMorph-2": Variant("voxelmorph", {"encoder": [16, 32, 32, 32], "decoder": [32, 32, 32, 32, 32, 16, 16]}),
    "LKU-Net 8,5": Variant("lku_net", {"channels": 8}),
    "LKU-Net 16,5": Variant("lku_net", {"channels": 16}),
    "TransMorph": Variant("transmorph", {"variant": "base"}),
    "SYMNet": Variant("symnet", {"channels": 7}),
    "EOIR 8": Variant("eoir", {"channels": 8}),
    "EOIR 32": Variant("eoir", {"channels": 32}),
    "Patch FCN small": Variant("patch_fcn", PATCH_SMALL),
    "Patch FCN small, gradient norm": Variant(
        "patch_fcn", {**PATCH_SMALL, "regularizer": "gradient", "smooth_weight": 1.0}
    ),
    "Patch FCN small, whole volume": Variant(
        "patch_fcn",  # eight times the small one's voxels: alpha in square mm and the weight of a voxel are the same
        {
            **PATCH_SMALL,
            "patch_size": 96,
            "core_size": 96,
            "patches": 1,
            "alphas": [0.0011, 0.00055, 0.00011],
            "smooth_weight": 0.0125,
        },
    ),
    "Patch FCN light": Variant("patch_fcn", {**PATCH_LIGHT, **PATCH_PAPER}),
    "Patch FCN": Variant("patch_fcn", {"channels": [16, 32, 64, 128, 256], **PATCH_PAPER}),
}
FAST_LNCC = ("VoxelMorph-1", "VoxelMorph-2", "LKU-Net 8,5", "LKU-Net 16,5", "TransMorph")
"""The five networks of doi:10.20944/preprints202502.2200.v1, Table 1."""


class TrainingParts(NamedTuple):
    """What one training step needs."""

    network: nn.Module
    view: nn.Module
    """The network as the loss wants it."""
    loss: nn.Module
    optimizer: torch.optim.Optimizer

    def step(self, pair: Mapping[str, Tensor]) -> Tensor:
        """Forward, loss, backward and update on one pair; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        value = self.loss(self.view(torch.cat([pair["moving"], pair["fixed"]], dim=1)), pair)
        value.backward()
        self.optimizer.step()
        return value.detach()


def variants_named(names: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    """Names between semicolons, because they hold commas themselves; the default for None."""
    return tuple(name.strip() for name in names.split(";")) if names else default


def check_request(networks: Iterable[str], runs: int, device: str) -> None:
    """RegInputError before the first minute is spent."""
    check_device(device)
    unknown = [name for name in networks if name not in VARIANTS]
    if runs < 1 or unknown:
        raise RegInputError(
            f"got {runs} runs and the networks {unknown}; expected at least 1 run and some of {'; '.join(VARIANTS)}."
        )


def training_parts(name: str, device: str, **settings: Any) -> TrainingParts:
    """Build a variant by its bundle's ``train.json``.

    Args:
        name: of ``VARIANTS``.
        device: "cpu" or "cuda".
        settings: further values by id, such as ``lncc_backend``.

    Returns:
        The parts, the network on the device with freshly drawn weights.
    """
    variant = VARIANTS[name]
    parser = ConfigParser()
    parser.read_config(str(REPOSITORY / "bundles" / variant.bundle / "configs" / "train.json"))
    header = {"spacing_mm": [1.0, 1.0, 1.0]}  # no data set is read: the loss wants the spacing for landmarks only
    parser.update({"device": f"$torch.device('{device}')", "header": header, **variant.settings, **settings})
    view = parser.get_parsed_content("train::view")
    return TrainingParts(
        parser.get_parsed_content("network"),
        view.train(),
        parser.get_parsed_content("loss"),
        parser.get_parsed_content("optimizer"),
    )
