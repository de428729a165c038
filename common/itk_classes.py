"""ITK's wrapped classes by name, so that only the modules they need are loaded.

``itk.Some[...]`` loads every module that the class's ITK module depends on: 17 s of a processor before the first
registration, 15 s before the first transform file. The classes themselves need 4 s and 1 s. Suffixes are how ITK's
wrapping abbreviates template arguments, such as ``IF3`` for ``Image<float, 3>``; a test compares them with the public
names.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module

import numpy as np

__all__ = ["from_itk_matrix", "image_view", "itk_class", "read_transforms", "to_itk_matrix", "write_transform"]

STDERR = 2  # the descriptor that C writes to
HDF5_OVERHEAD = 2**16  # bytes for names, fixed parameters and indices; 20 kB of the composite of two transforms
FORMATS = ("HDF5", "Matlab", "Txt")  # .h5, .mat and .tfm or .txt


def itk_class(name: str, suffix: str) -> type:
    """The class ``itk::name`` for the template arguments that ``suffix`` stands for."""
    return getattr(import_module(f"itk.itk{name}Python"), f"itk{name}{suffix}")


def to_itk_matrix(matrix: np.ndarray) -> object:
    """An ``itk::Matrix`` of doubles of a square array."""
    size = len(matrix)
    values = import_module("itk.vnl_matrixPython").vnl_matrixD(size, size)
    for row, column in np.ndindex(size, size):
        values.put(row, column, float(matrix[row, column]))
    return itk_class("Matrix", f"D{size}{size}")(values)


def from_itk_matrix(matrix: object, size: int) -> np.ndarray:
    """The float64 array (size, size) of an ``itk::Matrix``."""
    return np.array([[matrix(row, column) for column in range(size)] for row in range(size)])


def image_view(voxels: np.ndarray, affine: np.ndarray) -> tuple[object, np.ndarray]:
    """An ITK image whose physical space is the affine's world, and the buffer it looks at: keep that as long.

    Args:
        voxels: float32 or uint8, (X, Y) or (X, Y, Z).
        affine: (N + 1, N + 1), voxels to world; not turned to LPS.
    """
    kind = {"float32": "F", "uint8": "UC"}[voxels.dtype.name]
    buffer = np.ascontiguousarray(voxels.T)  # ITK's order in numpy is z, y, x
    image = itk_class("PyBuffer", f"I{kind}{voxels.ndim}").GetImageViewFromArray(buffer, False)
    spacing = np.linalg.norm(affine[:-1, :-1], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:-1, -1].tolist())
    image.SetDirection(to_itk_matrix(affine[:-1, :-1] / spacing))
    return image, buffer


def write_transform(transform: object, path: str) -> None:
    """Write an ITK transform of doubles, compressed, in the format of the path's suffix.

    Raises:
        OSError: if a file of HDF5 would not fit without compression; nothing was handed to HDF5 then, whose library
            ends the process by a signal at its exit after a write that failed.
        RuntimeError: from ITK, if it cannot write.
    """
    if path.endswith(".h5"):
        require_room(path, transform.GetNumberOfParameters() * 8 + HDF5_OVERHEAD)
    register_formats()
    writer = itk_member("TransformFileWriter", "itkTransformFileWriterTemplateD").New()
    writer.SetFileName(path)
    writer.SetUseCompression(True)
    writer.AddTransform(transform)
    with silence():
        writer.Update()


def require_room(path: str, size: int) -> None:
    """Raise OSError unless a file of so many bytes can be there; it is empty then."""
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(0)


@contextmanager
def silence() -> Iterator[None]:
    """Nothing goes to the process's standard error: HDF5 prints dozens of lines about what ITK then raises."""
    try:
        kept = os.dup(STDERR)
    except OSError:  # there is none
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


def read_transforms(path: str) -> list:
    """The transforms of a file in the order they were added, composites taken apart, each as its own class.

    Raises:
        RuntimeError: from ITK, if it cannot read the file.
    """
    register_formats()
    reader = itk_member("TransformFileReader", "itkTransformFileReaderTemplateD").New()
    reader.SetFileName(path)
    with silence():
        reader.Update()
    itk_member("TransformBase", "itkTransformBaseTemplateD")  # loaded, so that the list's elements have a class
    listed = reader.GetModifiableTransformList()
    transforms = []
    while not listed.empty():
        transforms.insert(0, listed.pop())
    return [simple for transform in transforms for simple in parts(transform)]


def parts(transform: object) -> list:
    """A transform as its own class, or the parts of a composite, in the order they were added."""
    transform = own_class(transform)
    if transform.GetNameOfClass() != "CompositeTransform":
        return [transform]
    nested = [transform.GetNthTransform(k) for k in range(transform.GetNumberOfTransforms())]
    return [simple for part in nested for simple in parts(part)]


def own_class(transform: object) -> object:
    """What ITK returns as its base class, as the class it is; as it was where ITK's wrapping does not know that."""
    name, dimension = transform.GetNameOfClass(), transform.GetInputSpaceDimension()
    for suffix in (f"D{dimension}", "D"):  # Euler3DTransform and the like carry their dimension in the name
        try:
            return itk_class(name, suffix).cast(transform)
        except (ImportError, AttributeError):
            continue
    return transform


@cache
def register_formats() -> None:
    """Make the transform file formats known to ITK, once: it looks through each registration of them for each file."""
    for name in FORMATS:
        itk_member(f"{name}TransformIO", f"itk{name}TransformIOFactory").RegisterOneFactory()


def itk_member(module: str, name: str) -> type:
    """A class whose name is not its module's."""
    return getattr(import_module(f"itk.itk{module}Python"), name)
