"""POST /train/{model}: fine-tune on the labelled studies; its progress is MONAI Label's GET /train/."""

from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException
from monailabel.utils.async_tasks.task import AsyncTask

from .app import RegistrationApp
from .parameters import Training

__all__ = ["training_route"]

BUSY = "a training is running, expected none; wait until it is done, or stop it with DELETE /train/."
TOO_MANY = 429
UNFINISHED = ("SUBMITTED", "RUNNING")


def training_route(app: RegistrationApp) -> APIRouter:
    """The endpoint, for an app. One training runs at a time."""
    router, lock = APIRouter(tags=["Train"]), Lock()

    @router.post("/train/{model}", summary="Fine-tune on the studies that have labels")
    def fine_tune(
        model: str, params: Annotated[dict[str, Any] | None, Body()] = None, run_sync: bool = False
    ) -> dict[str, Any]:
        app.check_training(model)
        asked = {key: value for key, value in Training.read(params or {})._asdict().items() if value is not None}
        if not lock.acquire(blocking=False):
            raise HTTPException(TOO_MANY, BUSY)
        try:
            newest, _ = AsyncTask.status("train")
            if newest is not None and newest["status"] in UNFINISHED:
                raise HTTPException(TOO_MANY, BUSY)
            return AsyncTask.run("train", {"model": model}, asked, force_sync=run_sync, enqueue=True)[0]
        finally:
            lock.release()

    return router
