"""A bundle small enough to be broken in every way, and a ``common`` for it."""

import json
import shutil
from pathlib import Path

NETWORK = '''"""Both images averaged along the channels, three times."""

import torch
from torch import Tensor, nn

from common.spatial import SCALE


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        return self.weight * image.mean(1, keepdim=True).repeat(1, 3, 1, 1, 1)
'''
README = """# Toy

## Description

A toy.

## Training

Nothing learns.

## Limits

It is a toy.

## License

Apache-2.0.
"""
IMAGE = {
    "type": "image",
    "format": "magnitude",
    "num_channels": 2,
    "spatial_shape": ["2*n", "2*n", "2*n"],
    "dtype": "float32",
    "value_range": [0, 1],
}
LABELS = {"type": "image", "format": "labels", "channel_def": {"0": "background", "1": "left half"}}
METADATA = {
    "schema": "https://project-monai.github.io/schema/meta_schema_20240725.json",
    "version": "0.1.0",
    "changelog": {"0.1.0": "first version"},
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"fire": "0.7.1"},
    "task": "registration",
    "description": "a toy",
    "authors": "nobody",
    "copyright": "nobody; Apache-2.0",
    "network_data_format": {
        "inputs": {"image": IMAGE},
        "outputs": {"pred": IMAGE | {"num_channels": 3, "value_range": []}},
        "post_processed_outputs": {"pred": IMAGE | LABELS | {"num_channels": 1}},
    },
}
PROPERTIES = {
    "imports": ["$import os"],
    "bundle_root": "$next((p for p in ('.', 'bundles/toy') if os.path.isdir(os.path.join(p, 'configs'))), '.')",
    "device": "cpu",
    "dataset_dir": "none",
    "network_def": {"_target_": "toy_bundle.network.Net"},
}
TRAIN = PROPERTIES | {
    "train": {"dataset": [1], "inferer": {"_target_": "SimpleInferer"}, "trainer": {"max_epochs": 1}},
    "loss": {"_target_": "common.spatial.Loss"},
}
INFERENCE = PROPERTIES | {"dataset": [1], "evaluator": "none", "inferer": {"_target_": "SimpleInferer"}}


def write_toy(root: Path) -> Path:
    """Write ``bundles/toy`` and ``common`` into ``root``, also what runs leave behind; return the bundle's folder."""
    folder = root / "bundles" / "toy"
    configs = {"metadata": METADATA, "train": TRAIN, "inference": INFERENCE, "evaluate": {"run": []}}
    for name, content in configs.items():
        write(folder / "configs" / f"{name}.json", json.dumps(content))
    texts = {"LICENSE": "Apache License\nVersion 2.0", "large_files.yml": "large_files: []", "docs/README.md": README}
    texts |= {"docs/data_license.txt": "The bundle ships no weights and no scans."}
    texts |= {"configs/logging.conf": "", "toy_bundle/__init__.py": "", "toy_bundle/network.py": NETWORK}
    left_behind = ["models/model.pt", "models/last.pt", "eval/metrics.csv", "configs/monailabel_train.json", ".cache/x"]
    left_behind += ["toy_bundle/__pycache__/network.cpython-311.pyc"]
    for path, text in (texts | dict.fromkeys(left_behind, "written by a run")).items():
        write(folder / path, text)
    write(root / "common" / "__init__.py", "")
    write(root / "common" / "spatial.py", '"""Toy."""\nfrom . import __init__\nSCALE = 1\n')
    write(root / "common" / "__pycache__" / "spatial.cpython-311.pyc", "byte code")
    return folder


def write(path: Path, text: str) -> None:
    """Write a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def edit_json(path: Path, **changes: object) -> None:
    """Replace top-level entries of a JSON file; ``...`` takes one out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def renamed_bundle(source: Path, target: Path) -> Path:
    """A copy of a bundle under the name of ``target``, its package and what names it renamed alike."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("eval", "models", "__pycache__"))
    (target / f"{source.name}_bundle").rename(target / f"{target.name}_bundle")
    for path in [*target.rglob("*.py"), *target.rglob("*.json")]:
        text = path.read_text().replace(f"{source.name}_bundle", f"{target.name}_bundle")
        path.write_text(text.replace(f"bundles/{source.name}", f"bundles/{target.name}"))
    return target
