"""Are EOIR's features locally more linear than the intensities, and does training matter? A picture and its numbers.

The question is that of Figure 1 of Chen et al., "Encoder-Only Image Registration", arXiv 2509.00451. How its heat maps
were made its main text leaves out: the measure here is ours, see :func:`local_linearity`.
"""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from common.checkpoint import load_checkpoint
from common.errors import RegInputError, first_line
from common.planes import display_planes, slice_view
from common.report import save_figure

from ..repository import commit
from .eoir import BUNDLE, Sweep, config_files, size_text, slug, understood
from .measuring import device_name, file_name, write

__all__ = ["Panel", "linearity_eoir", "local_linearity", "square"]

RADIUS = 1
FLAT = 1e-3  # of a channel's range: a window that varies by less says nothing about where it is


class Panel(NamedTuple):
    """A column of the picture: what was looked at, and how linear it is; 2-D arrays."""

    name: str
    image: np.ndarray
    linearity: np.ndarray
    mean: float


def linearity_eoir(
    results: Path,
    out: Path,
    weights: Path,
    dataset_dir: str | None = None,
    overlays: Sequence[str] = (),
    depth: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    *,
    command: str,
) -> tuple[Path, Path]:
    """Measure intensities, untrained and trained features of the fixed validation images; draw the first of them.

    Args:
        results: folder for ``linearity-eoir-<data set>-<stack>.csv``, a row for each image and representation.
        out: folder for ``linearity-eoir-<data set>.png``.
        weights: of the trained network.
        dataset_dir: prepared data set; the bundle's phantom if None.
        overlays: configurations over ``train.json`` that the network was trained with.
        depth: encoder layers of the trained network, at least 1; the configuration's if None.
        channels: its start channels; the configuration's if None.
        seed: of the untrained network.
        command: what to write in the ``command`` column.

    Returns:
        Paths of the csv and of the picture.

    Raises:
        RegInputError: if weights or data cannot be used.
    """
    sweep = Sweep(dataset_dir, tuple(overlays))
    parser = parser_of(sweep, {"network_def::encoder_depth": depth, "channels": channels})
    header = understood(lambda: parser.get_parsed_content("header"))
    set_determinism(seed)
    untrained = parser.get_parsed_content("network_def").eval()
    trained = load(copy.deepcopy(untrained), Path(weights))
    encoders = {"intensities": nn.Identity(), "untrained": untrained.encoder, "trained": trained.encoder}
    images = fixed_images(parser)
    rows, panels = [], synthetic_panels()
    for index, image in enumerate(images):
        for name, encoder in encoders.items():
            panel, row = examine(name, encoder, image, header)
            rows.append({"dataset": header["name"], "grid": size_text(image.shape[2:]), "image": index, **row})
            panels += [panel] if index == 0 else []
    rows += [{"dataset": "synthetic", "grid": "64x64", "image": 0, **row_of(p.name, 1, p.mean)} for p in panels[:3]]
    for row in rows:
        row |= {"weights_sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:12], "seed": seed}
        row |= {"device": device_name("cpu"), "torch": torch.__version__, "commit": commit(), "command": command}
    name = f"linearity-eoir-{slug(header['name'])}"
    table = write(Path(results) / file_name(name, "cpu", torch.get_num_threads()), rows)
    picture = Path(out) / f"{name}.png"
    save_figure(draw(panels, caption_of(header["name"], rows, len(images))), picture, dpi=220)
    return table, picture


@torch.no_grad()
def local_linearity(features: Tensor, radius: int = RADIUS) -> Tensor:
    """How well a linear function fits each channel within a small window: its R squared, averaged over the channels.

    In the window of ``(2 radius + 1)**N`` voxels at offsets d around x, the least-squares fit of ``a + b . d`` to the
    values f has ``b_k = sum(d_k f) / sum(d_k^2)``, because the offsets are orthogonal, and explains
    ``E = sum_k b_k^2 sum(d_k^2)`` of the window's spread ``T = sum (f - mean f)^2``. The value is E / T: 1 for a ramp,
    0 for what is symmetric about x. A flat window, whose standard deviation is at most 0.001 of the channel's range, is
    0: where there is no gradient, brightness says nothing about displacement (Horn and Schunck).

    Args:
        features: (B, C, *S), at least 2 radius + 1 voxels along each of the N axes.
        radius: in voxels.

    Returns:
        (B, *S - 2 radius) in [0, 1], float64: whole windows only.

    The measure is ours; the paper's text gives its range and its direction (brighter is more linear), not its formula.
    """
    ndim = features.ndim - 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=features.device)
    ones, count = torch.ones_like(offsets), (2 * radius + 1) ** ndim
    spread = float(offsets.square().sum()) * count / (2 * radius + 1)  # sum of d_k^2 over the window
    total = 0.0
    for channel in features.double().unbind(1):  # one at a time, for memory
        axes = tuple(range(1, ndim + 1))
        low, high = channel.amin(axes, keepdim=True), channel.amax(axes, keepdim=True)
        channel = (channel - (low + high) / 2) / (high - low).clamp(min=1e-300)  # around 0, range 1
        moment = windowed(channel, [ones] * ndim)
        variance = windowed(channel.square(), [ones] * ndim) - moment.square() / count
        explained = sum(
            windowed(channel, [offsets if k == axis else ones for k in range(ndim)]).square() for axis in range(ndim)
        )
        flat = variance <= count * FLAT**2
        total = total + torch.where(flat, 0.0, explained / spread / variance.clamp(min=1e-300)).clamp(0, 1)
    return total / features.shape[1]


