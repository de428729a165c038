"""Affine alignment of two images by content: moments, then Mattes mutual information over a pyramid, through ITK.

World coordinates are RAS mm and the returned matrix is a pull map: ``moving_point = matrix @ fixed_point``. ITK takes
whatever world it is given, so images go in with their RAS affine as it stands and no axis is flipped on the way.
"""

from dataclasses import dataclass

import itk
import numpy as np
from scipy.ndimage import gaussian_filter

from .errors import RegInputError, RegNumericsError

__all__ = ["AffineResult", "register_affine"]

RIGID_LEVELS_MM = (8.0, 4.0)
LEVELS_MM = (8.0, 4.0, 2.0)  # working resolution of each level; a grid coarser than that stays as it is
SAMPLES = 60_000  # voxels per level that enter the histogram: more changes the result by less than its spread
MIN_SIZE = 12  # voxels that shrinking leaves along an axis
ITERATIONS = 200
BINS = 48
SIGMA = 0.5
RELAX = 0.6
MINSTEP = 1e-4
LR = None


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
    center = world_center(*fixed, fixed_mask)
    pyr = [pyramid(normalize(a, None), aff, m) for (a, aff), m in ((fixed, fixed_mask), (moving, moving_mask))]
    transform = rigid_transform(ndim, center, start)
    n = 0
    for k, mm in enumerate(LEVELS_MM):
        if mm in RIGID_LEVELS_MM or rigid:
            i, value = optimize(transform, pyr[0][k], pyr[1][k], seed, threads); n += i
    if not rigid:
        transform = affine_transform(ndim, center, to_matrix(transform))
        for k, mm in enumerate(LEVELS_MM):
            i, value = optimize(transform, pyr[0][k], pyr[1][k], seed, threads); n += i
    return AffineResult(to_matrix(transform), value, n)


def pyramid(array, affine, mask):
    """coarse to fine list of (itk image, mask object)"""
    out = []
    spacing = np.linalg.norm(affine[:-1, :-1], axis=0)
    n = array.ndim
    for mm in reversed(LEVELS_MM):
        f = np.clip(np.round(mm / spacing), 1, np.maximum(1, np.array(array.shape) // MIN_SIZE)).astype(int)
        sm = gaussian_filter(array, SIGMA * np.where(f > 1, f, 0))
        sl = tuple(slice(None, None, int(k)) for k in f)
        array = sm[sl]; affine = affine.copy(); affine[:n, :n] = affine[:n, :n] * f; spacing = spacing * f
        if mask is not None: mask = mask[sl]
        out.append((to_itk(array, affine), None if mask is None else to_spatial_object(mask, affine)))
    return out[::-1]


def optimize(transform, fixed, moving, seed, threads):
    ndim = fixed[0].GetImageDimension()
    image_type = itk.Image[itk.F, ndim]
    metric = itk.MattesMutualInformationImageToImageMetricv4[image_type, image_type].New()
    metric.SetNumberOfHistogramBins(BINS)
    metric.SetUseMovingImageGradientFilter(False)
    metric.SetUseFixedImageGradientFilter(False)
    metric.SetMaximumNumberOfWorkUnits(threads)
    if fixed[1] is not None:
        metric.SetFixedImageMask(fixed[1])
    if moving[1] is not None:
        metric.SetMovingImageMask(moving[1])
    scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New()
    scales.SetMetric(metric)
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New()
    optimizer.SetScalesEstimator(scales)
    optimizer.SetDoEstimateLearningRateOnce(LR is None)
    if LR: optimizer.SetLearningRate(LR)
    optimizer.SetDoEstimateLearningRateAtEachIteration(False)
    optimizer.SetNumberOfIterations(ITERATIONS)
    optimizer.SetRelaxationFactor(RELAX)
    optimizer.SetMinimumStepLength(MINSTEP)
    optimizer.SetGradientMagnitudeTolerance(1e-6)
    optimizer.SetReturnBestParametersAndValue(True)
    method = itk.ImageRegistrationMethodv4[image_type, image_type].New()
    method.SetFixedImage(fixed[0]); method.SetMovingImage(moving[0])
    method.SetMetric(metric); method.SetOptimizer(optimizer)
    method.SetInitialTransform(transform); method.InPlaceOn()
    method.SetNumberOfLevels(1)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    share = SAMPLES / np.prod(itk.size(fixed[0]))
    if share < 1:
        method.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_RANDOM)
        method.SetMetricSamplingPercentage(float(share))
    method.MetricSamplingReinitializeSeed(seed)
    method.Update()
    global LOG
    LOG.append((itk.size(fixed[0])[0], optimizer.GetCurrentIteration(), optimizer.GetValue(), optimizer.GetStopConditionDescription()[-60:]))
    return optimizer.GetCurrentIteration(), float(optimizer.GetCurrentMetricValue())
LOG=[]


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
