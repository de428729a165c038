"""What a registration leaves on disk: a folder a pair, whole or not at all, on the user's grids, as ITK reads it."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from monai.transforms import Transform
from torch import Tensor

from .error_map import error_on
from .errors import RegInputError
from .files import whole_folder
from .fingerprint import file_fingerprint
from .geometry import resample_mm, spatial_affine, transform_points, voxel_offset, warp_mm
from .label_warp import warp_label_linear
from .naming import Names, output_names, stem
from .nifti_files import save_nifti
from .points import Points, read_points, write_points
from .preflight import label_values
from .quality import self_check
from .registration import Fields, Grid, Images, fields_of, jacobian, landmark_scores, scores_of
from .report import registration_caption, registration_figure, save_figure
from .report_files import write_report
from .stopwatch import Stopwatch
from .transform_files import write_composite, write_displacement
from .volumes import open_volume, read_voxels, save_as

__all__ = ["SaveRegistrationd", "read_volume"]

logger = logging.getLogger(__name__)

FLOAT32_EXACT = 2**24  # up to which float32 holds every whole number
LABEL_INTERPOLATIONS = ("nearest", "linear")
JACOBIANS = ("deformable", "total")


class SaveRegistrationd(Transform):
    """Postprocessing that writes one folder a pair and returns the item as it is.

    * ``warped.nii.gz``: the moving image on the fixed grid, in its own data type, its minimum outside of it;
    * ``displacement.nii.gz``: the whole map, initial alignment included, as an ITK displacement field;
    * ``transform.h5``: the same as an ITK composite, the initial alignment and the rest apart;
    * ``inverse_displacement.nii.gz``: the way back, on the moving grid;
    * ``jacobian.nii.gz``: the determinant of the Jacobian on the fixed grid;
    * ``error.nii.gz``: how far off it may be, in mm, where "pred" has a spread, see ``common.error_map``;
    * ``warped_label.nii.gz``, ``points.csv`` and ``also_<name>.nii.gz``: what came along;
    * ``report.html``: what to look at, and ``thumbnail.jpg``; ``registration.png``: the same as one picture;
    * ``metrics.json``: scores, folds, the inverse's residual, whether it worked (``common.quality``), settings, seconds
      by step, the fingerprint.

    Names follow BIDS derivatives where both images' names are BIDS, see ``common.naming``.

    Args:
        output_dir: where the folders go.
        labels: the values to score; ``None`` scores every value above 0 of the fixed label.
        picture: whether to draw it.
        report: whether to write it and the thumbnail, and to score HD95 for it.
        about: what ``metrics.json`` has as "settings", such as of :func:`common.provenance.settings_of`.
        label_names: of labels by their values, for the report.
        inverse: whether to write it.
        jacobian: of the "deformable" part, or of the "total" map.
        label_interpolation: "nearest", or "linear": the label of the largest linear weight.
        also: further images in the moving image's world, warped along.
        points_space: "LPS" or "RAS" of point files that do not say it.
        own_folder: write into ``output_dir`` itself: for one pair.
        force: replace a folder that holds another registration.

    Raises:
        RegInputError: for an unknown choice.
    """

    def __init__(
        self,
        output_dir: str,
        labels: Sequence[int] | None = None,
        picture: bool = True,
        report: bool = True,
        *,
        about: Mapping | None = None,
        label_names: Mapping[int, str] | None = None,
        inverse: bool = True,
        jacobian: str = "deformable",
        label_interpolation: str = "nearest",
        also: Sequence[str] | None = None,
        points_space: str | None = None,
        own_folder: bool = False,
        force: bool = False,
    ) -> None:
        for name, value, known in (
            ("jacobian", jacobian, JACOBIANS),
            ("label_interpolation", label_interpolation, LABEL_INTERPOLATIONS),
        ):
            if value not in known:
                raise RegInputError(f"{name} is '{value}', expected {' or '.join(known)}; choose one.")
        self.output_dir = Path(output_dir)
        self.labels = None if labels is None else [int(v) for v in labels]
        self.picture = picture
        self.report = report
        self.about = dict(about or {})
        self.label_names = {str(value): name for value, name in (label_names or {}).items()}
        self.inverse = inverse
        self.jacobian = jacobian
        self.label_interpolation = label_interpolation
        self.also = [Path(path) for path in also or ()]
        self.points_space = points_space
        self.own_folder = own_folder
        self.force = force
        self.seconds: float | None = None  # of the network, told by common.cohort.SummarizeRegistrations
        self.starts_seconds = 0.0  # of the answers from perturbed starts, told by it too
        self.rows: list[dict] = []

    @property
    def settings(self) -> dict:
        """What the files depend on besides the pair and its map."""
        also = {str(path): file_fingerprint(path) for path in self.also}
        names = ("labels", "picture", "report", "inverse", "jacobian", "label_interpolation", "points_space")
        return {name: getattr(self, name) for name in names} | {"also": also}

    def folder_of(self, pair: Mapping[str, str]) -> Path:
        """Where the results of a pair of paths go."""
        if self.own_folder:
            return self.output_dir
        return self.output_dir / (pair.get("name") or output_names(pair["fixed"], pair["moving"]).folder)

    def finished(self, pair: Mapping[str, str], fingerprint: str) -> bool:
        """Whether the folder holds this very registration; its scores are taken into the table then.

        Raises:
            RegInputError: if the folder holds anything that must not be replaced.
        """
        row = self._present(pair)
        if not row:
            return False
        if row.get("fingerprint") == fingerprint:
            self.rows.append(table_row(row))
            return True
        if not self.force:
            raise RegInputError(
                f"{self.folder_of(pair)} holds a registration of other images, weights or settings, expected none; "
                "choose another folder, or replace it with --force."
            )
        return False

    def _present(self, pair: Mapping[str, str]) -> dict:
        """What the pair's folder says of the registration that it holds; empty where it holds nothing.

        Raises:
            RegInputError: if it holds anything that must not be replaced.
        """
        folder = self.folder_of(pair)
        content = names_in(folder)
        row = read_row(folder / output_names(pair["fixed"], pair["moving"]).metrics)
        foreign = sorted(content - set(row.get("files", ())))
        if foreign:
            raise RegInputError(
                f"{folder} holds {foreign[0]}, expected an empty folder or results of this program; choose another one."
            )
        return row

    def __call__(self, data: Mapping) -> dict:
        """Write the results of ``data["pred"]``, a ddf (N, *S) on ``data["network_affine"]``'s grid."""
        paths = {key: Path(data[key].meta["filename_or_obj"]) for key in ("fixed", "moving")}
        paths |= {key: Path(data[key]) for key in data if key.endswith(("_label", "_points")) and data[key]}
        network_affine = np.asarray(data["network_affine"])
        ndim = len(network_affine) - 1
        grids = [grid_of(open_volume(paths[key]), ndim) for key in ("fixed", "moving")]
        initial = np.asarray(data["initial"]) if "initial" in data else None
        watch = Stopwatch(data.get("seconds_by_step"))
        if self.seconds is not None:
            watch.add("network", self.seconds)
        if self.starts_seconds:
            watch.add("starts", self.starts_seconds)
        with watch.step("fields"):
            fields = fields_of(data["pred"], network_affine, *grids, initial, self.inverse)
        names = output_names(paths["fixed"], paths["moving"])
        pair = {key: str(path) for key, path in paths.items()} | {"name": data.get("name")}
        self._present(pair)
        target = self.folder_of(pair)
        with whole_folder(target) as folder:
            error = write_error(folder / names.error, data, fields.fixed, paths["fixed"])
            images, scores = self._write(folder, names, fields, paths, watch)
            with watch.step("check"):
                checked = self_check(fields, images, data["pred"], network_affine, scores)
            row = {"fixed": paths["fixed"].name, "moving": paths["moving"].name, **scores, **error, **checked}
            row |= {} if self.seconds is None else {"seconds": self.seconds}
            row |= {"seconds_by_step": watch.seconds, "settings": self.about}
            if self.report:
                with watch.step("report"):
                    write_report(folder, names, fields, images, row | {"label_names": self.label_names})
            files = sorted({path.name for path in folder.iterdir()} | {names.metrics})
            content = row | {"fingerprint": data.get("fingerprint"), "files": files}
            (folder / names.metrics).write_text(json.dumps(content, indent=2) + "\n")
        self.rows.append(table_row(row))
        dice_text = f"Dice {row['dice_before']:.3f} -> {row['dice']:.3f}, " if "dice" in row else ""
        text = f"{row['moving']} -> {row['fixed']}: {dice_text}{verdict_text(row)}; results in {target}"
        logger.log(logging.INFO if row["verdict"] == "ok" else logging.WARNING, text)
        return dict(data)

    def _write(
        self, folder: Path, names: Names, fields: Fields, paths: Mapping[str, Path], watch: Stopwatch
    ) -> tuple[Images, dict]:
        """All files but the report and the scores; what these are made of."""
        with watch.step("write"):
            self._write_maps(folder, names, fields, paths)
        with watch.step("warp"):
            images = self._images(fields, paths)
        with watch.step("write"):
            self._write_images(folder, names, fields, images, paths)
        labels = scored_labels(images, self.labels)
        with watch.step("scores"):
            scores = scores_of(fields, images, labels, surfaces=self.report)
            if "fixed_points" in paths:
                scores |= self._points(folder / names.points, fields, paths)
        if self.picture:
            with watch.step("picture"):
                save_figure(draw(fields, images, labels), folder / names.picture)
        return images, scores

    def _write_maps(self, folder: Path, names: Names, fields: Fields, paths: Mapping[str, Path]) -> None:
        """The fields, the composite and the Jacobian."""
        affine = fields.fixed.affine
        write_displacement(folder / names.displacement, fields.total, affine)
        write_composite(folder / names.transform, fields.own, affine, fields.initial)
        if fields.inverse is not None:
            write_displacement(folder / names.inverse_displacement, fields.inverse, fields.moving.affine)
        determinant = jacobian(fields, self.jacobian == "total")[0, 0].numpy()
        save_nifti(nib.Nifti1Image(determinant, open_volume(paths["fixed"]).affine), folder / names.jacobian)

    def _write_images(
        self, folder: Path, names: Names, fields: Fields, images: Images, paths: Mapping[str, Path]
    ) -> None:
        """The warped image, its label map and what came along."""
        affine, fixed = fields.fixed.affine, open_volume(paths["fixed"])
        save_as(open_volume(paths["moving"]), images.warped[0, 0].numpy(), fixed.affine, folder / names.warped)
        if images.warped_label is not None:
            like = open_volume(paths["moving_label"])
            save_as(like, images.warped_label[0, 0].numpy(), fixed.affine, folder / names.warped_label)
        for path in self.also:
            voxels, own = read_volume(path, len(affine) - 1)
            low = voxels.amin()
            warped = warp_mm(voxels - low, own, fields.total, affine)[0, 0] + low
            save_as(open_volume(path), warped.numpy(), fixed.affine, folder / f"also_{stem(path)}.nii.gz")

    def _images(self, fields: Fields, paths: Mapping[str, Path]) -> Images:
        """The pair and its labels on the fixed grid, read anew at their own resolution."""
        affine, size, ndim = fields.fixed.affine, fields.fixed.size, len(fields.fixed.size)
        fixed, _ = read_volume(paths["fixed"], ndim)
        moving, own = read_volume(paths["moving"], ndim)
        low = moving.amin()  # what lies outside is the background, which in CT is not 0
        fixed_label = moving_label = warped_label = None
        if "fixed_label" in paths:
            fixed_label = read_labels(paths["fixed_label"], ndim)[0]
        if "moving_label" in paths:
            label, grid = read_labels(paths["moving_label"], ndim)
            moving_label = exactly(
                lambda labels: resample_mm(labels, grid, affine, size, fields.initial, "nearest"), label
            )
            warped_label = self._warped_label(label, grid, fields)
        return Images(
            fixed=fixed,
            moving=resample_mm(moving - low, own, affine, size, fields.initial) + low,
            warped=warp_mm(moving - low, own, fields.total, affine) + low,
            fixed_label=fixed_label,
            moving_label=moving_label,
            warped_label=warped_label,
        )

    def _warped_label(self, label: Tensor, affine: np.ndarray, fields: Fields) -> Tensor:
        if self.label_interpolation == "linear":
            return warp_label_linear(label, voxel_offset(fields.total, fields.fixed.affine, affine))
        return exactly(lambda labels: warp_mm(labels, affine, fields.total, fields.fixed.affine, mode="nearest"), label)

    def _points(self, path: Path, fields: Fields, paths: Mapping[str, Path]) -> dict:
        """Write where the fixed points lie in the moving world; with the moving points, the error before and after."""
        points = read_points(paths["fixed_points"], self.points_space)
        moved = transform_points(points.mm, fields.total, fields.fixed.affine)
        write_points(path, replace(points, mm=moved), self.points_space or "LPS")
        if "moving_points" not in paths:
            return {}
        partners = matching(read_points(paths["moving_points"], self.points_space), points, paths)
        start = np.eye(len(fields.fixed.size) + 1) if fields.initial is None else fields.initial
        before = points.mm @ start[:-1, :-1].T + start[:-1, -1]
        return landmark_scores(*(np.linalg.norm(found - partners, axis=1) for found in (before, moved)))