def windowed(image: Tensor, kernels: Sequence[Tensor]) -> Tensor:
    """Sums over windows, weighted by a kernel for each axis of (B, *S): (B, *S - width + 1)."""
    for axis, kernel in enumerate(kernels, start=1):
        size = image.shape[axis] - len(kernel) + 1
        image = sum(float(weight) * image.narrow(axis, start, size) for start, weight in enumerate(kernel))
    return image


def square(sigma: float, size: int = 64) -> Tensor:
    """The paper's synthetic example: a square of ones on zeros, blurred by a Gaussian of ``sigma`` pixels."""
    image = np.zeros((size, size))
    image[size // 4 : -size // 4, size // 4 : -size // 4] = 1
    return torch.from_numpy(gaussian_filter(image, sigma) if sigma else image)[None, None]


def synthetic_panels() -> list[Panel]:
    """The square, and blurred by 1 and 3 pixels."""
    panels = []
    for sigma in (0, 1, 3):
        image = square(sigma)
        heat = local_linearity(image)[0]
        name = f"square, blurred by {sigma} px" if sigma else "square"
        panels.append(Panel(name, inner(image)[0, 0].numpy(), heat.numpy(), float(heat.mean())))
    return panels


def examine(name: str, encoder: nn.Module, image: Tensor, header: dict) -> tuple[Panel, dict]:
    """A column and a row of the table for one representation of an image (1, 1, *S)."""
    with torch.no_grad():
        features = encoder(image)
    heat = local_linearity(features)[0]
    foreground = inner(image)[0, 0] > image.min()
    mean = float(heat[foreground].mean())
    widest = int(features[0].flatten(1).std(dim=1).argmax())
    shown = [inner(features)[0, widest].numpy(), heat.numpy()]
    plane = display_planes(shown[0].shape, header["spacing_mm"], header["orientation"])[0]
    center = [round(float(c)) for c in foreground.nonzero().double().mean(dim=0)]
    return Panel(name, *(slice_view(array, plane, center) for array in shown), mean), row_of(
        name, len(features[0]), mean
    )


def row_of(name: str, channels: int, mean: float) -> dict:
    """The columns that say what was measured."""
    return {"representation": name, "channels": channels, "radius": RADIUS, "mean_linearity": round(mean, 5)}


def inner(image: Tensor) -> Tensor:
    """The voxels of (B, C, *S) that have a whole window."""
    for axis in range(2, image.ndim):
        image = image.narrow(axis, RADIUS, image.shape[axis] - 2 * RADIUS)
    return image


def parser_of(sweep: Sweep, settings: dict[str, int | None]) -> ConfigParser:
    """The bundle's training configuration, nothing of it made yet."""
    overrides = {"bundle_root": str(BUNDLE), "device": "$torch.device('cpu')"}
    overrides |= {"dataset_dir": sweep.dataset_dir} if sweep.dataset_dir else {}
    overrides |= {key: value for key, value in settings.items() if value is not None}
    return ConfigWorkflow(config_files(sweep), logging_file=False, workflow_type="train", **overrides).parser


def load(network: nn.Module, weights: Path) -> nn.Module:
    """The network with the weights of a file."""
    if not weights.is_file():
        raise RegInputError(f"{weights} is missing, expected the weights of a trained EOIR; train one first.")
    try:
        network.load_state_dict(load_checkpoint(weights, must_be_sealed=False))
    except RuntimeError as error:
        raise RegInputError(
            f"{weights} does not fit the network ({first_line(error)}); give its depth, width and overlays."
        ) from None
    if not len(network.encoder):
        raise RegInputError("the encoder has no layers, expected features to look at; give a depth of 1 or more.")
    return network


def fixed_images(parser: ConfigParser) -> list[Tensor]:
    """The fixed images of the validation pairs, each once, (1, 1, *S)."""
    dataset = understood(lambda: parser.get_parsed_content("validate::dataset"))
    first = {pair["fixed"]: index for index, pair in reversed(list(enumerate(dataset.data)))}
    return [dataset[index]["fixed"].as_subclass(Tensor)[None].float() for index in sorted(first.values())]


def caption_of(dataset: str, rows: Sequence[dict], images: int) -> str:
    """Means over the foreground of all images."""
    means = {
        name: np.mean([row["mean_linearity"] for row in rows if row["representation"] == name])
        for name in ("intensities", "untrained", "trained")
    }
    numbers = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    return (
        f"{dataset}: mean over the foreground of {images} validation images: {numbers}. "
        "Above, the channel that varies most;\n"
        f"below, R² of a linear fit in {2 * RADIUS + 1} voxels a side (our measure), averaged over the channels."
    )


def draw(panels: Sequence[Panel], caption: str) -> Figure:
    """Images above, their local linearity below, 0 dark to 1 bright."""
    figure = Figure(figsize=(1.45 * len(panels) + 0.5, 3.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(panels))
    for (top, bottom), panel in zip(axes.T, panels, strict=True):
        top.imshow(panel.image, cmap="gray", interpolation="nearest")
        shown = bottom.imshow(panel.linearity, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        top.set_title(panel.name, fontsize=7.5)
        bottom.set_title(f"mean {panel.mean:.3f}", fontsize=7.5)
        for axis in (top, bottom):
            axis.set_xticks([])
            axis.set_yticks([])
    bar = figure.colorbar(shown, ax=axes.ravel().tolist(), fraction=0.02, pad=0.01, shrink=0.5, anchor=(0, 0.1))
    bar.ax.tick_params(labelsize=6.5)
    bar.set_label("local linearity", fontsize=7)
    figure.supxlabel(caption, fontsize=6.5, color="0.3")
    return figure
