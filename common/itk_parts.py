"""ITK transform files, part by part in RAS mm: linear transforms, displacement fields, B-splines and composites."""

import re
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from .errors import RegInputError
from .geometry import lps_sign
from .itk_classes import read_transforms
from .maps import Field, Linear, Part, Spline
from .transform_files import from_itk_field

__all__ = ["ITK_TEXT", "read_itk_parts"]

ITK_TEXT = "#Insight Transform File"
PLAIN = "MatrixOffsetTransformBase"  # what old ANTs calls an affine; ITK as we have it cannot make one


def read_itk_parts(path: Path) -> list[Part]:
    """The parts of a file in the order in which they are applied: what was added last comes first.

    Raises:
        RegInputError: if it cannot be read or holds something else, such as a thin-plate spline.
    """
    plain = plain_affines(path)
    if plain:
        return plain
    try:
        transforms = read_transforms(str(path))
    except (RuntimeError, OSError, TypeError) as error:
        raise RegInputError(
            f"{path} cannot be read ({said(error)}), expected an ITK transform file; check the file."
        ) from error
    if not transforms:
        raise RegInputError(f"{path} holds no transform, expected at least one; check the file.")
    return [to_part(transform, path) for transform in reversed(transforms)]


def plain_affines(path: Path) -> list[Linear]:
    """The affine of a text or Matlab file that calls it MatrixOffsetTransformBase; nothing of any other file."""
    content = path.read_bytes() if path.suffix.lower() in (".txt", ".tfm", ".mat") else b""
    if PLAIN.encode() not in content:
        return []
    if content.startswith(ITK_TEXT.encode()):
        text = content.decode("latin-1")
        found = re.findall(rf"^Transform: {PLAIN}\w*\s+Parameters:(.*)\s+FixedParameters:(.*)$", text, re.MULTILINE)
        pairs = [(parameters.split(), center.split()) for parameters, center in found]
    else:
        arrays = loadmat(path)
        pairs = [(values, arrays["fixed"]) for name, values in arrays.items() if name.startswith(PLAIN)]
    return [Linear(about(*(np.asarray(v, dtype=np.float64).ravel() for v in pair))) for pair in reversed(pairs)]


def about(parameters: np.ndarray, center: np.ndarray) -> np.ndarray:
    """(N + 1, N + 1), RAS, of y = M (x - c) + c + t in LPS; parameters are M row by row, then t."""
    ndim = len(center)
    matrix, linear = np.eye(ndim + 1), parameters[: ndim * ndim].reshape(ndim, ndim)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, center + parameters[ndim * ndim :] - linear @ center
    return in_ras(matrix)


def said(error: Exception) -> str:
    """What ITK says without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "ERROR" in line), lines[-1] if lines else type(error).__name__)


def to_part(transform: object, path: Path) -> Part:
    """One ITK transform, not a composite."""
    if hasattr(transform, "GetDisplacementField"):
        return Field(*from_itk_field(transform))
    if hasattr(transform, "TransformPoint") and transform.IsLinear():
        return Linear(linear_matrix(transform))
    if transform.GetTransformTypeAsString().startswith("BSplineTransform"):
        return to_spline(transform)
    raise RegInputError(
        f"{path} holds a {transform.GetNameOfClass()}, expected linear transforms, displacement fields and cubic "
        "B-splines; let the program that wrote it write a displacement field."
    )


def linear_matrix(transform: object) -> np.ndarray:
    """(N + 1, N + 1), RAS, of any linear ITK transform, from where it moves the origin and the unit vectors."""
    ndim = transform.GetInputSpaceDimension()
    moved = np.array([list(transform.TransformPoint(point)) for point in np.eye(ndim + 1, ndim, k=-1).tolist()])
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = (moved[1:] - moved[0]).T, moved[0]
    return in_ras(matrix)


def to_spline(transform: object) -> Spline:
    """ITK's cubic B-splines: fixed parameters are size, origin, spacing and direction of the control points."""
    ndim = transform.GetInputSpaceDimension()
    fixed = np.array(transform.GetFixedParameters(), dtype=np.float64)
    size, origin, spacing, direction = np.split(fixed, [ndim, 2 * ndim, 3 * ndim])
    sign = lps_sign(ndim)
    coefficients = np.array(transform.GetParameters(), dtype=np.float64).reshape(ndim, *size[::-1].astype(int))
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = sign[:, None] * direction.reshape(ndim, ndim) * spacing
    affine[:-1, -1] = sign * origin
    return Spline(coefficients.transpose(0, *range(ndim, 0, -1)) * sign.reshape(-1, *[1] * ndim), affine)


def in_ras(matrix: np.ndarray) -> np.ndarray:
    """A homogeneous matrix of LPS points as one of RAS points."""
    flip = np.diag([*lps_sign(len(matrix) - 1), 1.0])
    return flip @ matrix @ flip
