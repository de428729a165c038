"""Transform files that ITK, SimpleITK, ANTs and 3D Slicer read: displacement fields as NIfTI, composites as HDF5.

On disk everything is LPS mm. A displacement field is a NIfTI file (X, Y, Z, 1, 3), in 2-D (X, Y, 1, 1, 2), with intent
code 1007; ``d_LPS = diag(-1, -1, 1) u_RAS``. A composite holds an affine A and a field d and means y = A(x + d(x)): the
affine was added first, and ITK applies what was added last first. ``common.map_files`` reads composites, these and
others.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from .errors import RegInputError
from .files import save_atomically
from .geometry import lps_sign, spatial_affine
from .itk_classes import from_itk_matrix, itk_class, to_itk_matrix, write_transform
from .nifti_files import save_nifti

__all__ = ["read_displacement", "write_composite", "write_displacement"]

VECTOR_INTENT = 1007  # NIFTI_INTENT_VECTOR: the one by which ITK knows a vector image
ORTHONORMAL_ATOL = 1e-4  # of D^T D - 1: float32 headers round about 1e-6; over 200 mm this is 0.02 mm


def write_displacement(path: Path | str, ddf_mm: Tensor, affine: np.ndarray) -> None:
    """Write one field as an ITK displacement field, float32.

    Args:
        path: ending in .nii or .nii.gz.
        ddf_mm: (1, N, *S), RAS mm.
        affine: (N + 1, N + 1) of its grid; ITK has no sheared grids.

    Raises:
        RegInputError: if the grid is sheared or the name ends otherwise.
        RegEnvError: if the file cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise RegInputError(
            f"{path} ends in '{path.suffix}', expected .nii.gz or .nii for a displacement field; rename it."
        )
    ndim = check_field(ddf_mm)
    matrix = spatial_affine(affine, ndim)
    check_orthonormal(matrix)
    components = (vectors_last(ddf_mm) * lps_sign(ndim)).astype(np.float32)
    image = nib.Nifti1Image(components.reshape(*components.shape[:-1], *[1] * (4 - ndim), ndim), embed(matrix))
    image.header.set_intent(VECTOR_INTENT, name="")
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)  # both: readers disagree on which one counts
    save_atomically(lambda temporary: save_nifti(image, temporary), path)


def read_displacement(path: Path | str) -> tuple[Tensor, np.ndarray]:
    """Read an ITK displacement field.

    Returns:
        ddf_mm (1, N, *S), float32, RAS mm, and the (N + 1, N + 1) affine of its grid.

    Raises:
        RegInputError: if the file is not (X, Y, Z, 1, 3) or (X, Y, 1, 1, 2), or holds NaN.
    """
    try:
        image = nib.load(path)
        shape, values = image.shape, np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise RegInputError(
            f"{path} cannot be read ({error}), expected a displacement field; check the file."
        ) from error
    ndim = shape[-1]
    if len(shape) != 5 or shape[3] != 1 or ndim not in (2, 3) or (ndim == 2 and shape[2] != 1):
        raise RegInputError(f"{path} has shape {shape}, expected (X, Y, Z, 1, 3) or (X, Y, 1, 1, 2): not an ITK field.")
    if not np.isfinite(values).all():
        raise RegInputError(f"{path} holds NaN or infinite displacements, expected mm; write it again.")
    vectors = values.reshape(*shape[:ndim], ndim) * lps_sign(ndim)
    return vectors_first(vectors), spatial_affine(image.affine, ndim)


def write_composite(
    path: Path | str, ddf_mm: Tensor | None, affine: np.ndarray | None, initial: np.ndarray | None = None
) -> None:
    """Write ``y = initial @ (x + ddf_mm(x))`` as an ITK composite transform, in float64.

    Args:
        path: ending in .h5.
        ddf_mm: (1, N, *S), RAS mm; None writes the affine alone.
        affine: (N + 1, N + 1) of the field's grid.
        initial: (N + 1, N + 1), RAS mm, fixed world to moving world; by default the identity.

    Raises:
        RegInputError: if the grid is sheared, the name ends otherwise, or there is neither field nor affine.
        RegEnvError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".h5":
        raise RegInputError(f"{path} ends in '{path.suffix}', expected .h5 for a composite transform; rename it.")
    if ddf_mm is None and initial is None:
        raise RegInputError(f"{path} would hold neither a field nor an affine, expected one of them; give one.")
    ndim = len(initial) - 1 if ddf_mm is None else check_field(ddf_mm)
    composite = itk_class("CompositeTransform", f"D{ndim}").New()
    composite.AddTransform(to_itk_affine(np.eye(ndim + 1) if initial is None else spatial_affine(initial, ndim)))
    if ddf_mm is not None:
        vectors = itk_vectors(ddf_mm)  # ITK only looks at this array: it has to live until the file is written
        composite.AddTransform(to_itk_field(vectors, spatial_affine(affine, ndim)))
    save_atomically(lambda temporary: write_transform(composite, str(temporary)), path)


def to_itk_affine(matrix: np.ndarray) -> object:
    """An ITK affine, LPS, of a (N + 1, N + 1) matrix in RAS."""
    ndim = len(matrix) - 1
    flip = np.diag([*lps_sign(ndim), 1.0])
    lps = flip @ matrix @ flip
    transform = itk_class("AffineTransform", f"D{ndim}").New()
    transform.SetMatrix(to_itk_matrix(lps[:-1, :-1]))
    transform.SetOffset([float(v) for v in lps[:-1, -1]])
    return transform


def itk_vectors(ddf_mm: Tensor) -> np.ndarray:
    """LPS mm, float64, in the order of ITK's buffers: (z, y, x, component)."""
    vectors = vectors_last(ddf_mm) * lps_sign(ddf_mm.shape[1])
    axes = (*reversed(range(vectors.ndim - 1)), vectors.ndim - 1)
    return np.ascontiguousarray(vectors.transpose(axes), dtype=np.float64)


