"""What a network weighs and costs when it leaves torch: megabytes, seconds, and how far it is from torch.

Question: is an exported network as fast as torch on the same pair, and which of them take any size? Each row is a
process of its own. Weights are the first ones, drawn anew where they would answer 0: neither bytes nor seconds depend
on what they were trained to.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from common.errors import RegInputError

from ..bundle_import import importable
from ..export import FORMATS, check_request, example_image, network_of, written
from ..pack import is_untrained, names_of
from ..register import bundle_folder
from ..verify import liven
from .measuring import apart, file_name, stack_of, write

__all__ = ["benchmark_exports"]

RUNTIMES = {"onnx": "onnxruntime", "torchscript": "torch"}


def benchmark_exports(
    out: Path,
    bundles: Sequence[str] | None = None,
    forms: Sequence[str] = tuple(FORMATS),
    size: Sequence[int] | None = None,
    *,
    threads: int = 2,
    command: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Export bundles, each beside torch on one pair; the files themselves are not kept.

    Args:
        out: folder for ``export-cpu-<stack>.csv``.
        bundles: names under ``bundles``, or folders; default all that have a network to export.
        forms: of :data:`tools.export.FORMATS`.
        size: of the pair; default twice the least that a bundle's metadata name.
        threads: of torch and of onnxruntime.
        command: what to write in the ``command`` column.
        say: is handed a line for each row.

    Returns:
        Path of the csv.

    Raises:
        RegInputError: if there is no such bundle or form, or a bundle has nothing to export.
        RegEnvError: if ``onnx``, ``onnxscript`` or ``onnxruntime`` is not installed.
        RegNumericsError: if an exported network differs from torch by more than 1e-4 voxel.
    """
    roots = [bundle_folder(name) for name in bundles or names_of("all")]
    roots = [root for root in roots if bundles or not is_untrained(root)]
    if not roots or not forms:
        raise RegInputError("no bundle or no form was named, expected one of each; name them or leave the flags out.")
    for root in roots:
        for form in forms:
            check_request(root, metadata_of(root), form, size)
    rows = []
    for root in roots:
        for form in forms:
            found = apart(measure, str(root), form, size, threads)
            rows.append({"bundle": root.name, "format": form, **found, "command": command})
            say(f"{root.name}, {form}: {found['megabytes']} MB, exported in {found['export_s']} s")
    return write(Path(out) / file_name("export", "cpu", threads), rows)


def measure(folder: str, form: str, size: Sequence[int] | None, threads: int) -> dict[str, float | int | str]:
    """One export; alters the process's settings."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    root = Path(folder)
    image = example_image(metadata_of(root), size)
    with tempfile.TemporaryDirectory() as work, importable(root):
        network, weights = network_of(root, None), Path(work) / "model.pt"
        liven(network, image)
        torch.save(network.state_dict(), weights)
        found = written(form, root, weights, network, image, Path(work) / f"network{FORMATS[form]}")
    pair = found.agreements[0]
    return {
        "megabytes": round(found.megabytes, 3),
        "sizes": "any" if found.any_size else "one",
        "export_s": round(found.seconds, 1),
        "torch_s": round(pair.torch_seconds, 3),
        "exported_s": round(pair.seconds, 3),
        "largest_difference_voxels": f"{max(one.difference for one in found.agreements):.1e}",
        "largest_displacement_voxels": round(pair.largest, 2),
        "runtime": f"{RUNTIMES[form]} {version(RUNTIMES[form])}",
        **stack_of(pair.size, "cpu", threads),
    }


def metadata_of(root: Path) -> dict:
    """What a bundle's metadata.json holds."""
    return json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
