"""Work over many subjects that can be stopped at any moment and taken up again.

Beside its outputs each subject leaves a record: a digest of what went in (files and settings) and the digest of each
file that came out. A subject is done if both still hold, so neither a changed option nor a damaged output is missed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from tqdm import tqdm

from common.errors import RegEnvError

from .files import save_json, sha256

__all__ = ["digest", "finished", "run_all", "save_record"]


def digest(settings: dict[str, Any]) -> str:
    """SHA-256 of settings that JSON can hold; the order of keys does not count."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def finished(record: Path, settings: str) -> dict[str, Any] | None:
    """The row that a subject reported, if its record has this settings digest and its outputs are as they were."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        if content["settings"] != settings:
            return None
        outputs = content["outputs"].items()
        intact = all(sha256(record.parent / name) == value for name, value in outputs)
        return content["row"] if intact else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None  # no record, or none that can be read: the subject is done again


def save_record(record: Path, settings: str, outputs: Sequence[Path], row: dict[str, Any]) -> None:
    """Write a subject's record; to be called when all its outputs lie at their final names."""
    names = {os.path.relpath(path, record.parent): sha256(path) for path in sorted(outputs)}
    save_json({"settings": settings, "outputs": names, "row": row}, record)


def run_all(work: Callable[[Any], Any], jobs: Sequence[Any], workers: int, title: str) -> list[Any]:
    """``[work(job) for job in jobs]`` in worker processes, with a progress bar on standard error.

    Args:
        work: a function of a module, so that other processes can import it.
        jobs: arguments that can be pickled.
        workers: processes; 1 works in this one.
        title: text of the progress bar.

    Raises:
        RegEnvError: if the system killed a worker. Other errors of ``work`` pass; jobs not begun are dropped.
    """
    if workers <= 1 or len(jobs) <= 1:
        return [work(job) for job in tqdm(jobs, desc=title, unit="subject")]
    results: dict[int, Any] = {}
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=begin_worker)
    try:
        futures = {pool.submit(work, job): index for index, job in enumerate(jobs)}
        for future in tqdm(as_completed(futures), total=len(jobs), desc=title, unit="subject"):
            results[futures[future]] = future.result()
    except BrokenProcessPool as error:
        raise RegEnvError(
            f"a worker process was killed, often for want of memory, expected all {len(jobs)} subjects to finish; use "
            f"fewer workers and start again: finished subjects are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return [results[index] for index in range(len(jobs))]


def begin_worker() -> None:
    """Give a worker process one thread, and end it with the process that started it.

    ITK, OpenMP and BLAS read their number of threads when they are loaded, which comes after.
    """
    for name in ("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    Thread(target=leave_with_parent, daemon=True).start()


def leave_with_parent() -> None:
    """Wait for the end of the process that started this one: killed, it tells its workers nothing, and they stay."""
    parent_process().join()
    os._exit(1)