def write_error(path: Path, data: Mapping, grid: Grid, fixed: Path) -> dict[str, float]:
    """Write the map of the error if a spread is known; its median where the fixed image is brighter than its mean."""
    if not isinstance(data["pred"], Mapping) or "spread" not in data["pred"]:
        return {}
    voxels, _ = read_volume(fixed, len(grid.size))
    limit_mm = error_on(data, grid)
    save_nifti(nib.Nifti1Image(limit_mm[0, 0].numpy(), open_volume(fixed).affine), path)
    return {"error_limit_mm": float(limit_mm[voxels >= voxels.mean()].median())}


def matching(points: Points, fixed: Points, paths: Mapping[str, Path]) -> np.ndarray:
    """The moving points in mm, as many as the fixed ones."""
    if points.mm.shape != fixed.mm.shape:
        raise RegInputError(
            f"{paths['moving_points']} has {len(points.mm)} points and {paths['fixed_points']} {len(fixed.mm)}, "
            "expected as many; match them line by line."
        )
    return points.mm


def names_in(folder: Path) -> set[str]:
    """What a folder holds; nothing where there is none, or where another process is replacing it."""
    try:
        return {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def read_row(path: Path) -> dict:
    """What ``metrics.json`` says; nothing if it cannot be read."""
    try:
        row = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def table_row(row: Mapping) -> dict:
    """What goes into the table of all pairs: numbers and words, reasons in one cell."""
    cells = {key: value for key, value in row.items() if key != "fingerprint" and not isinstance(value, Mapping | list)}
    return cells | ({"reasons": "; ".join(row["reasons"])} if "reasons" in row else {})


def verdict_text(row: Mapping) -> str:
    """What the check says of a registration, in one line."""
    return f"{row['verdict']} ({'; '.join(row['reasons'])})" if row["reasons"] else row["verdict"]


def scored_labels(images: Images, labels: Sequence[int] | None) -> list[int]:
    """The values to score: none without both labels, by default all above 0 of the fixed label."""
    if images.fixed_label is None or images.moving_label is None:
        return []
    return list(labels) if labels is not None else [int(v) for v in images.fixed_label.unique() if v > 0]


def draw(fields: Fields, images: Images, labels: list[int]) -> Figure:
    """The picture of a registration on the fixed grid, its scores below."""
    ddf, grid = fields.ddf, fields.fixed
    maps = (images.fixed_label, images.moving_label, images.warped_label) if labels else (None, None, None)
    caption = registration_caption(ddf, *maps, labels=labels)
    pair = (images.fixed, images.moving, images.warped)
    return registration_figure(*pair, ddf, grid.spacing_mm, grid.orientation, caption=caption)


def grid_of(image: nib.spatialimages.SpatialImage, ndim: int) -> Grid:
    """The first ``ndim`` axes of an image file."""
    return Grid(tuple(int(n) for n in image.shape[:ndim]), spatial_affine(image.affine, ndim))


def read_volume(path: str | Path, ndim: int) -> tuple[Tensor, np.ndarray]:
    """An image (1, 1, *S), float32, and its (N + 1, N + 1) affine."""
    image = open_volume(path)
    voxels = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(image.shape[:ndim])
    return torch.from_numpy(np.ascontiguousarray(voxels))[None, None], spatial_affine(image.affine, ndim)


def read_labels(path: str | Path, ndim: int) -> tuple[Tensor, np.ndarray]:
    """A label map (1, 1, *S), int32, and its (N + 1, N + 1) affine."""
    image = open_volume(path)
    voxels = label_values(Path(path), read_voxels(image)).reshape(image.shape[:ndim])
    return torch.from_numpy(np.ascontiguousarray(voxels))[None, None], spatial_affine(image.affine, ndim)


def exactly(resample: Callable[[Tensor], Tensor], label: Tensor) -> Tensor:
    """A label map (1, 1, *S), int32, through a resampling in float32, which does not hold every number above 2^24.

    Atlases that number structures by keys of a database have larger ones: of these, places in their list go through.
    """
    if int(label.amax()) <= FLOAT32_EXACT:
        return resample(label.float()).round().int()
    values, places = torch.cat([label.new_zeros(1), label.flatten()]).unique(return_inverse=True)  # 0 is outside
    return values[resample(places[1:].reshape(label.shape).float()).round().long()]
