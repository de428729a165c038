"""Affine alignment of two images by content: the best of many starts, then Mattes mutual information over a pyramid.

World coordinates are RAS mm and the returned matrix is a pull map: ``moving_point = matrix @ fixed_point``. ITK
optimizes; it takes whatever world it is given, so images go in with their RAS affine as it stands and no axis is
flipped on the way.
"""

import logging
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import center_of_mass, gaussian_filter

from .affine_starts import Grid, Starts
from .errors import RegInputError, RegNumericsError
from .geometry import spatial_affine, voxels_to_mm
from .itk_classes import from_itk_matrix, image_view, itk_class, to_itk_matrix

__all__ = ["AffineResult", "register_affine"]

logger = logging.getLogger(__name__)

LEVELS_MM = (8.0, 4.0, 2.0, 1.0)  # working resolution of each level; an image coarser than that stays as it is
MIN_SIZE = 12  # voxels that shrinking leaves along an axis, so that small crops keep something to match
SAMPLES = 40_000  # voxels of a level that enter the histogram, drawn with the seed
BINS = 32  # of the joint histogram, per image
SMOOTHING = 0.5  # sigma before shrinking, in voxels of the coarser grid
WINDOW = (0.1, 99.9)  # percentiles that become 0 and 1: the bins must not go to a few bright voxels
ITERATIONS = 200  # of each level; most levels stop by step length after 30 to 100
RELAXATION = 0.6  # factor of the step length whenever the gradient turns round
MIN_STEP = 1e-4  # in units of the first step, which is one voxel of the level
START_VOXELS = 2000  # of each grid on which starts are tried, at least; the coarsest level with as many is taken
MIN_LEAD = 1.05  # of the result over other orientations, below which a warning is logged
MIN_OVERLAP = 0.05  # of the fixed grid that the moving image must cover in the end


@dataclass(frozen=True)
class AffineResult:
    """An affine alignment.

    Attributes:
        matrix: (N + 1, N + 1) homogeneous, RAS mm, fixed points to moving points.
        metric: negative mutual information of the last level, in nats; lower is better, 0 if nothing is shared. To be
            compared between runs with the same fixed image only.
        iterations: optimizer steps over all levels.
        overlap: share of the fixed grid that the moving image covers.
        lead: how much more similar the images are than in any orientation more than 60 degrees off, on a coarse grid;
            1.2 to 3 for a sound alignment, about 1 if the images cannot tell orientations apart or the result is wrong.
    """

    matrix: np.ndarray
    metric: float
    iterations: int
    overlap: float
    lead: float


@dataclass(frozen=True)
class Level:
    """One resolution of one image: ITK objects, and the arrays that these look at."""

    image: object
    mask: object | None
    size: tuple[int, ...]
    buffers: list[np.ndarray]


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
    """Align ``moving`` to ``fixed`` by a rigid, then a 12-parameter transform (6 in 2-D).

    Without ``initial`` every orientation is tried on a coarse grid first (:mod:`common.affine_starts`), so that scans
    turned by 40, 90 or 180 degrees are aligned too. With one thread the same input and seed give the same bits; more
    threads add up in an order of their own, which changes the matrix by its rounding (1e-13 was seen).

    Args:
        fixed: array (X, Y) or (X, Y, Z) and its (N + 1, N + 1) affine, voxels to RAS mm; (4, 4) fits 2-D too.
        moving: the same of the other image; its modality may differ.
        rigid: stop at rotation and translation.
        fixed_mask: where samples are taken, nonzero inside, on the fixed grid; by default everywhere.
        moving_mask: where samples may land, on the moving grid; by default everywhere.
        initial: (N + 1, N + 1) to start from; by default the best of the translation that brings the centers of
            intensity (of the masks, where given) together, of the headers as they are, and of many rotations.
        seed: of the voxels that are sampled.
        threads: that ITK may use for the metric; starts are found on one.

    Raises:
        RegInputError: if the images differ in dimension, a mask does not fit, or an image has no contrast.
        RegNumericsError: if they do not overlap, or the matrix found is no alignment.

    Source: Mattes et al., IEEE TMI 2003, doi:10.1109/TMI.2003.809072, in ITK's implementation.
    Differs: levels are shrunk before ITK sees them, which it would do only to the sampled grid.
    """
    ndim = fixed[0].ndim
    if ndim not in (2, 3) or moving[0].ndim != ndim:
        raise RegInputError(f"images have {ndim} and {moving[0].ndim} axes, expected 2 or 3, the same; choose volumes.")
    images = [prepared(*fixed, fixed_mask, "fixed"), prepared(*moving, moving_mask, "moving")]
    centers = [world_center(*image) for image in images]
    grids = [pyramid(*image) for image in images]
    starts = Starts(*start_grids(*grids), centers)
    start = starts.best() if initial is None else spatial_affine(initial, ndim)
    if rigid and not is_rotation(start):
        raise RegInputError(
            f"the start {start.tolist()} is no rigid motion, expected one for rigid alignment; pass one."
        )
    levels = distinct([tuple(itk_level(*grid) for grid in pair) for pair in zip(*grids, strict=True)])
    steps = []
    try:
        if rigid or is_rotation(start):
            transform = itk_transform(f"Euler{ndim}DTransform", "D", start, centers[0])
            for pair in levels if rigid else levels[:1]:
                steps.append(optimize(transform, *pair, seed, threads))
            start = matrix_of(transform)
        if not rigid:
            transform = itk_transform("AffineTransform", f"D{ndim}", start, centers[0])
            for pair in levels:
                steps.append(optimize(transform, *pair, seed, threads))
    except RuntimeError as error:  # ITK: no sample lands inside the moving image
        raise RegNumericsError(
            f"the images lost each other during affine alignment ({reason(error)}), expected an overlap; check that "
            f"both show the same body part, or pass a start."
        ) from error
    matrix = matrix_of(transform)
    overlap, lead = check_alignment(matrix, images), starts.lead(matrix)
    if lead < MIN_LEAD:
        logger.warning(
            "affine alignment is %.2f times as similar as other orientations, expected %g at least; look at it.",
            lead,
            MIN_LEAD,
        )
    return AffineResult(matrix, steps[-1][1], sum(count for count, _ in steps), overlap, lead)