def to_itk_field(vectors: np.ndarray, matrix: np.ndarray) -> object:
    """An ITK displacement field transform that is a view of ``vectors``, on the grid of ``matrix`` (RAS)."""
    check_orthonormal(matrix)
    ndim = len(matrix) - 1
    image = itk_class("PyBuffer", f"IVD{ndim}{ndim}").GetImageViewFromArray(vectors, True)
    spacing = np.linalg.norm(matrix[:-1, :-1], axis=0)
    sign = lps_sign(ndim)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(v) for v in sign * matrix[:-1, -1]])
    image.SetDirection(to_itk_matrix(sign[:, None] * matrix[:-1, :-1] / spacing))
    transform = itk_class("DisplacementFieldTransform", f"D{ndim}").New()
    transform.SetDisplacementField(image)
    return transform


def from_itk_field(transform: object) -> tuple[Tensor, np.ndarray]:
    """ddf_mm (1, N, *S), RAS mm, and the affine of an ITK displacement field transform."""
    image = transform.GetDisplacementField()
    ndim = transform.GetInputSpaceDimension()
    vectors = np.array(itk_class("PyBuffer", f"IVD{ndim}{ndim}").GetArrayViewFromImage(image))  # a copy
    sign = lps_sign(ndim)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = sign[:, None] * from_itk_matrix(image.GetDirection(), ndim) * np.array(image.GetSpacing())
    matrix[:-1, -1] = sign * np.array(image.GetOrigin())
    axes = (*reversed(range(ndim)), ndim)
    return vectors_first(vectors.transpose(axes) * sign), matrix


def check_field(ddf_mm: Tensor) -> int:
    """Number of spatial axes of one field (1, N, *S) of finite numbers."""
    ndim = ddf_mm.ndim - 2
    if ndim not in (2, 3) or tuple(ddf_mm.shape[:2]) != (1, ndim):
        raise RegInputError(
            f"ddf_mm has shape {list(ddf_mm.shape)}, expected [1, N, *size] with N = 2 or 3: one field."
        )
    if not torch.isfinite(ddf_mm).all():
        raise RegInputError(
            "ddf_mm holds NaN or infinite displacements, expected mm; do not save a failed registration."
        )
    return ndim


def check_orthonormal(matrix: np.ndarray) -> None:
    """Refuse grids whose axes are not at right angles: ITK does not read them."""
    directions = matrix[:-1, :-1] / np.linalg.norm(matrix[:-1, :-1], axis=0)
    error = np.abs(directions.T @ directions - np.eye(len(directions))).max()
    if error > ORTHONORMAL_ATOL:
        raise RegInputError(
            f"the grid is sheared (axes are {error:.2g} off right angles), expected none, as ITK reads no such grid"
            f"; resample the fixed image onto an unsheared grid first."
        )


def embed(matrix: np.ndarray) -> np.ndarray:
    """(4, 4) of a 2-D affine, with a third axis of 1 mm."""
    if len(matrix) == 4:
        return matrix
    full = np.eye(4)
    full[:2, :2], full[:2, 3] = matrix[:2, :2], matrix[:2, 2]
    return full


def vectors_last(ddf_mm: Tensor) -> np.ndarray:
    """(1, N, *S) -> (*S, N)."""
    return ddf_mm[0].detach().cpu().movedim(0, -1).numpy()


def vectors_first(vectors: np.ndarray) -> Tensor:
    """(*S, N) -> (1, N, *S), float32."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(vectors, -1, 0)[None], dtype=np.float32))
