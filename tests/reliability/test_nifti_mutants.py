"""Damaged NIfTI files through the loader that register, evaluate and training begin with."""

import logging
import multiprocessing
import resource
import signal
import struct
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.errors import RegError
from common.preflight import Volume, check_image, check_label
from tests.reliability.nifti_mutants import (
    BASES,
    MEMORY,
    SECONDS,
    Base,
    Mutant,
    body_mutants,
    header_mutants,
    mutant,
    same,
)

SUBJECT = "NIfTI mutants"
BATCH = 250  # mutants a process
RIGHT = ("refused", "the same", "warned", "said once")  # nifti_mutants says when each is
Picture = tuple[np.ndarray, np.ndarray]


class TooLong(BaseException):
    """Raised by the alarm: no ``except Exception`` holds it up."""


def give_up(*_: object) -> None:
    raise TooLong


def ours(base: Base, path: Path) -> Picture:
    """What the preflight reads."""
    if not base.labels:
        volume = check_image(path)
    else:
        shape, affine = base.original[0].shape, base.original[1]
        volume = check_label(path, Volume(path, np.empty(shape, np.float32), affine))
    return volume.voxels, volume.affine


def by_nibabel(_: Base, path: Path) -> Picture:
    """What nibabel reads, which MONAI's LoadImage takes as it is."""
    image = nib.load(path)
    with np.errstate(all="ignore"):
        return np.asarray(image.dataobj).astype(np.float32), image.affine


def way(mutant: Mutant, path: Path, read: Callable[[Base, Path], Picture], refusal: type[Exception]) -> str:
    """Which way a reader went: one of ``RIGHT``, or what is wrong."""
    warned = []
    listener = logging.Handler()
    listener.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger("common").addHandler(listener)
    signal.alarm(SECONDS)
    try:
        voxels, affine = read(mutant.base, path)
    except refusal as error:
        return "refused" if "\n" not in str(error) or refusal is Exception else "refused in several lines"
    except TooLong:
        return f"longer than {SECONDS} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        logging.getLogger("common").removeHandler(listener)
    if same(mutant.base.original, voxels, affine):
        return "the same"
    if any(str(path) in text for text in warned):
        return "warned"
    return "said once" if same(mutant.said, voxels, affine) else "read as something else"


def look(mutants: Sequence[Mutant], alone: bool, folder: str, answers: Connection) -> None:
    """In a process of its own: say of each mutant how we read it and, if asked, how nibabel does."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, give_up)
    nib.imageglobals.logger.setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for one in mutants:
        path = Path(folder, f"{one.name.replace(' ', '_')}.{one.base.name}")  # warnings are said once a name
        path.write_bytes(one.file)
        found = way(one, path, ours, RegError)
        answers.send((found, way(one, path, by_nibabel, Exception) if alone else None))
        path.unlink()


def looked_at(mutants: Sequence[Mutant], alone: bool) -> Iterator[tuple[Mutant, str, str | None]]:
    """How each mutant was read; those after one that a process does not survive are wrong as well."""
    context = multiprocessing.get_context("fork")  # everything is imported, and no thread is needed
    left = list(mutants)
    with tempfile.TemporaryDirectory() as folder:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=look, args=(left, alone, folder, there))
        process.start()
        there.close()  # so that its death ends the reading
        try:
            while left and here.poll(3 * SECONDS):
                found = here.recv()
                yield left.pop(0), *found
        except EOFError:  # it died
            pass
        finally:
            process.kill()
            process.join()
    yield from ((one, "no answer", None) for one in left)


def test_sound_files_are_read_as_they_are():
    sound = [mutant(base, base.name, base.content) for base in BASES]
    assert [(ours, alone) for _, ours, alone in looked_at(sound, alone=True)] == [("the same", "the same")] * len(BASES)


@pytest.mark.parametrize(("mutants", "all_of_them", "some"), [(header_mutants, 3000, 150), (body_mutants, 1000, 50)])
def test_no_mutant_is_silently_read_as_something_else(ledger, count, mutants, all_of_them, some):
    ways, wrong = Counter(), []
    drawn = list(mutants(count(all_of_them, some)))
    for start in range(0, len(drawn), BATCH):
        for one, found, alone in looked_at(drawn[start : start + BATCH], ledger.kept):
            ways[found] += 1
            wrong += [] if found in RIGHT else [f"{one.base.name}, {one.name}: {found}"]
            ledger.tell(SUBJECT, one.name, found in RIGHT)
            if ledger.kept:
                ledger.tell_alone(SUBJECT, one.name, alone in RIGHT, "nibabel")
    assert wrong == []
    assert ways["refused"] > 0.05 * len(drawn) and ways["said once"] < 0.1 * len(drawn), ways


def test_a_slope_that_another_writer_might_have_meant_is_applied_and_a_changed_shape_is_refused():
    """The judge itself, on mutants whose fate is known."""
    scaled, sform = (next(base for base in BASES if base.name.startswith(name)) for name in ("scaled", "sform"))
    cases = {
        "said once": changed(scaled, 112, struct.pack("<f", 3.5)),
        "refused": changed(scaled, 42, struct.pack("<h", 12)),
        "warned": changed(scaled, 292, struct.pack("<f", 99.0)),
        "the same": changed(sform, 148, b"another description"),
    }
    assert [found for _, found, _ in looked_at(list(cases.values()), alone=False)] == list(cases)
    (_, _, alone), *_ = looked_at([cases["refused"]], alone=True)
    assert alone == "read as something else"


def changed(base: Base, place: int, data: bytes) -> Mutant:
    """A copy with other bytes at one place of its header."""
    content = base.content[:place] + data + base.content[place + len(data) :]
    return mutant(base, f"{base.name} {place}", content)
