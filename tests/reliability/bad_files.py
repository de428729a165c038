"""Rows 1 to 21 of the table: what can be wrong with a file before anybody looks at its voxels."""

import ctypes
import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.common.dicom_series import write_series

from .bad_case import Bad, Good
from .study import Study

__all__ = ["CASES", "patched", "without_root"]

OWN = ("register", "infer")  # what reads more than NIfTI is asked of these two alone
HTML = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n"


def whole(study: Study) -> bytes:
    """The file of the scan under test."""
    return study.files("dan")["image"].read_bytes()


def content(study: Study) -> bytes:
    """The same, not compressed."""
    return gzip.decompress(whole(study))


def dims(*size: int) -> bytes:
    """Axes as a header has them, from byte 42."""
    return np.array(size, "<i2").tobytes()


def patched(study: Study, *patches: tuple[int, bytes], name: str = "bad.nii.gz", part: str = "image") -> Path:
    """The scan with other bytes at some places of its header."""
    data = bytearray(gzip.decompress(study.files("dan")[part].read_bytes()))
    for offset, patch in patches:
        data[offset : offset + len(patch)] = patch
    return written(study, name, gzip.compress(bytes(data), mtime=0), part)


def written(study: Study, name: str, data: bytes, part: str = "image") -> Path:
    """A file of these bytes, used as the image."""
    (study.data / name).write_bytes(data)
    return study.use(study.data / name, part)


def cut(name: str, share: float) -> Callable[[Study], Path]:
    """A file that ends early."""

    def make(study: Study) -> Path:
        data = content(study) if name.endswith(".nii") else study.files("dan")["image"].read_bytes()
        return written(study, name, data[: int(share * len(data))])

    return make


def flipped_bit(study: Study) -> Path:
    """One bit of one voxel, in a stream whose checksum tells: nibabel never reads that far."""
    data = bytearray(gzip.compress(content(study), compresslevel=0, mtime=0))
    data[len(data) // 2] ^= 16
    return written(study, "flipped.nii.gz", bytes(data))


def bomb(study: Study) -> Path:
    """A megabyte that unpacks to 800 x 800 x 900 voxels."""
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).header
    header.set_data_shape((800, 800, 900))
    chunk = gzip.compress(bytes(1 << 24), mtime=0)
    head = gzip.compress(header.binaryblock + bytes(4), mtime=0)
    return written(study, "bomb.nii.gz", head + chunk * (1 + 2 * 800 * 800 * 900 // (1 << 24)))


def two_series(study: Study) -> Path:
    """A folder with two series in it."""
    for number, first in (("1.2.3.4", 0), ("1.2.3.5", 10)):
        write_series(study.data / "series", uid=number, order=range(first, first + 5))
    return study.use(study.data / "series")


def one_of_dicom(study: Study) -> Path:
    """One slice instead of the folder."""
    write_series(study.data / "series")
    return study.use(min((study.data / "series").iterdir()))


def folder(study: Study) -> Path:
    """One without a scan in it."""
    (study.data / "empty").mkdir()
    return study.use(study.data / "empty")


def linked(study: Study) -> None:
    (study.data / "link.nii.gz").symlink_to(study.subject["image"])
    study.use(study.data / "link.nii.gz")


def looped(study: Study) -> Path:
    (study.data / "loop.nii.gz").symlink_to("loop.nii.gz")
    return study.use(study.data / "loop.nii.gz")


def locked(study: Study) -> Path:
    path = written(study, "locked.nii.gz", study.subject["image"].read_bytes())
    path.chmod(0)
    return path


def odd_path(study: Study) -> None:
    """Letters, quotes and spaces of a path that people do have, in every folder and name."""
    odd = study.base / "Zoë's «brains», № 1" / '日本 "2"'
    odd.mkdir(parents=True)
    study.data.rename(odd / "data")
    study.base = odd
    study.out = odd / "où ça"
    for name in ("cyd", "dan"):
        for part, path in study.files(name).items():
            path.rename(path.with_name(f"{name} & Søn's {part}.nii.gz"))
    study.other, study.subject = (
        {part: study.data / f"{name} & Søn's {part}.nii.gz" for part in ("image", "label")} for name in ("cyd", "dan")
    )


def windows_lists(study: Study) -> None:
    """Lists as an editor under Windows leaves them: a byte order mark, lines ended by CR and LF."""

    study.encode = lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()


def long_name(name: str) -> Callable[[Study], Path]:
    return lambda study: study.use(study.data / name)


CASES = (
    Bad(1, "a missing file", lambda s: s.use(s.data / "gone.nii.gz"), "No such file|does not exist"),
    Bad(2, "an empty .nii", lambda s: written(s, "empty.nii", b""), "is empty"),
    Bad(2, "an empty .nii.gz", lambda s: written(s, "empty.nii.gz", b""), "is empty"),
    Bad(3, "a header cut short", cut("cut.nii", 0.005), "no image that can be read"),
    Bad(4, "voxels cut short", cut("cut.nii", 0.5), r"holds \d+ bytes, its header claims \d+"),
    Bad(5, "a stream cut short", cut("cut.nii.gz", 0.5), "ends before its checksum"),
    Bad(6, "a flipped bit", flipped_bit, "is damaged"),
    Bad(7, "a checksum cut off", cut("cut.nii.gz", 1 - 1e-4), "ends before its checksum"),
    Bad(8, "rubbish behind the stream", lambda s: written(s, "tail.nii.gz", whole(s) + b"rubbish"), "is damaged"),
    Bad(9, "a wrong magic", lambda s: patched(s, (344, b"n+7\0")), "no image that can be read"),
    Bad(10, "a plain file called .gz", lambda s: written(s, "plain.nii.gz", content(s)), "is not compressed.*rename"),
    Bad(10, "a gzip file called .nii", lambda s: written(s, "packed.nii", whole(s)), "is gzip-compressed.*rename"),
    Bad(11, "a web page", lambda s: written(s, "page.nii.gz", HTML), "is a web page.*login"),
    Bad(12, "a bomb", bomb, r"claims \(800, 800, 900\) voxels, expected at most"),
    Bad(13, "a header of 30000 x 30000 x 16", lambda s: patched(s, (42, dims(30000, 30000, 16))), "claims"),
    Bad(14, "a folder of two DICOM series", two_series, "2 DICOM series", OWN, alone=False),
    Bad(14, "one file of DICOM", one_of_dicom, "one file of DICOM.*folder", alone=False),
    Bad(15, "an empty folder", folder, "is a folder without DICOM|does not exist", alone=False),
    Good(16, "a link", linked),
    Bad(17, "a link to itself", looped, "symbolic links|does not exist"),
    Bad(18, "a file that nobody may read", locked, "Permission denied"),
    Good(19, "a path with spaces, quotes and other letters", odd_path),
    Bad(20, "a name of 300 letters", long_name("x" * 300 + ".nii.gz"), "too long|does not exist"),
    Bad(20, "a path of 5000 letters", long_name("deeper/" * 700 + "x.nii.gz"), "too long|does not exist"),
    Good(21, "lists with a byte order mark and CR LF", windows_lists, by=("prepare", "evaluate", "train"), alone=False),
)


@contextmanager
def without_root() -> Iterator[None]:
    """Take the right to read everything from root, for as long as this lasts; nobody else has it."""
    if os.geteuid():
        yield
        return
    library, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    rights = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    library.capget(header, rights)
    before = rights[0]
    rights[0] = before & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    library.capset(header, rights)
    try:
        yield
    finally:
        rights[0] = before
        library.capset(header, rights)
