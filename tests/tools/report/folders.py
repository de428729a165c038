"""Folders as registrations leave them, for the tests of the page over many pairs."""

import json
from pathlib import Path

from PIL import Image

__all__ = ["write_pair", "write_picture"]


def write_pair(folder: Path, metrics: str = "metrics.json", files: tuple[str, ...] = (), **content) -> Path:
    """A folder with scores, and empty files or small pictures beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"fixed": "fixed.nii.gz", "moving": "moving.nii.gz"} | content
    (folder / metrics).write_text(json.dumps(named))
    for file in files:
        if file.endswith((".jpg", ".png")):
            write_picture(folder / file)
        else:
            (folder / file).write_text("<!DOCTYPE html><title>report</title>")
    return folder


def write_picture(path: Path) -> None:
    """A gray picture."""
    Image.new("L", (48, 16), 128).save(path)
