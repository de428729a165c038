"""The HTTP server: MONAI Label's endpoints for viewers, with our own for inference, training and uploads.

Left out are those that would let a client write weights, unpack archives or reach other servers (/model, /session,
/proxy), and those that registration has no use for (batch and whole-slide inference, scoring, logs). Every refusal is
a JSON object with one sentence under "detail".
"""

import json
import logging
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.endpoints import activelearning, datastore, info, train
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils import app as instances

from common.errors import RegEnvError, RegInputError, RegNumericsError, mendable

from ..repository import REPOSITORY
from .app import RegistrationApp
from .inference_route import inference_route
from .limits import Gate
from .studies import UnknownStudyError
from .training_route import training_route
from .uploads import upload_route

__all__ = ["create_server", "serve", "start_app"]

logger = logging.getLogger(__name__)

LOCAL = ("127.0.0.1", "localhost")
STATUS = {UnknownStudyError: 404, RegNumericsError: 422, RegEnvError: 503, RegInputError: 400}
UNFORESEEN = "the server failed in a way that nobody foresaw; its log says where."
NO_WEIGHTS = "weights are not taken from a client; put them into the bundle's folder, or train with POST /train/."


def serve(
    studies: Path,
    bundles: list[str],
    *,
    atlases: int,
    device: str | None,
    listening: socket.socket,
    limit_mib: int,
) -> None:
    """Answer requests until the process is stopped.

    Args:
        studies: the folder of images.
        bundles: folders of the bundles.
        atlases: as in :class:`tools.monai_label.propagate.PropagateLabel`.
        device: likewise.
        listening: socket that requests come to.
        limit_mib: of a request's body.
    """
    address, port = listening.getsockname()[:2]
    conf = {"bundles": json.dumps(bundles), "atlases": str(atlases), "device": device or ""}
    app = start_app(studies, conf, port)
    server = create_server(app, LOCAL if address in LOCAL else ("*",), limit_mib)
    print(f"http://{address}:{port}/ serves {', '.join(app._infers) or 'no bundle'} on {studies}", flush=True)
    uvicorn.Server(uvicorn.Config(server, log_level="warning", access_log=False)).run(sockets=[listening])


def start_app(studies: Path, conf: dict[str, str], port: int) -> RegistrationApp:
    """Make the app, and let MONAI Label's endpoints and its background processes find it."""
    folder, root = str(Path(__file__).parent), str(studies.resolve())
    settings.MONAI_LABEL_APP_DIR, settings.MONAI_LABEL_STUDIES = folder, root
    settings.MONAI_LABEL_APP_CONF, settings.MONAI_LABEL_SERVER_PORT = conf, port
    settings.MONAI_LABEL_SESSIONS = False
    os.environ |= {  # of a training in the background
        "MONAI_LABEL_APP_DIR": folder,
        "MONAI_LABEL_STUDIES": root,
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_SESSIONS": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
    }
    app = RegistrationApp(folder, root, conf)
    instances.apps[f"{folder}{root}"] = app
    return app


def create_server(app: RegistrationApp, hosts: tuple[str, ...], limit_mib: int) -> FastAPI:
    """The server of an app.

    Args:
        app: as :func:`start_app` made it.
        hosts: names under which it may be called, so that no page in a browser reaches it under another; "*" is any.
        limit_mib: of a request's body.
    """
    server = FastAPI(title=app.name, description=app.description, version=app.version)
    server.add_middleware(Gate, hosts=hosts, limit_mib=limit_mib)
    for router in (inference_route(app), training_route(app), upload_route(app), weights_route()):
        server.include_router(router)  # before MONAI Label's, which answer what these do not
    for endpoints in (info, activelearning, datastore, train):
        server.include_router(endpoints.router)
    folders = {f"{app.datastore().folder}/": ""} | {f"{bundle.root}/": f"{bundle.name}/" for bundle in app.bundles}

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        status, sentence = refusal(error)
        if status >= 500:
            logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse({"detail": without_folders(sentence, folders)}, status)

    for kind in (Exception, MONAILabelException, RequestValidationError, *STATUS):
        server.add_exception_handler(kind, refuse)
    return server


def weights_route() -> APIRouter:
    """PUT and DELETE /model/{model}, refused in words."""
    router = APIRouter(tags=["Model"])

    @router.api_route("/model/{model}", methods=["PUT", "DELETE"], summary="Refused")
    def weights(model: str) -> None:
        raise HTTPException(403, NO_WEIGHTS)

    return router


def refusal(error: Exception) -> tuple[int, str]:
    """Status and sentence for an error."""
    if isinstance(error, RequestValidationError):
        return 400, f"the request does not fit: {validation_text(error)}; see /docs."
    if isinstance(error, MONAILabelException):
        return 400, f"MONAI Label refused it: {error.msg}"
    if isinstance(error, json.JSONDecodeError):  # of MONAI Label's endpoints whose params are JSON in a form
        return 400, f"params is no JSON ({error}), expected an object; correct it."
    found = mendable(error)
    if found is None:
        return 500, UNFORESEEN
    return next(status for kind, status in STATUS.items() if isinstance(found, kind)), str(found)


def validation_text(error: RequestValidationError) -> str:
    """What FastAPI found, in one line."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def without_folders(sentence: str, folders: Mapping[str, str]) -> str:
    """A sentence without the server's folders: a client knows files by their names.

    Args:
        sentence: that may name files.
        folders: what stands for each folder; those of requests, in the temporary folder, go.
    """
    for folder, shown in folders.items():
        sentence = sentence.replace(folder, shown)
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/[^/\s]+/", "", sentence)
