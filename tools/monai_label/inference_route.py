"""POST /infer/{model}: an image of the studies folder, or an uploaded one, gets the labels of another study."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import JSONResponse, Response
from requests_toolbelt import MultipartEncoder

from common.errors import RegEnvError, RegInputError

from .app import RegistrationApp
from .parameters import read_params
from .uploads import received

__all__ = ["inference_route"]

WAIT_S = 600.0  # for the registrations that came before
BINARY = "application/octet-stream"


class Output(StrEnum):
    """What the reply holds: the label map, what is said of it, or both as a form."""

    image = "image"
    json = "json"
    all = "all"


def inference_route(app: RegistrationApp) -> APIRouter:
    """The endpoint, for an app. One registration runs at a time: each takes all processors."""
    router, lock = APIRouter(tags=["Infer"]), Lock()

    @router.post("/infer/{model}", summary="Carry the label of another study over to an image")
    def infer(
        model: str,
        image: Annotated[str, Query(description="id of the study")] = "",
        params: Annotated[str, Form(description="JSON object, see /info/")] = "{}",
        file: Annotated[UploadFile | None, File(description="the image itself, instead of an id")] = None,
        label: Annotated[UploadFile | None, File(description="label map of the moving study")] = None,
        output: Output = Output.all,
    ) -> Response:
        asked = read_params(params)
        if bool(image) == (file is not None):
            raise RegInputError("the image's id and a file were given or both left out, expected one of the two.")
        with tempfile.TemporaryDirectory(prefix="infer_") as folder, turn(lock):
            request = {"model": model, "image": image, "asked": asked, "folder": folder}
            request |= {"upload": received(file, folder, "image"), "label": received(label, folder, "label")}
            answer = app.infer(request)
            return reply(Path(answer["file"]), answer["params"], output)

    return router


@contextmanager
def turn(lock: Lock) -> Iterator[None]:
    """Wait for the lock; RegEnvError if others hold it too long."""
    if not lock.acquire(timeout=WAIT_S):
        raise RegEnvError(f"other registrations ran for {WAIT_S:.0f} s, expected a free server; ask again later.")
    try:
        yield
    finally:
        lock.release()


def reply(path: Path, params: dict, output: Output) -> Response:
    """The reply, whole in memory, so that no file outlives the request."""
    if output is Output.json:
        return JSONResponse(params)
    content = path.read_bytes()
    if output is Output.image:
        return Response(
            content, media_type=BINARY, headers={"Content-Disposition": f'attachment; filename="{path.name}"'}
        )
    form = {"params": (None, json.dumps(params), "application/json"), "image": (path.name, content, BINARY)}
    encoder = MultipartEncoder(fields=form)
    return Response(encoder.to_string(), media_type=encoder.content_type)
