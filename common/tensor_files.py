"""Weights in the form of safetensors, which holds tensors and nothing that could run.

The format does not notice a flipped bit, so the values' SHA-256 is written into the header's metadata and looked at
when one of these files is read; other programs pass over it. Format: https://github.com/huggingface/safetensors.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import RegEnvError, RegInputError, first_line

__all__ = ["SAFETENSORS", "MissingSafetensorsError", "from_safetensors", "to_safetensors"]

SAFETENSORS = ".safetensors"
"""The suffix by which the form is known."""
LENGTH_BYTES = 8  # the header's length, little-endian, is what a file begins with


class MissingSafetensorsError(RegEnvError):
    """The package safetensors is not installed."""


def to_safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """A state dict as a file's content; equal weights give equal bytes.

    Args:
        weights: by name, on any device, in any memory format.

    Raises:
        RegInputError: if an entry is no tensor.
        MissingSafetensorsError: if the package is not installed.
    """
    odd = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        kind = type(weights[odd]).__name__
        raise RegInputError(f"'{odd}' is of type {kind}, expected tensors alone; save a state dict.")
    save = require_safetensors().save
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    digest = hashlib.sha256(values_in(save(copies))).hexdigest()
    return save(copies, {"sha256": digest})  # one entry: the library writes several in any order


def from_safetensors(data: bytes, path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The state dict that :func:`to_safetensors` or another program wrote.

    Args:
        data: content of the file.
        path: of the file, for messages.
        device: where the tensors go.

    Raises:
        RegInputError: if this is no such file, or its values are not those that it carries the hash of.
        MissingSafetensorsError: if the package is not installed.
    """
    load = require_safetensors().load
    try:
        weights = load(data)
        metadata = json.loads(data[LENGTH_BYTES : header_end(data)]).get("__metadata__", {})
    except Exception as error:  # whatever the parser says of bytes of any kind
        raise RegInputError(f"{path} is no safetensors file ({first_line(error)}); copy it again.") from error
    if "sha256" in metadata and metadata["sha256"] != hashlib.sha256(values_in(data)).hexdigest():
        raise RegInputError(f"{path} is damaged: its values do not have the hash that it carries; use another one.")
    return {name: value.to(device) for name, value in weights.items()}


def header_end(data: bytes) -> int:
    """Where the values begin."""
    return LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")


def values_in(data: bytes) -> bytes:
    """The bytes of all tensors."""
    return data[header_end(data) :]


def require_safetensors() -> Any:
    """``safetensors.torch``, which torch's own form does not need."""
    try:
        import safetensors.torch
    except ImportError as error:
        raise MissingSafetensorsError(
            "the package safetensors is missing, which weights of that form need; install it, or name model.pt."
        ) from error
    return safetensors.torch
