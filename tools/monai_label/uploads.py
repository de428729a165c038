"""Files that come with a request, and PUT /datastore/image and /datastore/label, which take them into the studies.

MONAI Label's own two leave what was uploaded in the machine's temporary folder when they refuse it.
"""

import shutil
import tempfile
from pathlib import Path, PurePath
from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile

from .app import RegistrationApp
from .parameters import extension_of, read_object
from .studies import FINAL

__all__ = ["received", "upload_route"]


def received(upload: UploadFile | None, folder: str, name: str) -> Path | None:
    """An uploaded file in the request's own folder, under a name of ours; None if there is none.

    Raises:
        RegInputError: if its name has no extension of an image.
    """
    if upload is None:
        return None
    path = Path(folder) / f"uploaded_{name}{extension_of(upload.filename, name)}"
    with path.open("wb") as target:
        shutil.copyfileobj(upload.file, target)
    return path


def upload_route(app: RegistrationApp) -> APIRouter:
    """The endpoints, for an app."""
    router = APIRouter(prefix="/datastore", tags=["Datastore"])

    @router.put("/", include_in_schema=False)  # where older clients send it
    @router.put("/image", summary="Take an image in as a new study")
    def add_image(
        file: Annotated[UploadFile, File()], image: str = "", params: Annotated[str, Form()] = "{}"
    ) -> dict[str, str]:
        about = read_object(params)
        with tempfile.TemporaryDirectory(prefix="upload_") as folder:
            path = received(file, folder, "image")
            study = image or PurePath(file.filename).name[: -len(extension_of(file.filename, "image"))]
            return {"image": app.datastore().add_image(study, str(path), about)}

    @router.put("/label", summary="Save a label map of a study")
    def save_label(
        label: Annotated[UploadFile, File()], image: str, tag: str = FINAL, params: Annotated[str, Form()] = "{}"
    ) -> dict[str, str]:
        about = read_object(params)
        with tempfile.TemporaryDirectory(prefix="upload_") as folder:
            path = received(label, folder, "label")
            return {"image": image, "label": app.datastore().save_label(image, str(path), tag, about)}

    return router
