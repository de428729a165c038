"""The model that a viewer sees: a bundle that carries the label maps of other studies over to the opened image."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import itk
import nibabel as nib
import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from common.errors import RegInputError
from common.volumes import open_volume, save_as

from .fusion import vote
from .pair import Answer, carry_over
from .parameters import AFFINES, MOST_SIMILAR, Asked
from .served import ServedBundle
from .similar import most_similar
from .studies import Studies

__all__ = ["PropagateLabel", "Source"]

KEPT = ("verdict", "reasons", "sdlogj", "folded_percent", "seconds")  # what the reply tells of each registration


class Source(NamedTuple):
    """A study whose label map is carried over."""

    name: str
    image: Path
    label: Path


class PropagateLabel(InferTask):
    """A bundle as a model of MONAI Label.

    Args:
        bundle: that registers.
        studies: whose labels are carried over.
        atlases: how many of the most similar studies are asked where the request does not name one.
        device: such as "cpu"; None: the bundle's choice.
    """

    def __init__(self, bundle: ServedBundle, studies: Studies, atlases: int = 1, device: str | None = None) -> None:
        super().__init__(InferType.SEGMENTATION, bundle.labels, dimension=3, description=bundle.description)
        self.bundle = bundle
        self.studies = studies
        self.atlases = atlases
        self.device = device

    def is_valid(self) -> bool:
        """Whether the bundle can register."""
        return self.bundle.ready

    def info(self) -> dict[str, Any]:
        """What the viewer is told."""
        return super().info() | {"version": self.bundle.version}

    def config(self) -> dict[str, Any]:
        """The options that the viewer shows; lists are choices, their first entry the default."""
        moving = [MOST_SIMILAR, *self.studies.labelled()]
        return {"moving": moving, "atlases": self.atlases, "affine": list(AFFINES), "store": False}

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict]:
        """Answer a request.

        Args:
            request: "asked", an :class:`tools.monai_label.parameters.Asked`; "folder", where the result goes;
                "fixed", the image's path; "image", the study's id, None for an upload; "label", the path of an uploaded
                label map of the moving image, or None.

        Returns:
            (path of the label map on the fixed image's grid, what the reply says of it).

        Raises:
            RegError: if there is no study to carry over, or a registration fails.
        """
        asked: Asked = request["asked"]
        sources = self._sources(request["fixed"], request.get("image"), asked, request.get("label"))
        answers = [self._answer(source, request) for source in sources]
        fused = vote([answer.labels for answer in answers])
        result = Path(request["folder"]) / f"label{asked.extension}"
        write_label(fused, open_volume(sources[0].label), answers[0].label, result)
        told = [
            {"moving": source.name, **{key: answer.about[key] for key in KEPT if key in answer.about}}
            for source, answer in zip(sources, answers, strict=True)
        ]
        names = {name: value for name, value in self.bundle.labels.items() if value in np.unique(fused)}
        return str(result), {"label_names": names, "moving": [s.name for s in sources], "registrations": told}

    def _sources(self, fixed: Path, image_id: str | None, asked: Asked, uploaded: Path | None) -> list[Source]:
        """The studies to carry over: the named one, or the most similar."""
        if asked.moving is not None:
            return [self._named(asked.moving, image_id, uploaded)]
        if uploaded is not None:
            raise RegInputError("a label map was uploaded without moving, expected the study it belongs to; name it.")
        known = {name: self.studies.image_path(name) for name in self.studies.labelled() if name != image_id}
        if not known:
            raise RegInputError(
                "no other study has a label with the tag 'final', expected one to carry over; label a study first."
            )
        names = most_similar(fixed, known)[: asked.atlases or self.atlases]
        return [Source(name, known[name], self.studies.final_label(name)) for name in names]

    def _named(self, moving: str, image_id: str | None, uploaded: Path | None) -> Source:
        """The study that the request names, with the uploaded label map where there is one."""
        image = self.studies.image_path(moving, "moving")
        if moving == image_id:
            raise RegInputError(f"moving is '{moving}', the opened image itself, expected another study; name one.")
        return Source(moving, image, uploaded or self.studies.final_label(moving))

    def _answer(self, source: Source, request: dict[str, Any]) -> Answer:
        """Register one study; into the studies folder where the request says so."""
        asked: Asked = request["asked"]
        out = Path(request["folder"]) / "registrations" / source.name
        if asked.store:
            out = self.studies.label_folder(asked.label_tag) / f"{request['image']}__{source.name}"
        paths = (request["fixed"], source.image, source.label)
        device = asked.device or self.device
        return carry_over(self.bundle, *paths, out, affine=asked.affine, device=device, whole=asked.store)


def write_label(labels: np.ndarray, like: nib.spatialimages.SpatialImage, on: Path, path: Path) -> None:
    """Write a label map in the data type of ``like`` on the grid of ``on``, as the format of ``path``'s extension."""
    if path.name.endswith((".nii", ".nii.gz")):
        save_as(like, labels, open_volume(on).affine, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "label.nii.gz"
        save_as(like, labels, open_volume(on).affine, between)
        itk.imwrite(itk.imread(str(between)), str(path))
