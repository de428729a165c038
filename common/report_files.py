"""The report and the thumbnail of a registration, beside its other files; they never break it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from .errors import first_line
from .naming import Names
from .registration import Fields, Images, jacobian
from .report_data import PairView
from .report_page import save_page
from .thumbnail import save_thumbnail

__all__ = ["view_of", "write_report", "write_view"]

logger = logging.getLogger(__name__)


def write_report(folder: Path, names: Names, fields: Fields, images: Images, metrics: Mapping) -> None:
    """Write ``report.html`` and ``thumbnail.jpg`` of a registration.

    Args:
        folder: where to.
        names: of the two files.
        fields: what was found.
        images: the pair on the fixed grid.
        metrics: what ``metrics.json`` says.
    """
    write_view(folder, names, lambda: view_of(fields, images, error_in(folder / names.error)), metrics)


def write_view(folder: Path, names: Names, view: Callable[[], PairView], metrics: Mapping) -> None:
    """Write both files of what ``view()`` returns; a failure is told in a warning, as the results are there without."""
    try:
        shown = view()
        save_page(folder / names.report, shown, metrics)
        save_thumbnail(folder / names.thumbnail, shown.fixed, shown.warped, shown.spacing_mm, shown.orientation)
    except Exception as error:
        pair = f"{metrics.get('moving')} -> {metrics.get('fixed')}"
        logger.warning("%s: the report could not be written (%s); the results are whole.", pair, first_line(error))


def error_in(path: Path) -> Tensor | None:
    """The map of the error that was written before, (*S); None where there is none."""
    return torch.from_numpy(nib.load(path).get_fdata(dtype=np.float32)) if path.is_file() else None


def view_of(fields: Fields, images: Images, error_mm: Tensor | None = None) -> PairView:
    """A registration as the report shows it: labels only where both maps are there."""
    both = images.fixed_label is not None and images.warped_label is not None
    return PairView(
        fixed=images.fixed,
        moving=images.moving,
        warped=images.warped,
        ddf=fields.ddf,
        spacing_mm=fields.fixed.spacing_mm,
        orientation=fields.fixed.orientation,
        fixed_label=images.fixed_label if both else None,
        warped_label=images.warped_label if both else None,
        determinant=jacobian(fields)[0, 0],
        error_mm=error_mm,
    )
