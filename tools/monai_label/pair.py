"""One pair through a bundle: what ``regbundles register`` does, for a server that stays."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import RegEnvError, RegInputError, RegNumericsError
from common.naming import output_names
from common.volumes import open_volume, read_voxels

from ..register import registration_of
from .served import ServedBundle

__all__ = ["Answer", "carry_over"]

logger = logging.getLogger(__name__)

KINDS = {kind.exit_status: kind for kind in (RegInputError, RegEnvError, RegNumericsError)}


@dataclass(frozen=True)
class Answer:
    """What a registration found.

    Attributes:
        label: the moving label map on the fixed image's grid, a file.
        labels: its voxels.
        about: what ``metrics.json`` says: whether it worked, scores, seconds.
    """

    label: Path
    labels: np.ndarray
    about: dict


def carry_over(
    bundle: ServedBundle,
    fixed: Path,
    moving: Path,
    label: Path,
    out: Path,
    affine: str,
    device: str | None,
    whole: bool,
) -> Answer:
    """Register two images and bring the label map of one onto the grid of the other.

    Args:
        bundle: that registers.
        fixed: image whose grid the answer has.
        moving: image whose label map is known.
        label: that map.
        out: folder for the results; what an earlier registration left there is replaced.
        affine: the first alignment, as of ``regbundles register --affine``.
        device: such as "cpu"; None: the bundle's choice.
        whole: inverse, report and picture too.

    Raises:
        RegInputError: if the pair cannot be registered.
        RegEnvError: if ``out`` cannot be written.
        RegNumericsError: if the registration leaves the finite numbers.
    """
    ids = {"fixed": str(fixed), "moving": str(moving), "moving_label": str(label), "device": device, "force": True}
    ids |= {"affine": affine, "inverse": whole, "picture": whole, "report": whole}
    try:
        registration_of(str(bundle.root), out, ids, quiet=True)().run()
    except Exception as error:
        raise ours(error) from error
    names = output_names(fixed, moving)
    warped = out / names.warped_label
    voxels = read_voxels(open_volume(warped))
    return Answer(warped, voxels.astype(np.int32), json.loads((out / names.metrics).read_text()))


def ours(error: BaseException) -> BaseException:
    """The error that a person can mend in a chain of causes, in our class: a packed bundle raises those of its own
    ``common``; an error that nobody foresaw stays as it is."""
    link: BaseException | None = error
    while link is not None:
        kind = KINDS.get(getattr(link, "exit_status", None))
        if kind is not None:
            return link if isinstance(link, kind) else kind(str(link))
        link = link.__cause__ or link.__context__
    return error
