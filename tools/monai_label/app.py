"""The MONAI Label app: bundles as models, and their training."""

import json
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

from common.errors import RegInputError

from .fine_tune import FineTune, can_train, check_trainable
from .propagate import PropagateLabel
from .served import ServedBundle, serve_bundles
from .studies import Studies, UnknownStudyError

__all__ = ["RegistrationApp"]

NAME = "Registration"
DESCRIPTION = "Labels of other studies, carried over to the opened image by deformable registration"


class RegistrationApp(MONAILabelApp):
    """What MONAI Label asks of an app; images are ids of studies, never paths.

    Args:
        app_dir: this folder.
        studies: folder of the images, see :class:`tools.monai_label.studies.Studies`.
        conf: "bundles", a JSON list of folders; "atlases" and "device" of the models.

    Raises:
        RegInputError: if a bundle cannot be served.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.bundles: list[ServedBundle] = serve_bundles(json.loads(conf["bundles"]))
        self.device = conf.get("device") or None
        self.atlases = int(conf.get("atlases", 1))
        super().__init__(app_dir, studies, conf, name=NAME, description=DESCRIPTION, version="0.1.0")

    def init_datastore(self) -> Studies:
        """The studies folder."""
        return Studies(self.studies, auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD)

    def init_infers(self) -> dict[str, PropagateLabel]:
        """A model a bundle."""
        return {b.name: PropagateLabel(b, self.datastore(), self.atlases, self.device) for b in self.bundles}

    def init_trainers(self) -> dict[str, FineTune]:
        """The bundles whose weights a training can improve."""
        return {bundle.name: FineTune(bundle, self.device) for bundle in self.bundles if can_train(bundle)}

    def init_strategies(self) -> dict:
        """Which study comes next."""
        return {"first": First(), "random": Random()}

    def init_scoring_methods(self) -> dict:
        """None."""
        return {}

    def infer(self, request: dict[str, Any], datastore: Studies | None = None) -> dict[str, Any]:
        """Carry a label over to a study or an uploaded image.

        Args:
            request: "model"; "asked", an :class:`tools.monai_label.parameters.Asked`; "image", the study's id, or
                "upload", the path of an image; "label", the path of an uploaded label map, or None; "folder", an empty
                one.
            datastore: not used.

        Returns:
            "file", the label map's path, and "params", what the reply says of it.
        """
        task, asked = self._model(request["model"]), request["asked"]
        upload = request.get("upload")
        if upload is not None and (asked.save_label or asked.store):
            raise RegInputError(
                "save_label or store came with an uploaded image, expected a study of the folder; upload it as one "
                "first, with PUT /datastore/image."
            )
        fixed = upload or self.datastore().image_path(request.get("image"))
        file, params = task({**request, "fixed": fixed, "image": None if upload else request["image"]})
        if asked.save_label:
            self.datastore().save_label(request["image"], file, asked.label_tag, {"params": params})
        return {"file": file, "params": params}

    def _model(self, name: str) -> PropagateLabel:
        if name not in self._infers:
            raise UnknownStudyError(
                f"there is no model '{name}', expected one of {', '.join(self._infers)}; choose one."
            )
        return self._infers[name]

    def check_training(self, name: str) -> None:
        """Raise RegInputError unless there is such a training, and studies for it."""
        if name not in self._trainers:
            known = ", ".join(self._trainers) or "none"
            raise UnknownStudyError(f"there is no training of '{name}', expected one of: {known}; choose one.")
        check_trainable(self._trainers[name].bundle, self.datastore())
