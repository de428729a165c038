"""Bundles as inference.json runs them on two files, with untrained networks that nevertheless move what they see."""

import json
from pathlib import Path

import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn

from common.datalist import GRID_NAME
from tests.bundles.pairwise import BUNDLES, SHORT
from tests.bundles.trained import NETWORKS, smooth_pair

__all__ = ["GRID", "SETTINGS", "TRAINED", "register", "restless", "save_weights"]

TRAINED = {**NETWORKS, "eoir": {"channels": 4}}
SETTINGS = TRAINED | SHORT | {"ncf": SHORT["ncf"] | {"half_resolution_steps": 0}}
"""Overrides by bundle that make it small and quick, on images of 18 voxels a side."""
GRID = {"name": "blobs", "orientation": "LIA", "spacing_mm": [2.0, 2.0, 2.0]}
"""What the networks claim to have been trained on; no scan here has this orientation."""
QUICK = {"affine": "none", "inverse": False, "picture": False, "report": False, "check_starts": 0, "progress": False}


def register(bundle: str, fixed: Path, moving: Path, out: Path, **ids: object) -> Path:
    """Two files through a bundle's inference.json; the folder of the results."""
    root = BUNDLES / bundle
    files = {"fixed": str(fixed), "moving": str(moving), "output_dir": str(out), "own_folder": True}
    own = {"bundle_root": str(root), "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(
        str(root / "configs" / "inference.json"),
        workflow_type="infer",
        **own,
        **QUICK,
        **SETTINGS[bundle] | files | ids,
    )
    workflow.initialize()
    workflow.run()
    return out


def save_weights(bundle: str, folder: Path, seed: int = 0) -> Path:
    """``model.pt`` of a restless network of this bundle and ``grid.json`` beside it."""
    path = folder / "model.pt"
    torch.save(restless(bundle, seed).state_dict(), path)
    (folder / GRID_NAME).write_text(json.dumps(GRID))
    return path


def restless(bundle: str, seed: int = 0) -> nn.Module:
    """A bundle's small network, untrained, that moves smooth images by about a voxel.

    Networks start at the identity: their last layers are zero or close to it. Those layers are drawn as any other one,
    and made smaller or larger.
    """
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / bundle / "configs" / "inference.json"))
    parser.update({"bundle_root": str(BUNDLES / bundle)} | TRAINED[bundle])
    torch.manual_seed(seed)
    network = parser.get_parsed_content("network_def")
    last = [weight for weight in network.parameters() if weight.ndim > 1 and weight.std() < 1e-3]
    for weight in last:
        nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    with torch.no_grad():
        moved = network(smooth_pair(16, 16, 16)).square().mean().sqrt()
        for weight in last:
            weight.div_(moved)
    return network
