"""NIfTI, JSON and csv files that appear whole or not at all, and hold the same bytes when they are written again."""

import csv
import gzip
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.files import save_atomically

__all__ = ["remove_leftovers", "save_csv", "save_json", "save_nifti", "save_text", "sha256"]

CHUNK = 1 << 20


def save_text(text: str, path: Path) -> None:
    """Write ``text`` as UTF-8 with line feeds."""
    save_atomically(lambda temporary: temporary.write_bytes(text.encode()), path)


def save_json(content: Any, path: Path) -> None:
    """Write ``content`` as indented JSON with a final newline; NaN is refused, since JSON has none."""
    save_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", path)


def save_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows under the column names of all of them, in order of appearance; what a row lacks is left empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    save_text(text.getvalue(), path)


def save_nifti(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a ``.nii.gz`` in mm with sform and qform; its gzip header carries no name and no time."""
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=2)  # 2: aligned to another scan
    image.set_qform(affine, code=2)

    def write(temporary: Path) -> None:
        with (
            open(temporary, "wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as stream,
        ):
            stream.write(image.to_bytes())

    save_atomically(write, path)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes left below ``folder``; those of living ones stay."""
    for path in folder.rglob(".*.*"):
        owner = path.name.split(".")[1]
        if owner.isdecimal() and not is_running(int(owner)):
            path.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process with this number exists."""
    try:
        os.kill(process, 0)  # signal 0 asks and does nothing
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
