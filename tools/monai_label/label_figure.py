"""Label maps in color over an image, side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.planes import display_planes, foreground_center, slice_view, windowed

__all__ = ["label_figure"]

PANEL_IN = 1.9
OPACITY = 0.55
COLORS = colormaps["tab20"].colors


def label_figure(
    image: np.ndarray, label_maps: Mapping[str, np.ndarray | None], spacing_mm: Sequence[float], orientation: str
) -> Figure:
    """A column of panels for each label map, one panel a plane, through the center of the image's foreground.

    Args:
        image: (X, Y, Z).
        label_maps: integers on the image's grid by the column's title; None shows the image alone.
        spacing_mm: voxel size along each array axis.
        orientation: where the array axes point to, such as "LIA".
    """
    planes = display_planes(image.shape, spacing_mm, orientation)
    center, gray = foreground_center(image), windowed([image] * 3)[0]
    length = [count * spacing for count, spacing in zip(image.shape, spacing_mm, strict=True)]
    heights = [length[plane.rows] / length[plane.columns] for plane in planes]
    figure = Figure(figsize=(PANEL_IN * len(label_maps), PANEL_IN * sum(heights) + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(planes), len(label_maps), squeeze=False, height_ratios=heights)
    for row, plane in zip(axes, planes, strict=True):
        for panel, (title, labels) in zip(row, label_maps.items(), strict=True):
            colored = None if labels is None else slice_view(labels, plane, center)
            shape = spacing_mm[plane.rows] / spacing_mm[plane.columns]
            panel.imshow(blend(slice_view(gray, plane, center), colored), aspect=shape, interpolation="nearest")
            panel.set_label(f"{title}, {plane.name}")
            panel.set_axis_off()
    for panel, title in zip(axes[0], label_maps, strict=True):
        panel.set_title(title, fontsize=8)
    return figure


def blend(gray: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """RGB (X, Y, 3) of a gray slice in [0, 1] with each label above 0 in a color of its own."""
    picture = np.repeat(np.clip(gray, 0, 1)[..., None], 3, axis=-1)
    if labels is None:
        return picture
    color = np.array(COLORS)[(labels.astype(int) - 1) % len(COLORS)]
    return np.where((labels > 0)[..., None], (1 - OPACITY) * picture + OPACITY * color, picture)
