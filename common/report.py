"""Pictures of a registration, and of many prepared scans on one sheet.

``common.planes`` says how slices lie. Figures are made without pyplot, so nothing global is touched and threads may
draw at once.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from torch import Tensor

from .errors import RegInputError
from .files import save_atomically
from .metrics import dice, mean_over_labels, ndv, sdlogj
from .planes import Plane, display_planes, foreground_center, slice_view, windowed

__all__ = ["SheetRow", "contact_sheet", "registration_caption", "registration_figure", "save_figure"]

FIXED_COLOR, WARPED_COLOR, GRID_COLOR = "#ffb000", "#00d0ff", "#7cfc00"
GRID_LINES = 28  # along the longest side of the image
PANEL_IN, MARGIN_IN = 1.7, 0.32  # inches: a panel's width, the space for a line of text
SHEET_PANEL_IN = 1.7
FORMATS = (".png", ".pdf", ".svg")


class SheetRow(NamedTuple):
    """One subject of a contact sheet: arrays (D, H, W) on one grid; ``mask`` is outlined."""

    name: str
    image: np.ndarray
    mask: np.ndarray
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
    orientation: str = "RAS"


def registration_figure(
    fixed: Tensor,
    moving: Tensor,
    warped: Tensor,
    ddf: Tensor,
    spacing_mm: Sequence[float],
    orientation: str = "RAS",
    fixed_label: Tensor | None = None,
    warped_label: Tensor | None = None,
    caption: str = "",
) -> Figure:
    """Fixed, moving and warped image, the deformation and both differences, in slices through the foreground's center.

    One row of panels for a 2-D pair; for a 3-D pair one for each of the three planes. Gray windows span the 1st to the
    99th percentile of the fixed and of the moving image; differences are between windowed images, so they lie in
    [-1, 1], and share one symmetric color scale. The lattice is drawn from x + ddf(x), over the fixed image.

    Args:
        fixed: (1, 1, *S), finite.
        moving: (1, 1, *S) on the fixed grid, finite.
        warped: (1, 1, *S).
        ddf: (1, N, *S) in voxels.
        spacing_mm: voxel size along each array axis.
        orientation: where each array axis points to, as ``nibabel.aff2axcodes`` gives it; not used in 2-D, where
            axis 0 runs down and axis 1 right.
        fixed_label: (1, 1, *S) integers, outlined in the three images.
        warped_label: (1, 1, *S) integers, outlined in the warped image.
        caption: a line below the panels, for instance of :func:`registration_caption`.

    Returns:
        The figure; :func:`save_figure` writes it. Panels carry their title and plane in the label of their axes, as
        "warped, axial".

    Raises:
        RegInputError: if shapes do not fit each other, spacing_mm or orientation.
    """
    size = _check_pair(fixed, moving, warped, ddf, fixed_label, warped_label)
    planes = display_planes(size, spacing_mm, orientation)
    images = [_array(image) for image in (fixed, moving, warped)]
    labels = [None if label is None else _array(label) for label in (fixed_label, warped_label)]
    center, field = foreground_center(images[0]), ddf[0].detach().float().cpu().numpy()
    gray = windowed(images)
    change = [gray[0] - gray[1], gray[0] - gray[2]]
    titles = ("fixed", "moving", "warped", "deformation", "fixed - moving", "fixed - warped")
    figure, axes = _panels(titles, planes, size, spacing_mm)
    limit = max(float(np.percentile(np.abs(part), 99.5)) for part in change) or 1.0
    for row, plane in zip(axes, planes, strict=True):
        for panel, volume in zip(row, (*gray, gray[0]), strict=False):
            _show(panel, slice_view(volume, plane, center), plane, spacing_mm, "gray", (0, 1))
        for panel, volume in zip(row[4:], change, strict=True):
            shown = _show(panel, slice_view(volume, plane, center), plane, spacing_mm, "RdBu_r", (-limit, limit))
        _draw_lattice(row[3], field, plane, center, spacing_mm)
        _draw_labels(row, labels, plane, center)
    keys = [("fixed label", FIXED_COLOR), ("warped label", WARPED_COLOR)]
    keys = [key for key, label in zip(keys, labels, strict=True) if label is not None]
    _finish(figure, axes, shown, keys, caption)
    return figure


def registration_caption(
    ddf: Tensor,
    fixed_label: Tensor | None = None,
    moving_label: Tensor | None = None,
    warped_label: Tensor | None = None,
    labels: Sequence[int] = (),
) -> str:
    """Mean Dice before and after, where there are labels, SDlogJ and, in 3-D, NDV: one line for a figure.

    Args:
        ddf: (1, N, *S) in voxels.
        fixed_label: (1, 1, *S) integers, like the two others; all or none.
        moving_label: before the warp.
        warped_label: after the warp.
        labels: the values to score.
    """
    parts = [f"SDlogJ {sdlogj(ddf).item():.4f}"]
    if ddf.ndim == 5:
        parts.append(f"NDV {ndv(ddf).item():.4f} %")
    if labels:
        before, after = (
            mean_over_labels(dice(label, fixed_label, labels, moving_label)).item()
            for label in (moving_label, warped_label)
        )
        parts.insert(0, f"Dice {before:.3f} → {after:.3f} ({len(labels)} labels)")
    return "   ".join(parts)


def save_figure(figure: Figure, path: str | Path, dpi: int = 200) -> None:
    """Write a figure as PNG, PDF or SVG, by its suffix; under another name first, so no half picture is ever seen.

    Raises:
        RegInputError: if the suffix is another one.
        RegEnvError: if the folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise RegInputError(f'"{path}" ends in "{path.suffix}", expected one of {", ".join(FORMATS)}.')
    save_atomically(lambda temporary: figure.savefig(temporary, dpi=dpi), path)