def prepared(array: np.ndarray, affine: np.ndarray, mask: np.ndarray | None, name: str) -> Grid:
    """float32 voxels with the window's percentiles at 0 and 1, float64 affine, and mask as bool."""
    matrix = spatial_affine(affine, array.ndim)
    if mask is not None and (mask.shape != array.shape or not np.any(mask)):
        raise RegInputError(
            f"the {name} mask has shape {mask.shape} and {np.count_nonzero(mask)} voxels, expected some on the image's "
            f"grid {array.shape}; draw it there."
        )
    voxels = array.astype(np.float32)
    low, high = np.percentile(voxels, WINDOW)
    if low == high:  # hardly anything but background
        low, high = voxels.min(), voxels.max()
    if not high > low:  # NaN included
        raise RegInputError(f"the {name} image runs from {low:g} to {high:g}, expected contrast; check the file.")
    windowed = np.clip((voxels - np.float32(low)) / np.float32(high - low), 0, 1)
    return windowed, matrix, None if mask is None else mask != 0


def world_center(voxels: np.ndarray, affine: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Center of the mask, or of intensity, in RAS mm."""
    center = center_of_mass(voxels if mask is None else mask)
    return voxels_to_mm([center], affine)[0]


def pyramid(voxels: np.ndarray, affine: np.ndarray, mask: np.ndarray | None) -> list[Grid]:
    """The image at each of ``LEVELS_MM``, coarse first; each level is made from the one before."""
    levels = []
    for mm in sorted(LEVELS_MM):
        spacing = np.linalg.norm(affine[:-1, :-1], axis=0)
        factors = np.clip(np.round(mm / spacing), 1, np.maximum(1, np.array(voxels.shape) // MIN_SIZE)).astype(int)
        every = tuple(slice(None, None, int(factor)) for factor in factors)
        voxels = gaussian_filter(voxels, np.where(factors > 1, SMOOTHING * factors, 0))[every]
        mask = None if mask is None else mask[every]
        affine = affine @ np.diag([*factors, 1])  # voxel 0 stays where it is
        levels.append((voxels, affine, mask))
    return levels[::-1]


def start_grids(fixed: list[Grid], moving: list[Grid]) -> tuple[Grid, Grid]:
    """The coarsest level with voxels enough on both grids, else the finest."""
    pairs = list(zip(fixed, moving, strict=True))
    return next((pair for pair in pairs if min(grid[0].size for grid in pair) >= START_VOXELS), pairs[-1])


def distinct(levels: list[tuple[Level, Level]]) -> list[tuple[Level, Level]]:
    """The levels without those that repeat the one before, as those of coarse images do."""
    sizes = [[level.size for level in pair] for pair in levels]
    return [pair for k, pair in enumerate(levels) if k == 0 or sizes[k] != sizes[k - 1]]


def optimize(transform: object, fixed: Level, moving: Level, seed: int, threads: int) -> tuple[int, float]:
    """Improve ``transform`` in place on one level; return the steps taken and the metric reached."""
    ndim = len(fixed.size)
    metric = itk_class("MattesMutualInformationImageToImageMetricv4", f"IF{ndim}IF{ndim}").New()
    metric.SetNumberOfHistogramBins(BINS)
    metric.SetUseMovingImageGradientFilter(False)  # gradients at the samples only
    metric.SetUseFixedImageGradientFilter(False)
    metric.SetMaximumNumberOfWorkUnits(threads)
    if fixed.mask is not None:
        metric.SetFixedImageMask(fixed.mask)
    if moving.mask is not None:
        metric.SetMovingImageMask(moving.mask)
    optimizer = gradient_descent(metric, ndim)
    method = itk_class("ImageRegistrationMethodv4", f"REGv4F{ndim}F{ndim}").New()
    method.SetFixedImage(fixed.image)
    method.SetMovingImage(moving.image)
    method.SetMetric(metric)
    method.SetOptimizer(optimizer)
    method.SetInitialTransform(transform)
    method.InPlaceOn()
    method.SetNumberOfLevels(1)  # the pyramid is ours
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    share = SAMPLES / np.prod(fixed.size)
    if share < 1:
        enums = itk_class("ImageRegistrationMethodv4", "Enums")
        method.SetMetricSamplingStrategy(enums.MetricSamplingStrategy_RANDOM)
        method.SetMetricSamplingPercentage(float(share))
    method.MetricSamplingReinitializeSeed(seed)
    method.Update()
    return int(optimizer.GetCurrentIteration()), float(metric.GetValue())  # the optimizer's is unset if it stood still


def gradient_descent(metric: object, ndim: int) -> object:
    """Regular-step gradient descent whose parameters are scaled by how far they move a voxel."""
    scales = itk_class("RegistrationParameterScalesFromPhysicalShift", f"MMIITIMF{ndim}").New()
    scales.SetMetric(metric)
    optimizer = itk_class("RegularStepGradientDescentOptimizerv4", "D").New()
    optimizer.SetScalesEstimator(scales)
    optimizer.SetDoEstimateLearningRateOnce(True)
    optimizer.SetNumberOfIterations(ITERATIONS)
    optimizer.SetRelaxationFactor(RELAXATION)
    optimizer.SetMinimumStepLength(MIN_STEP)
    optimizer.SetReturnBestParametersAndValue(True)
    return optimizer


def itk_level(voxels: np.ndarray, affine: np.ndarray, mask: np.ndarray | None) -> Level:
    """The ITK image, and the mask as the spatial object that ITK's metrics take."""
    image, buffer = image_view(voxels, affine)
    if mask is None:
        return Level(image, None, voxels.shape, [buffer])
    mask_image, mask_buffer = image_view(mask.astype(np.uint8), affine)
    spatial_object = itk_class("ImageMaskSpatialObject", str(mask.ndim)).New()
    spatial_object.SetImage(mask_image)
    spatial_object.Update()
    return Level(image, spatial_object, voxels.shape, [buffer, mask_buffer])


def is_rotation(matrix: np.ndarray) -> bool:
    """Whether the linear part turns and does nothing else."""
    linear = matrix[:-1, :-1]
    return bool(np.allclose(linear.T @ linear, np.eye(len(linear)), atol=1e-6) and np.linalg.det(linear) > 0)


def itk_transform(name: str, suffix: str, matrix: np.ndarray, center: np.ndarray) -> object:
    """A transform of this class that does what ``matrix`` does, turning about ``center``."""
    transform = itk_class(name, suffix).New()
    transform.SetCenter(center.tolist())
    transform.SetMatrix(to_itk_matrix(matrix[:-1, :-1]))
    transform.SetTranslation((matrix[:-1, :-1] @ center + matrix[:-1, -1] - center).tolist())
    return transform


def matrix_of(transform: object) -> np.ndarray:
    """The (N + 1, N + 1) matrix of an ITK transform."""
    offset = list(transform.GetOffset())
    matrix = np.eye(len(offset) + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = from_itk_matrix(transform.GetMatrix(), len(offset)), offset
    return matrix


def check_alignment(matrix: np.ndarray, images: list[Grid]) -> float:
    """The share of the fixed grid that a matrix takes into the moving one; refuses hardly any, a mirror, a collapse."""
    (fixed, fixed_affine, _), (moving, moving_affine, _) = images
    ndim = fixed.ndim
    corners = np.stack(np.meshgrid(*[np.linspace(0, n - 1, 9) for n in fixed.shape], indexing="ij"), -1).reshape(
        -1, ndim
    )
    onto = np.linalg.solve(moving_affine, matrix @ fixed_affine)
    voxels = corners @ onto[:-1, :-1].T + onto[:-1, -1]
    overlap = ((voxels >= -0.5) & (voxels <= np.array(moving.shape) - 0.5)).all(axis=1).mean()
    volume = np.linalg.det(matrix[:-1, :-1])
    if not np.isfinite(matrix).all() or not 0.1 < volume < 10 or overlap < MIN_OVERLAP:
        raise RegNumericsError(
            f"affine alignment ended with {volume:.3g} times the volume and {overlap:.0%} overlap, expected 0.1 to 10 "
            f"and {MIN_OVERLAP:.0%}; check that both show the same body part, or pass a start."
        )
    return float(overlap)


def reason(error: RuntimeError) -> str:
    """The last line of ITK's message, which is the one that says something."""
    return str(error).strip().splitlines()[-1].strip() if str(error).strip() else "no reason given"
