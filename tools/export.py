"""A bundle's network for programs that have neither this collection nor MONAI: as ONNX, or as TorchScript.

What is written takes ``image`` (B, 2, *S), channel 0 moving and 1 fixed, in [0, 1] on the network's grid, and gives
``pred`` (B, 3, *S), the displacement in voxels. It is held against torch, at more than one size, before it is kept.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from monai.bundle import ConfigParser, ckpt_export
from torch import Tensor, nn

from common.errors import RegEnvError, RegInputError, RegNumericsError
from common.files import save_atomically

from .bundle_import import importable
from .pack import UNTRAINED, WEIGHTS
from .register import bundle_folder
from .short_sums import with_short_sums

__all__ = ["FORMATS", "TOLERANCE", "Agreement", "Exported", "example_image", "export", "network_of", "to_onnx"]

FORMATS = {"onnx": ".onnx", "torchscript": ".ts"}
OPSET = 20  # the first whose GridSample takes volumes
TOLERANCE = 1e-4  # voxels between the exported network and torch
OTHER_SIZE = (3, -5, 7)  # voxels that a second size differs by, so that no side fits a stride
LEAST = 16  # voxels along an axis of the pair that is tried
SIDE_FACTOR = 2  # n of "16*n" in the metadata: two coarse voxels along each axis


class Agreement(NamedTuple):
    """How an exported network compares with torch on one pair."""

    size: tuple[int, ...]
    difference: float
    """The largest of any voxel and component, voxels."""
    largest: float
    """The largest displacement of torch's, voxels: close to 0 the difference says little."""
    torch_seconds: float
    seconds: float
    """Of the exported network, as of torch: one pair, after another one."""


class Exported(NamedTuple):
    """A file that :func:`export` wrote."""

    path: Path
    any_size: bool
    """False: it takes the size of the first agreement only."""
    megabytes: float
    seconds: float
    """That the export took."""
    agreements: list[Agreement]


def export(
    bundle: str, form: str, out: Path, weights: Path | None = None, size: Sequence[int] | None = None
) -> Exported:
    """Write ``<name>_v<version>.onnx`` or ``.ts``.

    Args:
        bundle: name under ``bundles``, or the folder of a downloaded one.
        form: "onnx" or "torchscript".
        out: folder for the file; made when needed.
        weights: default the bundle's ``models/model.pt``.
        size: voxels along each axis of the pair that it is tried on, and the only size that it takes where the exporter
            cannot keep sizes open; default twice the least that the metadata name.

    Raises:
        RegInputError: if there is no such bundle, form or file of weights, or nothing to export.
        RegEnvError: if ``onnx``, ``onnxscript`` or ``onnxruntime`` is not installed.
        RegNumericsError: if what was exported differs from torch by more than ``TOLERANCE``; nothing is kept.
    """
    root = bundle_folder(bundle)
    metadata = json.loads((root / "configs" / "metadata.json").read_text(encoding="utf-8"))
    check_request(root, metadata, form, size)
    weights = root / WEIGHTS if weights is None else weights
    image = example_image(metadata, size)
    with importable(root):
        network = network_of(root, weights)
        target = Path(out) / f"{root.name}_v{metadata['version']}{FORMATS[form]}"
        found = []
        save_atomically(lambda path: found.append(written(form, root, weights, network, image, path)), target)
    return found[0]._replace(path=target)


def check_request(root: Path, metadata: dict, form: str, size: Sequence[int] | None) -> None:
    """Raise unless the bundle can be exported in this form, here, and a pair of this size made."""
    if form not in FORMATS:
        raise RegInputError(f"--format got '{form}', expected {' or '.join(FORMATS)}; correct it.")
    if UNTRAINED in metadata:
        raise RegInputError(
            f"{root.name} cannot be exported, because {metadata[UNTRAINED]}; export a bundle whose network is trained."
        )
    if size is not None and (len(size) != 3 or min(size) < LEAST):
        raise RegInputError(
            f"--size got {list(size)}, expected three numbers of {LEAST} or more, as 96x96x96; correct it."
        )
    if form == "onnx":
        require_onnx()