def contact_sheet(rows: Iterable[SheetRow], path: str | Path, rows_per_page: int = 16) -> list[Path]:
    """Write sheets of the middle slices of many scans with a mask's outline, so that a misplaced scan stands out.

    Slices go through the center of the mask, which is the same for all where the mask is a template's.

    Args:
        rows: the subjects in order; taken one page at a time, so a generator keeps memory low.
        path: of the sheet; from the second page on "-2", "-3", ... is put before the suffix.
        rows_per_page: subjects on one page.

    Returns:
        The pages written.

    Raises:
        RegInputError: if there is no subject, or a mask does not fit its image.
    """
    path, pages, remaining = Path(path), [], iter(rows)
    while page := list(islice(remaining, rows_per_page)):
        name = path if not pages else path.with_stem(f"{path.stem}-{len(pages) + 1}")
        save_figure(_sheet(page), name, dpi=110)
        pages.append(name)
    if not pages:
        raise RegInputError("a contact sheet was asked for without any scan, expected at least one.")
    return pages


def _check_pair(fixed: Tensor, moving: Tensor, warped: Tensor, ddf: Tensor, *labels: Tensor | None) -> tuple[int, ...]:
    size = tuple(fixed.shape[2:])
    images = [tuple(image.shape) for image in (fixed, moving, warped, *labels) if image is not None]
    if set(images) != {(1, 1, *size)} or tuple(ddf.shape) != (1, len(size), *size) or len(size) not in (2, 3):
        raise RegInputError(
            f"images and labels are {images} and ddf {tuple(ddf.shape)}, expected one pair on one grid, (1, 1, *S) and "
            "(1, N, *S); resample the moving image to the fixed grid and pick one pair of the batch."
        )
    return size


def _array(image: Tensor) -> np.ndarray:
    return image[0, 0].detach().float().cpu().numpy()


def _extent_mm(plane: Plane, size: Sequence[int], spacing_mm: Sequence[float]) -> tuple[float, float]:
    return tuple(size[axis] * spacing_mm[axis] for axis in (plane.rows, plane.columns))


def _panels(
    titles: Sequence[str], planes: Sequence[Plane], size: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[Figure, np.ndarray]:
    """A figure with a row of panels for each plane, all equally wide, their heights in proportion."""
    extents = [_extent_mm(plane, size, spacing_mm) for plane in planes]
    widest = max(width for _, width in extents)
    heights = [PANEL_IN * height / widest for height, _ in extents]
    left, right, below = MARGIN_IN, 2.2 * MARGIN_IN, MARGIN_IN
    full = (left + PANEL_IN * len(titles) + right, MARGIN_IN + sum(heights) + below)
    figure = Figure(figsize=full, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(planes),
        len(titles),
        height_ratios=heights,
        left=left / full[0],
        right=1 - right / full[0],
        bottom=below / full[1],
        top=1 - MARGIN_IN / full[1],
        wspace=0.02,
        hspace=0.02,
    )
    axes = grid.subplots(squeeze=False)
    for panels, plane, (_, width) in zip(axes, planes, extents, strict=True):
        for panel, title in zip(panels, titles, strict=True):
            panel.set_label(f"{title}, {plane.name}" if plane.name else title)
            # as many columns as the widest plane shows in millimeters
            spare = (widest - width) / spacing_mm[plane.columns] / 2
            panel.set_xlim(-0.5 - spare, size[plane.columns] - 0.5 + spare)
        panels[0].set_ylabel(plane.name, fontsize=9)
        panels[0].text(0.02, 0.5, plane.left, transform=panels[0].transAxes, color="white", fontsize=7, va="center")
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=9, pad=4)
    return figure, axes


