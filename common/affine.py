"""Affine alignment of two images by content: moments, then Mattes mutual information over a pyramid, through ITK.

World coordinates are RAS mm and the returned matrix is a pull map: ``moving_point = matrix @ fixed_point``. ITK takes
whatever world it is given, so images go in with their RAS affine as it stands and no axis is flipped on the way.
"""

from dataclasses import dataclass

import itk
import numpy as np

from .errors import RegInputError, RegNumericsError

__all__ = ["AffineResult", "register_affine"]

LEVELS_MM = (8.0, 4.0, 2.0)  # working resolution of each level; a grid coarser than that stays as it is
SAMPLES = 60_000
MIN_SIZE = 12  # voxels that shrinking leaves along an axis
ITERATIONS = 200
BINS = 48


@dataclass(frozen=True)
class AffineResult:
    """An affine alignment.

    Attributes:
        matrix: (N + 1, N + 1) homogeneous, RAS mm, fixed points to moving points.
        metric: final negative mutual information in nats; lower is better, 0 means that nothing is shared.
        iterations: optimizer steps over all levels.
    """

    matrix: np.ndarray
    metric: float
    iterations: int


def register_affine(
    fixed: tuple[np.ndarray, np.ndarray],
    moving: tuple[np.ndarray, np.ndarray],
    *,
    rigid: bool = False,
    fixed_mask: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    initial: np.ndarray | None = None,
    seed: int = 0,
    threads: int = 1,
) -> AffineResult:
    ndim = fixed[0].ndim
    start = initial
    if start is None:
        start = moments_start(fixed, moving, fixed_mask, moving_mask)
    images = [to_itk(normalize(array, mask), affine) for (array, affine), mask in ((fixed, fixed_mask), (moving, moving_mask))]
    masks = [None if m is None else to_spatial_object(m, a) for m, (_, a) in ((fixed_mask, fixed), (moving_mask, moving))]
    center = world_center(*fixed, fixed_mask)
    transform = rigid_transform(ndim, center, start)
    n, value = optimize(transform, images, masks, fixed, LEVELS_MM[:2] if not rigid else LEVELS_MM, seed, threads)
    if not rigid:
        transform = affine_transform(ndim, center, to_matrix(transform))
        k, value = optimize(transform, images, masks, fixed, LEVELS_MM, seed, threads)
        n += k
    return AffineResult(to_matrix(transform), value, n)


def optimize(transform, images, masks, fixed, levels, seed, threads):
    ndim = images[0].GetImageDimension()
    image_type = itk.Image[itk.F, ndim]
    metric = itk.MattesMutualInformationImageToImageMetricv4[image_type, image_type].New()
    metric.SetNumberOfHistogramBins(BINS)
    metric.SetUseMovingImageGradientFilter(False)
    metric.SetUseFixedImageGradientFilter(False)
    metric.SetMaximumNumberOfWorkUnits(threads)
    if masks[0] is not None:
        metric.SetFixedImageMask(masks[0])
    if masks[1] is not None:
        metric.SetMovingImageMask(masks[1])
    scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New()
    scales.SetMetric(metric)
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New()
    optimizer.SetScalesEstimator(scales)
    optimizer.SetDoEstimateLearningRateOnce(True)
    optimizer.SetDoEstimateLearningRateAtEachIteration(False)
    optimizer.SetNumberOfIterations(ITERATIONS)
    optimizer.SetRelaxationFactor(0.6)
    optimizer.SetMinimumStepLength(1e-4)
    optimizer.SetGradientMagnitudeTolerance(1e-6)
    optimizer.SetReturnBestParametersAndValue(True)
    method = itk.ImageRegistrationMethodv4[image_type, image_type].New()
    method.SetFixedImage(images[0]); method.SetMovingImage(images[1])
    method.SetMetric(metric); method.SetOptimizer(optimizer)
    method.SetInitialTransform(transform); method.InPlaceOn()
    method.SetNumberOfLevels(len(levels))
    spacing = np.linalg.norm(fixed[1][:-1, :-1], axis=0)
    size = np.array(fixed[0].shape)
    for k, mm in enumerate(levels):
        factors = np.clip(np.round(mm / spacing), 1, np.maximum(1, size // MIN_SIZE)).astype(int)
        method.SetShrinkFactorsPerDimension(k, [int(f) for f in factors])
    sig = [mm/2 for mm in levels]
    method.SetSmoothingSigmasPerLevel(sig)
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    counts = []
    for mm in levels:
        factors = np.clip(np.round(mm / spacing), 1, np.maximum(1, size // MIN_SIZE))
        counts.append(float(min(1.0, SAMPLES / np.prod(size // factors))))
    if min(counts) < 1:
        method.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_RANDOM)
        method.SetMetricSamplingPercentagePerLevel(counts)
    method.MetricSamplingReinitializeSeed(seed)
    total=[0]
    method.Update()
    return optimizer.GetCurrentIteration(), float(optimizer.GetCurrentMetricValue())


def to_itk(array, affine):
    img = itk.image_from_array(np.ascontiguousarray(array.T.astype(np.float32)))
    n = array.ndim
    sp = np.linalg.norm(affine[:n, :n], axis=0)
    img.SetSpacing([float(s) for s in sp]); img.SetOrigin([float(v) for v in affine[:n, n]])
    img.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:n, :n] / sp)))
    return img

def to_spatial_object(mask, affine):
    m = itk.image_from_array(np.ascontiguousarray((mask > 0).T.astype(np.uint8)))
    n = mask.ndim
    sp = np.linalg.norm(affine[:n, :n], axis=0)
    m.SetSpacing([float(s) for s in sp]); m.SetOrigin([float(v) for v in affine[:n, n]])
    m.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:n, :n] / sp)))
    so = itk.ImageMaskSpatialObject[n].New(); so.SetImage(m); so.Update()
    return so

def normalize(array, mask):
    v = array.astype(np.float32)
    low, high = np.percentile(v[::2, ::2, ::2] if v.ndim == 3 else v, [0.1, 99.9])
    return np.clip((v - low) / max(high - low, 1e-12), 0, 1)

def world_center(array, affine, mask):
    w = normalize(array, mask) if mask is None else (mask > 0).astype(np.float32)
    c = [float((w.sum(tuple(j for j in range(w.ndim) if j != k)) * np.arange(w.shape[k])).sum() / w.sum()) for k in range(w.ndim)]
    return (affine @ np.array([*c, 1]))[:-1]

def moments_start(fixed, moving, fm, mm):
    n = fixed[0].ndim
    m = np.eye(n + 1)
    m[:n, n] = world_center(*moving, mm) - world_center(*fixed, fm)
    return m

def rigid_transform(ndim, center, matrix):
    t = itk.Euler3DTransform[itk.D].New() if ndim == 3 else itk.Euler2DTransform[itk.D].New()
    return fill(t, center, matrix)

def fill(t, center, matrix):
    n = len(center)
    t.SetCenter([float(c) for c in center])
    A = matrix[:n, :n]
    t.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(A)))
    t.SetTranslation([float(v) for v in matrix[:n, n] + A @ center - center])
    return t

def affine_transform(ndim, center, matrix):
    return fill(itk.AffineTransform[itk.D, ndim].New(), center, matrix)

def to_matrix(t):
    A = itk.array_from_matrix(t.GetMatrix()); n = A.shape[0]
    out = np.eye(n + 1); out[:n, :n] = A; out[:n, n] = np.array(t.GetOffset())
    return out