def require_onnx() -> None:
    """Raise RegEnvError unless what writes and runs ONNX is installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RegEnvError(
            f"ONNX needs {error.name}, which is not installed; pip install onnx onnxscript onnxruntime."
        ) from error


def written(form: str, root: Path, weights: Path, network: nn.Module, image: Tensor, path: Path) -> Exported:
    """Export to ``path`` and hold the result against the network."""
    start = time.perf_counter()
    any_size = True
    if form == "onnx":
        any_size = to_onnx(network, image, path)
    else:
        to_torchscript(root, weights, path)
    seconds = time.perf_counter() - start
    run = runner(path)
    agreements = [agreement(network, run, pair) for pair in (pairs_like(image) if any_size else [image])]
    worst = max(agreements, key=lambda one: one.difference)
    if not worst.difference <= TOLERANCE:
        raise RegNumericsError(
            f"the exported network differs from torch by {worst.difference:.2e} voxel at {worst.size}, expected at "
            f"most {TOLERANCE:.0e}; report it, and use torch meanwhile."
        )
    return Exported(path, any_size, path.stat().st_size / 1e6, seconds, agreements)


def to_onnx(network: nn.Module, image: Tensor, path: Path) -> bool:
    """Write a network as ONNX, for any size where torch's exporter can keep sizes open.

    Returns:
        Whether it takes any size, or that of ``image`` only.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which we do not need
    network = with_short_sums(network)
    sizes = {axis: torch.export.Dim.DYNAMIC for axis in range(2, image.ndim)}
    for dynamic in (sizes, None):
        try:
            program = torch.onnx.export(
                network,
                (image,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["pred"],
                dynamic_shapes=dynamic and (dynamic,),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError:  # loops over windows, say, whose number a size decides
            if dynamic is None:
                raise
            continue
        program.save(str(path), external_data=False)
        if dynamic is not None and takes_any_size(network, path, image):
            return True
    return False


def takes_any_size(network: nn.Module, path: Path, image: Tensor) -> bool:
    """Whether a file of open sizes is right for another than it was made with: a loop may be unrolled in it."""
    try:
        return all(agreement(network, runner(path), pair).difference <= TOLERANCE for pair in pairs_like(image))
    except Exception:  # of onnxruntime: where a graph meets a size that it cannot take, they share no other base
        return False


def to_torchscript(root: Path, weights: Path, path: Path) -> None:
    """Write a bundle's network as TorchScript by MONAI's ``ckpt_export``, its metadata and config inside."""
    ckpt_export(
        net_id="network_def",
        filepath=str(path),
        ckpt_file=str(weights),
        meta_file=str(root / "configs" / "metadata.json"),
        config_file=str(root / "configs" / "inference.json"),
        bundle_root=str(root),
    )


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """What runs an exported file: ``image`` to ``pred``."""
    if path.suffix == FORMATS["torchscript"]:
        return torch.jit.load(str(path)).eval()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["pred"], {"image": image.numpy()})[0])


def agreement(network: nn.Module, run: Callable[[Tensor], Tensor], image: Tensor) -> Agreement:
    """Hold an exported network against its origin on one pair (1, 2, *S)."""
    with torch.no_grad():
        network(image), run(image)  # kernels are chosen and compiled at the first pair of a size
        start = time.perf_counter()
        expected = network(image)
        middle = time.perf_counter()
        found = run(image)
        end = time.perf_counter()
    if found.shape != expected.shape:
        raise RegNumericsError(
            f"the exported network gives {tuple(found.shape)}, expected torch's {tuple(expected.shape)}; report it."
        )
    difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
    return Agreement(tuple(image.shape[2:]), difference, largest, middle - start, end - middle)


def pairs_like(image: Tensor) -> list[Tensor]:
    """A pair, and one of another size."""
    size = [max(n + more, LEAST) for n, more in zip(image.shape[2:], OTHER_SIZE, strict=True)]
    return [image, smooth_pair(size)]


def network_of(root: Path, weights: Path | None, **ids: object) -> nn.Module:
    """``network_def`` of a bundle's inference.json, ready to answer; the bundle must be importable.

    Args:
        root: the bundle's folder.
        weights: file of them; None: as it was made.
        **ids: values of ids of the config.

    Raises:
        RegInputError: if there is no such file.
    """
    if weights is not None and not weights.is_file():
        raise RegInputError(
            f"{weights} is missing, expected trained weights; train the bundle, or name them by --weights."
        )
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    for key, value in {"bundle_root": str(root), **ids}.items():
        parser[key] = value
    network = parser.get_parsed_content("network_def")
    if weights is not None:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def example_image(metadata: dict, size: Sequence[int] | None = None) -> Tensor:
    """A pair (1, 2, *S) in [0, 1] of a size that the metadata allow."""
    shape = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    sides = [side if isinstance(side, int) else int(side.split("*")[0]) * SIDE_FACTOR for side in shape]
    return smooth_pair(list(size or sides))


def smooth_pair(size: list[int]) -> Tensor:
    """Two random images (1, 2, *size) in [0, 1] without steps between voxels, which would magnify rounding."""
    coarse = torch.rand(1, 2, *[n // 4 + 2 for n in size], generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size, mode="trilinear", align_corners=True)
