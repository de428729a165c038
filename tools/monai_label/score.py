"""What a running server makes of the demonstration: Dice against the truth before and after, and a picture."""

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from common.errors import RegInputError
from common.metrics import dice
from common.report import save_figure

from .label_figure import label_figure

__all__ = ["Score", "score"]


class Score(NamedTuple):
    """Mean Dice over the labels of one study; before: the label of the first moving study as it is."""

    study: str
    moving: list[str]
    before: float
    after: float


def score(demonstration: Path, url: str, model: str, atlases: int = 1, picture: Path | None = None) -> list[Score]:
    """Ask for the label map of every study whose truth is known.

    Args:
        demonstration: the folder of :func:`tools.monai_label.demonstration.write_demonstration`, served at ``url``.
        url: of the server.
        model: a bundle's name.
        atlases: how many studies to fuse.
        picture: PNG of the first study: image, label as it is, label carried over, truth.

    Raises:
        RegInputError: if the server refuses.
    """
    scores, client = [], MONAILabelClient(url)
    for truth in sorted((demonstration / "truth").glob("*.nii.gz")):
        study = truth.name.removesuffix(".nii.gz")
        try:
            file, told = client.infer(model, study, {"atlases": atlases, "result_extension": ".nii.gz"})
        except (MONAILabelClientException, OSError) as error:
            raise RegInputError(
                f"{url} did not answer ({error}), expected a server on {demonstration}; start one."
            ) from error
        known = demonstration / "studies" / "labels" / "final" / f"{told['moving'][0]}.nii.gz"
        maps = [np.asarray(nib.load(path).dataobj) for path in (known, file, truth)]
        scores.append(Score(study, told["moving"], mean_dice(maps[0], maps[2]), mean_dice(maps[1], maps[2])))
        if picture is not None and len(scores) == 1:
            draw(demonstration / "studies" / truth.name, maps, scores[0], picture)
    return scores


def mean_dice(label: np.ndarray, truth: np.ndarray) -> float:
    """Over the labels of the truth."""
    values = [int(value) for value in np.unique(truth) if value]
    label, truth = (torch.from_numpy(part.astype(np.int32))[None, None] for part in (label, truth))
    return float(dice(label, truth, values).nanmean())


def draw(path: Path, maps: list[np.ndarray], scored: Score, picture: Path) -> None:
    """The picture of one study."""
    image = nib.load(path)
    titles = (
        f"{scored.moving[0]}'s label\nas it is: Dice {scored.before:.3f}",
        f"carried over:\nDice {scored.after:.3f}",
    )
    columns = {scored.study: None, **dict(zip((*titles, "truth"), maps, strict=True))}
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0).tolist()
    orientation = "".join(nib.aff2axcodes(image.affine))
    save_figure(label_figure(image.get_fdata(dtype=np.float32), columns, spacing, orientation), picture)
