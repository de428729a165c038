"""From two files to a transform: the pairs to register, their alignment, and what a registration leaves on disk.

A network works on a grid of its own (``common.transforms.ToNetworkGridd``). Everything written here is on the user's
fixed image's grid, in millimeters, as ITK reads it.
"""

import csv
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.figure import Figure
from monai.engines.utils import IterationEvents
from monai.transforms import Transform
from torch import Tensor

from .affine import register_affine
from .datalist import check_datalist, read_datalist
from .errors import RegInputError
from .files import save_atomically
from .geometry import mm_to_ddf, resample_mm, spatial_affine, total_displacement_mm, warp_mm
from .metrics import dice, folds, ndv, sdlogj
from .report import registration_caption, registration_figure, save_figure
from .transform_files import write_composite, write_displacement

__all__ = ["AlignAffined", "SaveRegistrationd", "SummarizeRegistrations", "pairs_to_register"]

logger = logging.getLogger(__name__)


def pairs_to_register(
    dataset_dir: str | None = None,
    section: str = "testing",
    fixed: str | None = None,
    moving: str | None = None,
    fixed_label: str | None = None,
    moving_label: str | None = None,
    fixed_mask: str | None = None,
    moving_mask: str | None = None,
) -> list[dict[str, str]]:
    """One pair of files where they are named, else the pairs of a section of a data set; every file is checked.

    Args:
        dataset_dir: folder that holds ``datalist.json``.
        section: "validation" or "testing".
        fixed: path of the fixed image; wins over the data set.
        moving: path of the moving image.
        fixed_label: its label map, to score the result.
        moving_label: the moving image's label map, warped along.
        fixed_mask: where the fixed image counts, on its grid.
        moving_mask: where the moving image counts, on its grid.

    Raises:
        RegInputError: if only one of the two images is named, or a file cannot be used.
    """
    if (fixed is None) != (moving is None):
        raise RegInputError(f"fixed is {fixed} and moving is {moving}, expected both or none; name the other image.")
    if fixed is None:
        pairs = read_datalist(dataset_dir, section)
    else:
        named = {"fixed": fixed, "moving": moving, "fixed_label": fixed_label, "moving_label": moving_label}
        named |= {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
        pairs = [{key: str(value) for key, value in named.items() if value is not None}]
    check_datalist(pairs)
    return pairs


class AlignAffined(Transform):
    """Adds ``initial``, fixed world -> moving world in RAS mm, found from the images' content.

    Args:
        mode: "none" trusts the headers' world and adds nothing; "auto" finds twelve parameters, "rigid" six.
        seed: of the sampled voxels.
    """

    def __init__(self, mode: str = "none", seed: int = 0) -> None:
        if mode not in ("none", "auto", "rigid"):
            raise RegInputError(f"affine is '{mode}', expected none, auto or rigid.")
        self.mode = mode
        self.seed = seed

    def __call__(self, data: Mapping) -> dict:
        """Align ``data["moving"]`` to ``data["fixed"]``, MetaTensors (1, *S) on their own grids."""
        if self.mode == "none":
            return dict(data)
        images = [(np.asarray(data[key][0]), np.asarray(data[key].affine)) for key in ("fixed", "moving")]
        result = register_affine(*images, rigid=self.mode == "rigid", seed=self.seed)
        return {**data, "initial": result.matrix}


@dataclass(frozen=True)
class Registration:
    """One registered pair on the fixed image's own grid, tensors (1, C, *S)."""

    fixed: Tensor
    moving: Tensor  # resampled through the initial alignment alone
    warped: Tensor
    ddf: Tensor  # voxels of the fixed grid, without the initial alignment
    fixed_label: Tensor | None
    moving_label: Tensor | None
    warped_label: Tensor | None


class SaveRegistrationd(Transform):
    """Postprocessing that writes one folder a pair, ``<fixed>__<moving>``, and returns the item as it is.

    * ``displacement.nii.gz``: the whole map, initial alignment included, as an ITK displacement field;
    * ``transform.h5``: where there is an initial alignment, it and the rest as an ITK composite;
    * ``warped.nii.gz``: the moving image on the fixed grid, in its own data type's range;
    * ``warped_label.nii.gz``: where there is a moving label, nearest neighbor;
    * ``registration.png``: what to look at; ``metrics.json``: Dice before and after, SDlogJ, NDV, folds.

    Args:
        output_dir: where the folders go.
        labels: the values to score; ``None`` scores every value above 0 of the fixed label.
        picture: whether to draw it.
    """

    def __init__(self, output_dir: str, labels: Sequence[int] | None = None, picture: bool = True) -> None:
        self.output_dir = Path(output_dir)
        self.labels = None if labels is None else [int(v) for v in labels]
        self.picture = picture
        self.rows: list[dict] = []

    def __call__(self, data: Mapping) -> dict:
        """Write the results of ``data["pred"]``, a ddf (N, *S) on ``data["network_affine"]``'s grid."""
        paths = {key: Path(data[key].meta["filename_or_obj"]) for key in ("fixed", "moving")}
        folder = self.output_dir / f"{stem(paths['fixed'])}__{stem(paths['moving'])}"
        ddf = torch.as_tensor(data["pred"]).as_subclass(Tensor)[None].float().cpu()
        ndim = ddf.shape[1]
        header = nib.load(paths["fixed"])
        affine, size = spatial_affine(header.affine, ndim), header.shape[:ndim]
        initial = np.asarray(data["initial"]) if "initial" in data else None
        network = np.asarray(data["network_affine"])
        own = total_displacement_mm(ddf, network, affine, size)
        total = own if initial is None else total_displacement_mm(ddf, network, affine, size, initial)

        write_displacement(folder / "displacement.nii.gz", total, affine)
        if initial is not None:
            write_composite(folder / "transform.h5", own, affine, initial)
        labels = {key: data.get(key) for key in ("fixed_label", "moving_label")}
        result = resampled(paths, labels, total, own, affine, initial)
        save_like(folder / "warped.nii.gz", result.warped, header.affine, paths["moving"])
        if result.warped_label is not None:
            save_like(folder / "warped_label.nii.gz", result.warped_label, header.affine, Path(labels["moving_label"]))
        self._finish(folder, paths, result, affine, header)
        return dict(data)

    def _finish(self, folder: Path, paths: dict[str, Path], result: Registration, affine: np.ndarray, header) -> None:
        labels = scored_labels(result, self.labels)
        scores = score(result, labels)
        row = {"fixed": paths["fixed"].name, "moving": paths["moving"].name, **scores}
        self.rows.append({key: value for key, value in row.items() if key != "dice_per_label"})
        text = json.dumps(row, indent=2) + "\n"
        save_atomically(lambda path: path.write_text(text), folder / "metrics.json")
        if self.picture:
            figure = draw(result, labels, affine, "".join(nib.aff2axcodes(header.affine)))
            save_figure(figure, folder / "registration.png")
        dice_text = f"Dice {row['dice_before']:.3f} -> {row['dice']:.3f}, " if "dice" in row else ""
        logger.info("%s -> %s: %sresults in %s.", row["moving"], row["fixed"], dice_text, folder)


class SummarizeRegistrations:
    """Handler that writes ``metrics.csv``, a row a pair and one of means, when all pairs are done.

    Its column ``seconds`` is the network's time for a pair, reading, resampling and writing left out.

    Args:
        save: the :class:`SaveRegistrationd` that saw the pairs, one a batch.
    """

    def __init__(self, save: SaveRegistrationd) -> None:
        self.save = save
        self.started = 0.0
        self.seconds: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Time every forward pass; write when the engine is done."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._stop)
        engine.add_event_handler(Events.COMPLETED, self)

    def _start(self, engine: Engine) -> None:
        self.started = time.perf_counter()

    def _stop(self, engine: Engine) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self.started)

    def __call__(self, engine: Engine) -> None:
        """Write the table and log its means."""
        rows = self.save.rows
        if len(self.seconds) == len(rows):
            rows = [{**row, "seconds": seconds} for row, seconds in zip(rows, self.seconds, strict=True)]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        numbers = [key for key in columns if key not in ("fixed", "moving")]
        means = {key: float(np.nanmean([row.get(key, np.nan) for row in rows])) for key in numbers}

        def write(path: Path) -> None:
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows([*rows, {"fixed": "mean", **means}])

        path = self.save.output_dir / "metrics.csv"
        save_atomically(write, path)
        summary = ", ".join(f"{key} {value:.4g}" for key, value in means.items())
        logger.info("%d pairs: %s; each pair's values are in %s.", len(rows), summary, path)


