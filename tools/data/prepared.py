"""What every preparation shares: jobs that are done once, the report, the contact sheet and ``datalist.json``.

A data set's own module finds the raw files and checks them all, then hands over a job a scan and a function that does
one job. What is finished is not done again (``resume.py``); ``datalist.json`` is written last, so that a folder
without it is known to be unfinished.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any

from common.report import SheetRow, contact_sheet

from .files import remove_leftovers, save_csv, save_json
from .resume import finished, run_all, save_record

__all__ = ["Job", "entry_path", "finish_dataset", "make_all", "pair_entry", "subject_entry"]

ENDINGS = {"image": "nii.gz", "label": "nii.gz", "mask": "nii.gz", "keypoints": "csv", "affine": "txt"}
FOLDERS = {"image": "images", "label": "labels", "mask": "masks", "keypoints": "keypoints", "affine": "affines"}


@dataclass(frozen=True)
class Job:
    """One scan's work, as it is sent to a worker process."""

    name: str
    raw: Any
    """What the function that does the job needs; it must be picklable."""
    settings: str
    """Digest (:func:`tools.data.resume.digest`) of everything that the result depends on."""
    out: Path
    """The prepared data set's folder."""
    kinds: tuple[str, ...] = ("image", "label")
    """What is written, of ``ENDINGS``."""

    def output(self, kind: str) -> Path:
        """The file of one kind."""
        return self.out / entry_path(kind, self.name)

    @property
    def record(self) -> Path:
        """Where it is noted that the job is done."""
        return self.out / "records" / f"{self.name}.json"


def make_all(
    make: Callable[[Job], dict[str, Any]],
    jobs: Sequence[Job],
    *,
    title: str,
    workers: int | None = None,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Do every job that is not done, in worker processes; the rows of the report in the order of the jobs.

    Args:
        make: a module's function that writes a job's files and returns its row of the report.
        jobs: with names of their own.
        title: text of the progress bar.
        workers: processes; by default one a processor.
        force: do again what is done.

    Raises:
        RegEnvError: if the system killed a worker.
    """
    if force:
        for job in jobs:
            job.record.unlink(missing_ok=True)
    return run_all(partial(make_once, make), jobs, workers or cpu_count() or 1, title)


def make_once(make: Callable[[Job], dict[str, Any]], job: Job) -> dict[str, Any]:
    """The row of a job, done now or before."""
    row = finished(job.record, job.settings)
    if row is None:
        row = make(job)
        save_record(job.record, job.settings, [job.output(kind) for kind in job.kinds], row)
    return row


def finish_dataset(
    out: Path, rows: Sequence[Mapping[str, Any]], sheet: Iterable[SheetRow], content: Mapping[str, Any]
) -> Path:
    """Write ``report.csv``, ``contact_sheet.png`` and, last, ``datalist.json``; return the path of that.

    Args:
        out: the prepared data set's folder; what killed processes left in it goes.
        rows: of the report.
        sheet: scans for the contact sheet, an iterator so that one volume at a time is in memory.
        content: of ``datalist.json``.
    """
    remove_leftovers(out)
    save_csv(rows, out / "report.csv")
    contact_sheet(sheet, out / "contact_sheet.png")
    save_json(content, out / "datalist.json")
    return out / "datalist.json"


def entry_path(kind: str, name: str) -> str:
    """Where a scan's file of one kind lies, relative to the datalist."""
    return f"{FOLDERS[kind]}/{name}.{ENDINGS[kind]}"


def subject_entry(name: str, kinds: Sequence[str] = ("image", "label")) -> dict[str, str]:
    """A scan's entry in the datalist's "training"."""
    return {kind: entry_path(kind, name) for kind in kinds}


def pair_entry(fixed: str, moving: str, parts: Sequence[str] = ("label",)) -> dict[str, str]:
    """An entry of the datalist's "validation" or "testing"; ``parts`` come with both images."""
    entry = {"fixed": entry_path("image", fixed), "moving": entry_path("image", moving)}
    for part in parts:
        entry |= {f"fixed_{part}": entry_path(part, fixed), f"moving_{part}": entry_path(part, moving)}
    return entry
