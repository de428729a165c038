"""What a result depends on, as one short text: equal fingerprints, equal results, so the work need not be done again.

A value is hashed by what it is, never by where it lies in memory or on disk: processes and machines agree, the order
of a mapping's keys does not count, and a tuple equals a list, because configurations have lists where code has tuples.

Left out is what changes a result by rounding at most, or not at all: devices, so that a cohort begun on a GPU goes on
without one; states of random generators, which every run sets anew; the trace of an optimisation that is over; and of a
module what a forward pass may fill: private attributes, buffers that are not saved, ``training``.

Left to the caller is the version of the code: a function is known by its name.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from pickle import PicklingError
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from .dicom import split_series
from .errors import RegInputError
from .instance import Trace

__all__ = ["file_fingerprint", "fingerprint"]

CHUNK = 1 << 20
LEFT_OUT = (torch.device, torch.Generator, np.random.RandomState, np.random.Generator, random.Random, Trace)
NO_SETTINGS = frozenset({"training", "progress"})  # of a module: evaluators set the first, the second draws a bar
NAMED = (type, BuiltinFunctionType, ModuleType, torch.dtype, torch.layout, torch.memory_format, np.dtype, np.ufunc)
DETACHED = re.compile(rb"^(?:ElementDataFile *=|data ?file *:) *(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
HEADER_BYTES = 1 << 16  # MetaImage and NRRD headers name their data file well before that


def fingerprint(*objects: Any) -> str:
    """64 hexadecimal digits that differ wherever something a result may depend on differs.

    Args:
        objects: in this order: numbers, texts, paths (as texts), sequences, mappings, arrays, tensors, networks with
            their weights, transforms, functions (by qualified name; lambdas and closures by what they do) and whatever
            else pickle could take apart. A cycle is cut where it closes.

    Raises:
        RegInputError: for what has neither value nor parts, such as an open file or a lock.
    """
    return digest(objects).hex()


def file_fingerprint(path: Path | str) -> str:
    """64 hexadecimal digits of a file's content, or of all files of a folder, such as a DICOM series.

    Names do not count: a copy elsewhere is the same scan, and DICOM readers order slices by their headers; the series
    behind ``folder#SeriesInstanceUID`` does. Hidden files are passed over. Where the voxels lie in a second file
    (``.hdr`` and ``.img``, ``.mhd``, ``.nhdr``), that counts too.

    Raises:
        RegInputError: if the path cannot be read or is a folder without a file.
    """
    path = Path(path)
    try:
        folder, series = split_series(path)
        if folder.is_dir():
            files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
            if not files:
                raise RegInputError(f"{path} holds no file, expected a scan's; name another folder.")
            parts = [(series or "").encode(), *sorted(content_digest(file) for file in files)]
            return combined(b"folder", parts).hex()
        parts = [path, *detached(path)]
        return combined(b"file", [content_digest(part) for part in parts]).hex()
    except OSError as error:
        raise RegInputError(f"{error.filename} cannot be read ({error.strerror}); check the path.") from error


def content_digest(path: Path) -> bytes:
    """Hash of a file's bytes, a piece at a time."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            total.update(piece)
    return total.digest()


def detached(path: Path) -> list[Path]:
    """The files that a header's voxels are in."""
    suffix = path.suffix.lower()
    if suffix in (".hdr", ".img"):
        return [p for s in (".img", ".hdr", ".img.gz") if s != suffix and (p := path.with_suffix(s)).is_file()]
    if suffix not in (".mhd", ".nhdr"):
        return []
    with path.open("rb") as file:
        names = [name.decode(errors="replace") for name in DETACHED.findall(file.read(HEADER_BYTES))]
    return [p for name in names if (p := path.parent / name).is_file()]  # LOCAL, LIST and patterns name no file


def digest(value: Any, above: tuple[int, ...] = ()) -> bytes:
    """Hash of a value; ``above`` are the ids of what it is a part of."""
    plain = plain_digest(value)
    if plain is not None:
        return plain
    if id(value) in above:
        return combined(b"cycle", [str(above.index(id(value))).encode()])
    return part_digest(value, (*above, id(value)))


