"""Arrays out of pickle files, which could run any program: nothing but numbers is admitted, and nothing is called.

A pickle names the functions that rebuild its objects. Here every name that an array of numbers needs stands for code of
this file; numpy's own functions are not handed out, and any other name ends the reading before it is looked up.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import RegInputError

__all__ = ["read_arrays"]

MAX_BYTES = 512 << 20  # of a file: four volumes of 160 x 192 x 224 in double precision take 220 MB
MAX_MEMO = 10_000  # a hostile file could ask for a table of any length; two arrays take a dozen entries
KINDS = "biuf"  # bool, integers and floats
NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")


def read_arrays(path: Path, count: int, max_bytes: int = MAX_BYTES) -> list[np.ndarray]:
    """The arrays of a pickled tuple or list of arrays, as old and new numpy write them.

    Args:
        path: the file.
        count: how many arrays it must hold.
        max_bytes: largest file that is read.

    Raises:
        RegInputError: if the file is missing, larger, damaged, holds anything but arrays of numbers, or not ``count``.
    """
    content = read_bytes(path, max_bytes)
    try:
        check_memo(content)
        arrays = ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        arrays = [item.array() if isinstance(item, PickledArray) else item for item in arrays]
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise RegInputError(
            f"{path} is no pickle of numpy arrays ({reason(error)}), expected {count} arrays of numbers; nothing in it "
            f"was run, fetch it again from its publisher."
        ) from error
    found = [item.ndim if isinstance(item, np.ndarray) else type(item).__name__ for item in arrays]
    if len(found) != count or not all(isinstance(item, np.ndarray) for item in arrays):
        raise RegInputError(f"{path} holds {found}, expected {count} arrays; fetch it again from its publisher.")
    return arrays


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The whole file, its size looked at first."""
    try:
        size = path.stat().st_size
        if size <= max_bytes:
            return path.read_bytes()
    except OSError as error:
        raise RegInputError(f"{path} cannot be read ({error.strerror}), expected a pickle; check the path.") from error
    raise RegInputError(f"{path} has {size} bytes, expected at most {max_bytes}; check that it belongs to the release.")


def check_memo(content: bytes) -> None:
    """Refuse a file that would make the unpickler keep a long table; what follows its end is not looked at."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= MAX_MEMO:
            raise pickle.UnpicklingError(f"entry {argument} of its table")


def reason(error: BaseException) -> str:
    """The first line of an error, short."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]


class ArrayUnpickler(pickle.Unpickler):
    """Admits the names that arrays of numbers need, each as code of this file, new for every use."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name.

        A function made here and now: a pickle can set attributes on what it is given, which then touches nothing else.
        """
        make = ADMITTED.get((module, name))
        if make is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return lambda *arguments: make(*arguments)

    def persistent_load(self, pid: Any) -> Any:
        """No object outside the file."""
        raise pickle.UnpicklingError("it asks for an object outside the file")


class PickledType:
    """A number's type: stands for ``numpy.dtype``."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(str(code)[:3])
        if self.dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"it holds values of type {self.dtype}")

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class PickledArray:
    """An array in the making: stands for ``numpy.ndarray``."""

    state: tuple[bytes, PickledType, tuple, str] | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, content = state
        self.state = content, dtype, shape, "F" if is_fortran else "C"

    def array(self) -> np.ndarray:
        """The array, its voxels in memory of its own."""
        content, dtype, shape, order = self.state
        content = content.encode("latin1") if isinstance(content, str) else content
        voxels = np.frombuffer(content, dtype.dtype)
        if voxels.dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"it holds values of type {voxels.dtype}")
        return voxels.reshape(tuple(map(int, shape)), order=order).copy()


def from_buffer(content: bytes, dtype: PickledType, shape: tuple, order: str) -> PickledArray:
    """Stands for numpy's function of that name, which newer pickles call."""
    result = PickledArray()
    result.state = content, dtype, shape, order
    return result


def encode(text: str, encoding: str) -> bytes:
    """Stands for ``codecs.encode``, by which old pickles carry bytes; other encodings could unpack without end."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {str(encoding)[:20]}")
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): lambda *_: PickledArray() for module in NUMPY},
    **{(module, "_frombuffer"): from_buffer for module in NUMPY},
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): PickledType,
    ("_codecs", "encode"): encode,
}
