"""What a result was made by: the bundle, the settings that a person chose, the versions of the software."""

import json
import platform
from pathlib import Path, PurePath

import monai
import numpy as np
import torch

from . import __version__

__all__ = ["settings_of", "versions"]


def settings_of(bundle_root: str, **chosen: object) -> dict:
    """Settings for ``metrics.json`` and the report.

    Args:
        bundle_root: the bundle's folder: its package there is called by its name, ``configs/metadata.json`` has its
            version.
        chosen: settings by name. Of a path only the last name is told: where a person keeps files is nobody's business.

    Returns:
        {"bundle", "bundle_version", settings..., "versions"}.
    """
    metadata = json.loads(Path(bundle_root, "configs", "metadata.json").read_text())
    package = next(Path(bundle_root).glob("*_bundle"), Path(bundle_root).resolve()).name
    told = {name: plain(value) for name, value in chosen.items()}
    bundle = {"bundle": package.removesuffix("_bundle"), "bundle_version": metadata["version"]}
    return {**bundle, **told, "versions": versions()}


def versions() -> dict[str, str]:
    """Of the software of this process."""
    return {
        "common": __version__,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def plain(value: object) -> object:
    """A setting as JSON takes it."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    text = str(value)
    return PurePath(text).name if "/" in text or "\\" in text else text
