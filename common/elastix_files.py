"""elastix's TransformParameters.txt, with the transforms that it starts from.

Source: elastix 5.2 manual, sections 2.6 and 3.4; what the manual leaves open (order of rotations, of the elements of a
direction, where a spline ends) was found from files that elastix wrote, which the tests hold against transformix.
"""

import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from .errors import RegInputError
from .geometry import lps_sign
from .itk_parts import read_itk_parts
from .maps import Linear, Map, Part, Spline

__all__ = ["is_elastix", "read_elastix"]

ENTRY = re.compile(r"^\s*\(\s*(\w+)\s+(.*?)\s*\)\s*(?://.*)?$", re.MULTILINE)
VALUE = re.compile(r'"([^"]*)"|(\S+)')
NO_INITIAL = "NoInitialTransform"
LINEAR = ("TranslationTransform", "EulerTransform", "SimilarityTransform", "AffineTransform")
SPLINES = ("BSplineTransform", "RecursiveBSplineTransform")
Entries = dict[str, list[str]]


def is_elastix(text: str) -> bool:
    """Whether a text file is elastix's."""
    return re.search(r"^\s*\(\s*[A-Z]\w+\s", text, re.MULTILINE) is not None


def read_elastix(path: Path) -> Map:
    """Read a parameter file and, before it, the files it names as initial transforms.

    A file named there is looked for as it is named, then beside the file that names it.

    Raises:
        RegInputError: if a file is missing or incomplete, or holds a transform other than translation, Euler,
            similarity, affine and B-spline.
    """
    return Map(tuple(read_chain(Path(path), ())))


def read_chain(path: Path, above: tuple[Path, ...]) -> list[Part]:
    """Parts in the order in which they are applied: the initial transform first."""
    entries = parse(path)
    initial = single(entries, "InitialTransformParameterFileName", NO_INITIAL)
    initial = single(entries, "InitialTransformParametersFileName", initial)  # its name up to elastix 5.0
    try:
        parts = to_parts(entries, path)
    except (KeyError, IndexError, ValueError, OSError) as error:
        if isinstance(error, RegInputError):
            raise
        raise RegInputError(
            f"{path} cannot be used ({error}), expected every entry of its transform; let elastix write it again."
        ) from error
    if initial == NO_INITIAL:
        return parts
    if single(entries, "HowToCombineTransforms", "Compose") != "Compose":
        raise RegInputError(f'{path} adds transforms, expected (HowToCombineTransforms "Compose"); register so.')
    before = beside(initial, path)
    if before in (*above, path):
        raise RegInputError(f"{path} starts from itself, expected a chain with an end; correct {before}.")
    return [*read_chain(before, (*above, path)), *parts]


def parse(path: Path) -> Entries:
    """The entries of a parameter file by name."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RegInputError(f"{path} cannot be read ({error}), expected elastix's parameters; check it.") from error
    return {name: [a or b for a, b in VALUE.findall(rest)] for name, rest in ENTRY.findall(text)}


def single(entries: Entries, name: str, default: str) -> str:
    """An entry's only value."""
    return entries.get(name, [default])[0]


def beside(name: str, path: Path) -> Path:
    """A file as it is named, or of that name in the folder of ``path``."""
    for candidate in (Path(name), path.parent / name, path.parent / Path(name).name):
        if candidate.is_file():
            return candidate
    raise RegInputError(f"{path} names {name}, which is missing, expected it there or beside; put it beside the first.")


def to_parts(entries: Entries, path: Path) -> list[Part]:
    """The transform of one file, in RAS mm."""
    name, ndim = entries["Transform"][0], int(entries["FixedImageDimension"][0])
    if name == "File":  # as written with ITKTransformOutputFileNameExtension
        return read_itk_parts(beside(entries["TransformFileName"][0], path))
    parameters = read_parameters(entries, path)
    cyclic = single(entries, "UseCyclicTransform", "false") == "true"
    if name in LINEAR:
        return [Linear(to_matrix(name, parameters, entries, ndim))]
    if name in SPLINES and not cyclic:
        return [to_spline(parameters, entries, ndim)]
    raise RegInputError(
        f"{path} holds elastix's {'cyclic ' * cyclic}{name}, expected one of {', '.join(LINEAR + SPLINES)}; let "
        "transformix write it as a field (-def all) and name that file."
    )


def read_parameters(entries: Entries, path: Path) -> np.ndarray:
    """The parameters, which may lie in a binary file of their own."""
    words = entries["TransformParameters"]
    if single(entries, "UseBinaryFormatForTransformationParameters", "false") == "true":
        values = np.fromfile(beside(words[0], path), dtype=np.float64)
    else:
        values = np.array(words, dtype=np.float64)
    wanted = int(entries["NumberOfParameters"][0])
    if len(values) != wanted or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} parameters, of which NumberOfParameters says {wanted}")
    return values


def numbers(entries: Entries, name: str) -> np.ndarray:
    """An entry's values."""
    return np.array(entries[name], dtype=np.float64)


def to_matrix(name: str, parameters: np.ndarray, entries: Entries, ndim: int) -> np.ndarray:
    """(N + 1, N + 1) in RAS of y = M (x - c) + c + t, which is LPS."""
    linear, translation = np.eye(ndim), parameters[-ndim:]
    if name == "AffineTransform":
        linear = parameters[: ndim * ndim].reshape(ndim, ndim)
    elif name == "EulerTransform":
        linear = rotation(parameters[:-ndim], single(entries, "ComputeZYX", "false") == "true")
    elif name == "SimilarityTransform":
        linear, translation = similarity(parameters, ndim)
    center = np.zeros(ndim) if name == "TranslationTransform" else numbers(entries, "CenterOfRotationPoint")
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, center + translation - linear @ center
    flip = np.diag([*lps_sign(ndim), 1.0])
    return flip @ matrix @ flip


def rotation(angles: np.ndarray, zyx: bool) -> np.ndarray:
    """Of Euler angles about x, y and z in radians, or of one angle in 2-D."""
    if len(angles) == 1:
        return Rotation.from_euler("z", angles[0]).as_matrix()[:2, :2]
    x, y, z = angles
    turn = Rotation.from_euler("ZYX", [z, y, x]) if zyx else Rotation.from_euler("ZXY", [z, x, y])
    return turn.as_matrix()


def similarity(parameters: np.ndarray, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and translation of a similarity: (scale, angle, t) in 2-D, (versor, t, scale) in 3-D."""
    if ndim == 2:
        return parameters[0] * rotation(parameters[1:2], False), parameters[2:]
    versor = parameters[:3]
    turn = Rotation.from_quat([*versor, np.sqrt(1 - versor @ versor)]).as_matrix()
    return parameters[6] * turn, parameters[3:6]


def to_spline(parameters: np.ndarray, entries: Entries, ndim: int) -> Spline:
    """B-splines, their coefficients one component after the other, x fastest."""
    size = [int(word) for word in entries["GridSize"]]
    sign = lps_sign(ndim)
    coefficients = parameters.reshape(ndim, *reversed(size)).transpose(0, *range(ndim, 0, -1))
    direction = numbers(entries, "GridDirection").reshape(ndim, ndim).T  # written column by column
    steps = sign[:, None] * direction * numbers(entries, "GridSpacing")
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = steps
    affine[:-1, -1] = sign * numbers(entries, "GridOrigin") + steps @ numbers(entries, "GridIndex")
    order = int(single(entries, "BSplineTransformSplineOrder", "3"))
    return Spline(coefficients * sign.reshape(-1, *[1] * ndim), affine, order)