def resampled(
    paths: dict[str, Path],
    labels: dict[str, str | None],
    total: Tensor,
    own: Tensor,
    affine: np.ndarray,
    initial: np.ndarray | None,
) -> Registration:
    """The pair and its labels on the fixed grid, read anew at their own resolution."""
    size, ndim = tuple(own.shape[2:]), own.shape[1]
    fixed, _ = read_volume(paths["fixed"], ndim)
    moving, moving_affine = read_volume(paths["moving"], ndim)
    fixed_label = moving_label = warped_label = None
    if labels["fixed_label"]:
        fixed_label = read_volume(labels["fixed_label"], ndim)[0].round().int()
    if labels["moving_label"]:
        label, label_affine = read_volume(labels["moving_label"], ndim)
        moving_label = resample_mm(label, label_affine, affine, size, initial, mode="nearest").round().int()
        warped_label = warp_mm(label, label_affine, total, affine, mode="nearest").round().int()
    return Registration(
        fixed=fixed,
        moving=resample_mm(moving, moving_affine, affine, size, initial),
        warped=warp_mm(moving, moving_affine, total, affine),
        ddf=mm_to_ddf(own, affine),
        fixed_label=fixed_label,
        moving_label=moving_label,
        warped_label=warped_label,
    )


def scored_labels(result: Registration, labels: Sequence[int] | None) -> list[int]:
    """The values to score: none without both labels, by default all above 0 of the fixed label."""
    if result.fixed_label is None or result.moving_label is None:
        return []
    return list(labels) if labels is not None else [int(v) for v in result.fixed_label.unique() if v > 0]