def _show(
    panel: Axes, image: np.ndarray, plane: Plane, spacing_mm: Sequence[float], cmap: str, window: tuple[float, float]
) -> AxesImage:
    """Draw a slice in true proportions without ticks; keeps limits across that were set before."""
    across = None if panel.get_autoscalex_on() else panel.get_xlim()
    aspect = spacing_mm[plane.rows] / spacing_mm[plane.columns]
    shown = panel.imshow(image, cmap, aspect=aspect, interpolation="auto", vmin=window[0], vmax=window[1])
    # set, so that outlines that touch the edge do not widen the panel
    panel.set(xlim=across or (-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    panel.set_facecolor("black" if cmap == "gray" else shown.cmap(0.5))
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    return shown


def _draw_lattice(
    panel: Axes, field: np.ndarray, plane: Plane, center: Sequence[int], spacing_mm: Sequence[float]
) -> None:
    """Lines of the fixed grid, moved to x + ddf(x); the part of ddf across the plane is not seen."""
    size = field.shape[1:]
    step_mm = max(n * step for n, step in zip(size, spacing_mm, strict=True)) / GRID_LINES
    u = [slice_view(field[axis], plane, center) for axis in (plane.rows, plane.columns)]
    down, right = np.meshgrid(*[np.arange(n) for n in u[0].shape], indexing="ij")
    down = down + (-u[0] if plane.flip_rows else u[0])
    right = right + (-u[1] if plane.flip_columns else u[1])
    points = np.stack([right, down], axis=-1)
    every = [max(1, round(step_mm / spacing_mm[axis])) for axis in (plane.rows, plane.columns)]
    lines = [*points[every[0] // 2 :: every[0]], *points[:, every[1] // 2 :: every[1]].swapaxes(0, 1)]
    panel.add_collection(LineCollection(lines, colors=GRID_COLOR, linewidths=0.4), autolim=False)


def _draw_labels(row: Sequence[Axes], labels: Sequence[np.ndarray | None], plane: Plane, center: Sequence[int]) -> None:
    fixed, warped = (None if label is None else slice_view(label, plane, center) for label in labels)
    for panel in row[:3]:
        _outline(panel, fixed, FIXED_COLOR)
    _outline(row[2], warped, WARPED_COLOR)


def _outline(panel: Axes, label: np.ndarray | None, color: str) -> None:
    """Contour of each value but 0, closed at the edge of the slice by a rim of one pixel."""
    if label is None:
        return
    extent = (-1.5, label.shape[1] + 0.5, -1.5, label.shape[0] + 0.5)
    for value in np.unique(label[label != 0]):
        rim = np.pad(label == value, 1)
        panel.contour(rim, [0.5], colors=color, linewidths=0.6, origin="lower", extent=extent)


def _finish(figure: Figure, axes: np.ndarray, shown: AxesImage, keys: Sequence[tuple[str, str]], caption: str) -> None:
    """Color bar of the differences, key of the outlines and the caption."""
    top, bottom = axes[0, -1].get_position(), axes[-1, -1].get_position()
    bar = figure.add_axes((top.x1 + 0.006, bottom.y0, 0.009, top.y1 - bottom.y0), label="color scale")
    figure.colorbar(shown, cax=bar)
    bar.tick_params(labelsize=7, width=0.5, length=2)
    bar.set_ylabel("share of gray window", fontsize=7, labelpad=2)
    bar.spines[:].set_linewidth(0.5)
    figure.legend(
        handles=[Line2D([], [], color=color, label=name) for name, color in keys],
        loc="lower left",
        bbox_to_anchor=(axes[0, 0].get_position().x0, 0),
        ncols=2,
        fontsize=8,
        frameon=False,
        borderaxespad=0.1,
    )
    figure.text(0.5, 0.2 * MARGIN_IN / figure.get_figheight(), caption, ha="center", va="bottom", fontsize=9)


def _sheet(rows: Sequence[SheetRow]) -> Figure:
    """One page: a line for each subject, its three planes side by side."""
    figure = Figure(figsize=(3 * SHEET_PANEL_IN + MARGIN_IN, SHEET_PANEL_IN * len(rows)), facecolor="black")
    FigureCanvasAgg(figure)
    left = MARGIN_IN / figure.get_figwidth()
    axes = figure.add_gridspec(len(rows), 3, left=left, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02).subplots(
        squeeze=False
    )
    for panels, row in zip(axes, rows, strict=True):
        if row.image.ndim != 3 or row.image.shape != row.mask.shape:
            raise RegInputError(
                f"{row.name}: image {row.image.shape} and mask {row.mask.shape}, expected one 3-D grid; "
                "resample the mask."
            )
        planes = display_planes(row.image.shape, row.spacing_mm, row.orientation)
        center = foreground_center(row.mask.astype(np.float32))
        window = tuple(np.percentile(row.image, (1, 99)))
        for panel, plane in zip(panels, planes, strict=True):
            panel.set_label(f"{row.name}, {plane.name}")
            _show(panel, slice_view(row.image, plane, center), plane, row.spacing_mm, "gray", window)
            _outline(panel, slice_view(row.mask != 0, plane, center).astype(np.uint8), FIXED_COLOR)
        panels[0].set_ylabel(row.name, fontsize=7, color="white")
    return figure
