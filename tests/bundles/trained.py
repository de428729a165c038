"""Running the bundles whose networks are trained, for their tests."""

from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow
from torch import Tensor

from common.spatial import identity_grid
from tests.bundles.pairwise import BUNDLES

NETWORKS = {
    "lku_net": {"channels": 4},
    "patch_fcn": {"channels": [2, 4, 4], "patch_size": 16, "core_size": 8, "patches": 2, "stages_in_use": 1},
    "symnet": {"channels": 2, "integrate_steps": 3},
    "transmorph": {"variant": "tiny"},
    "voxelmorph": {"encoder": [4, 8], "decoder": [8, 8, 4]},
}
"""Overrides by bundle that make a network small, where it is not by default."""
OWN_TESTS = {"eoir"}  # its test_configs.py and test_training.py run it
STEPS = {"max_epochs": 1, "steps_per_epoch": 2, "batch_size": 1, "val_interval": 1, "kernel_size": 5}
"""Overrides that leave two steps."""


def trained_bundles() -> list[str]:
    """The bundles whose inference asks for weights, by name: a new one is among them as soon as its folder is there."""
    asking = (path for path in BUNDLES.glob("*/configs/inference.json") if '"ckpt_path"' in path.read_text())
    return sorted({path.parents[1].name for path in asking} - OWN_TESTS)


def run(bundle: Path, dataset: Path, *files: str, kind: str = "train", **overrides) -> ConfigWorkflow:
    """Run some of a copy's configs, a small network in few steps, and return the finished workflow."""
    settings = {"bundle_root": str(bundle), "dataset_dir": str(dataset), "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(
        [str(bundle / "configs" / f"{name}.json") for name in files],
        workflow_type=kind,
        meta_file=str(bundle / "configs" / "metadata.json"),
        **settings | NETWORKS.get(bundle.name, {}) | (STEPS if kind == "train" else {}) | overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def ids(config: object, prefix: str = "") -> dict[str, object]:
    """Every leaf of a config by its `::` id."""
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else None
    if items is None:
        return {prefix: config}
    return {k: v for key, value in items for k, v in ids(value, f"{prefix}::{key}" if prefix else str(key)).items()}


def overlays(name: str) -> list[str]:
    """The names of a bundle's configs that change its train.json."""
    own = {"metadata", "train", "inference"}
    return sorted(path.stem for path in (BUNDLES / name / "configs").glob("*.json") if path.stem not in own)


def smooth_pair(*size: int) -> Tensor:
    """Two different images (1, 2, *size) that are smooth, and so is what a network makes of them."""
    x = identity_grid(list(size), torch.zeros(1)) / 8
    return torch.cat([x.sin().mean(dim=1, keepdim=True), x.cos().mean(dim=1, keepdim=True)], dim=1)