def plain_digest(value: Any) -> bytes | None:
    """Hash of what has no parts of its own, else None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return combined(b"constant", [str(value).encode()])
    if isinstance(value, int):
        return combined(b"int", [str(int(value)).encode()])
    if isinstance(value, float | complex):
        return combined(b"number", [repr(complex(value)).encode()])
    if isinstance(value, str):
        return combined(b"text", [str.encode(value)])
    if isinstance(value, bytes | bytearray):
        return combined(b"bytes", [bytes(value)])
    if isinstance(value, PurePath):
        return combined(b"path", [value.as_posix().encode()])
    return combined(b"name", [name_of(value).encode()]) if isinstance(value, NAMED) else None


def part_digest(value: Any, above: tuple[int, ...]) -> bytes:
    """Hash of what consists of parts."""
    if isinstance(value, Tensor):
        return tensor_digest(value)
    if isinstance(value, np.ndarray):
        return array_digest(value, above)
    if isinstance(value, nn.Module):
        return module_digest(value, above)
    if isinstance(value, Mapping):
        return combined(b"mapping", pairs(value.items(), above))
    if isinstance(value, list | tuple | range):
        return combined(b"sequence", [digest(item, above) for item in kept(value)])
    if isinstance(value, set | frozenset):
        return combined(b"set", sorted(digest(item, above) for item in kept(value)))
    if isinstance(value, FunctionType):
        return function_digest(value, above)
    if isinstance(value, MethodType):
        return combined(b"method", [digest(value.__func__, above), digest(value.__self__, above)])
    if isinstance(value, CodeType):
        return combined(b"code", [value.co_code, digest((value.co_consts, value.co_names), above)])
    return object_digest(value, above)


def kept(values: Iterable) -> Iterator:
    """Without what is left out."""
    return (value for value in values if not isinstance(value, LEFT_OUT))


def pairs(items: Iterable[tuple[Any, Any]], above: tuple[int, ...]) -> list[bytes]:
    """Hashes of keys and values, in an order that only the keys decide."""
    hashes = [digest(key, above) + digest(value, above) for key, value in items if not isinstance(value, LEFT_OUT)]
    return sorted(hashes)


def tensor_digest(tensor: Tensor) -> bytes:
    """By dtype, shape and bytes, and the affine where there is one."""
    parts = [str(tensor.dtype).encode(), str(tuple(tensor.shape)).encode()]
    values = tensor.detach().as_subclass(Tensor).to_dense().resolve_conj().resolve_neg().cpu().contiguous()
    parts.append(values.reshape(-1).view(torch.uint8).numpy().data)
    if isinstance(tensor, MetaTensor):
        parts.append(array_digest(np.asarray(tensor.affine, dtype=np.float64)))
    return combined(b"tensor", parts)


def array_digest(array: np.ndarray, above: tuple[int, ...] = ()) -> bytes:
    """By dtype, shape and bytes, the same on machines of either byte order; of objects, one after the other."""
    if array.dtype.hasobject:
        return combined(b"objects", [str(array.shape).encode(), digest(array.ravel().tolist(), above)])
    ordered = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return combined(b"array", [str(ordered.dtype).encode(), str(array.shape).encode(), ordered.tobytes()])


def module_digest(module: nn.Module, above: tuple[int, ...]) -> bytes:
    """By class, public settings, saved parameters and buffers, and its modules in their order."""
    settings = {
        name: value for name, value in vars(module).items() if not name.startswith("_") and name not in NO_SETTINGS
    }
    own = {name: value for name, value in module.state_dict().items() if "." not in name}
    children = [digest(child, above) for child in module._modules.items()]  # named_children() names a shared one once
    return combined(b"module", [name_of(type(module)).encode(), digest(settings, above), digest(own, above), *children])


def function_digest(function: FunctionType, above: tuple[int, ...]) -> bytes:
    """By name; one that was made on the way, by its code and what that sees."""
    parts = [name_of(function).encode()]
    if "<" in function.__qualname__:  # <lambda>, <locals>: the name does not tell two of them apart
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        parts.append(digest((function.__code__, function.__defaults__, function.__kwdefaults__, cells), above))
    return combined(b"function", parts)


def object_digest(value: Any, above: tuple[int, ...]) -> bytes:
    """By what pickle would rebuild it from: class, arguments, and all attributes, private ones too.

    Private, because transforms keep settings there: MONAI's ``LoadImaged`` has all of its own in ``_loader``.
    """
    try:
        reduced = value.__reduce_ex__(4)
    except (TypeError, PicklingError) as error:
        raise RegInputError(
            f"a {name_of(type(value))} has no value that could be compared ({error}), expected settings; leave it out."
        ) from error
    if isinstance(reduced, str):  # the name of a global
        return combined(b"global", [name_of(type(value)).encode(), reduced.encode()])
    rebuild, arguments, state, items, entries = (*reduced, None, None, None)[:5]
    parts = [digest(part, above) for part in (rebuild, arguments, state, list(items or ()))]
    return combined(b"object", [name_of(type(value)).encode(), *parts, *pairs(entries or (), above)])


def name_of(value: Any) -> str:
    """Module and qualified name, or what it prints as."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return f"{getattr(value, '__module__', '')}.{name}" if name else str(value)


def combined(kind: bytes, parts: Iterable[bytes | memoryview]) -> bytes:
    """Hash of a kind and of parts, each with its length, so that no two lists of parts read alike."""
    total = hashlib.sha256(kind)
    for part in parts:
        total.update(b"|%d|" % memoryview(part).nbytes)
        total.update(part)
    return total.digest()
