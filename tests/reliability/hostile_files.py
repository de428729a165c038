"""Files that make a folder where somebody unpickles them, in every wrapping that our readers might be handed."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from common.checkpoint import sealed

__all__ = ["PICKLES", "WEIGHTS", "Canary", "write_archive", "write_npz"]


class Canary:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)


def torch_file(content: object, new: bool = True) -> bytes:
    """What ``torch.save`` writes, as a zip archive or as it was before torch 1.6."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


def scripted(canary: Canary) -> bytes:
    """A TorchScript archive, which is code, with a pickle of ours among its own."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= {name: pickle.dumps(canary, 2) for name in members if name.endswith("data.pkl")}
    return write_archive(members)


def write_archive(members: dict[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def write_npz(canary: Canary) -> bytes:
    """An archive of numpy's with an array of objects under every name that is looked for."""
    buffer = io.BytesIO()
    objects = np.array([canary], dtype=object)
    np.savez(buffer, arr_0=objects, ddf=objects)
    return buffer.getvalue()


PICKLES: dict[str, Callable[[Canary], bytes]] = {
    f"pickle of protocol {protocol}": lambda canary, protocol=protocol: pickle.dumps(canary, protocol)
    for protocol in (0, 2, 4, 5)
}
WEIGHTS: dict[str, Callable[[Canary], bytes]] = {
    **PICKLES,
    "torch's archive": torch_file,
    "torch's archive, among weights": lambda canary: torch_file({"weight": torch.ones(2), "more": canary}),
    "torch's archive, sealed": lambda canary: sealed(torch_file(canary)),
    "torch's older file": lambda canary: torch_file(canary, new=False),
    "TorchScript": scripted,
    "npz": write_npz,
}