def score(result: Registration, labels: list[int]) -> dict:
    """Mean Dice before and after and per label, where there are labels; SDlogJ, NDV and folds of the ddf."""
    scores = {}
    if labels:
        before = dice(result.moving_label, result.fixed_label, labels, result.moving_label)[0]
        after = dice(result.warped_label, result.fixed_label, labels, result.moving_label)[0]
        per_label = {str(k): None if v != v else v for k, v in zip(labels, after.tolist(), strict=True)}
        scores |= {"dice_before": float(before.nanmean()), "dice": float(after.nanmean()), "dice_per_label": per_label}
    scores |= {"sdlogj": float(sdlogj(result.ddf)), "folded_percent": float(folds(result.ddf).percent)}
    if result.ddf.ndim == 5:
        scores["ndv_percent"] = float(ndv(result.ddf))
    return scores


def draw(result: Registration, labels: list[int], affine: np.ndarray, orientation: str) -> Figure:
    """The picture of a registration on the fixed grid, its scores below."""
    spacing = np.linalg.norm(affine[:-1, :-1], axis=0)
    maps = (result.fixed_label, result.moving_label, result.warped_label) if labels else (None, None, None)
    caption = registration_caption(result.ddf, *maps, labels=labels)
    images = (result.fixed, result.moving, result.warped)
    return registration_figure(*images, result.ddf, spacing, orientation, caption=caption)


def read_volume(path: str | Path, ndim: int) -> tuple[Tensor, np.ndarray]:
    """An image (1, 1, *S), float32, and its (N + 1, N + 1) affine."""
    image = nib.load(path)
    voxels = image.get_fdata(dtype=np.float32).reshape(image.shape[:ndim])
    return torch.from_numpy(voxels)[None, None], spatial_affine(image.affine, ndim)


def save_like(path: Path, voxels: Tensor, affine: np.ndarray, like: Path) -> None:
    """Write (1, 1, *S) as NIfTI on a grid, in the data type of another file; whole numbers are rounded into range."""
    dtype = nib.load(like).get_data_dtype()
    array = voxels[0, 0].numpy()
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array), limits.min, limits.max)
    image = nib.Nifti1Image(array.astype(dtype), affine)
    save_atomically(lambda temporary: nib.save(image, temporary), path)


def stem(path: Path) -> str:
    """The file's name without its suffixes."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
