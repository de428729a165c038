"""One server for all tests of this folder: EOIR as the repository has it, and SVF packed."""

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.repository import REPOSITORY

LABELLED, SIZE = 5, (32, 32, 40)
MAX_MIB = 4


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator:
    """The running server; the study phantom_005 waits for a label, whose truth is in ``root/truth``.

    ``root`` lies in a folder of its own, so that what a path with ``..`` in it reaches can be looked at.
    """
    pytest.importorskip("monailabel", reason="MONAI Label is in the environment of `make test-label`")
    from .live import Server

    root = tmp_path_factory.mktemp("outer") / "root"
    root.mkdir()
    write_studies(root)
    running = Server(root, [development_bundle(root), packed_bundle(root)], ("--max-upload-mib", str(MAX_MIB)))
    running.start()
    yield running
    running.stop()


def write_studies(root: Path) -> None:
    """Studies and truth, as in the demonstration."""
    from tools.monai_label.demonstration import write_demonstration

    studies = write_demonstration(root / "demonstration", LABELLED, 1, SIZE)
    for folder in (studies, studies.with_name("truth")):
        folder.rename(root / folder.name)


def development_bundle(root: Path) -> Path:
    """A copy of EOIR without ``common``, which the repository has, with the weights of a new network."""
    import torch

    from common.checkpoint import save_checkpoint

    folder = root / "bundles" / "eoir"
    shutil.copytree(REPOSITORY / "bundles" / "eoir", folder, ignore=shutil.ignore_patterns("eval", "models", "docs"))
    from monai.bundle import ConfigParser

    torch.manual_seed(0)
    parser = ConfigParser({"network_def": {"_target_": "eoir_bundle.network.EOIR", "channels": 8}})
    save_checkpoint(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")
    return folder


def packed_bundle(root: Path) -> Path:
    """SVF as a person downloads it."""
    from tools.pack import pack

    with zipfile.ZipFile(pack("svf", root / "dist")) as archive:
        archive.extractall(root / "packed")
    return root / "packed" / "svf"
