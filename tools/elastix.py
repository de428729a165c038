"""elastix, a classical peer, through itk-elastix: rigid, then B-spline registration by mutual information.

It stands in for 3D Slicer, whose extension SlicerElastix calls elastix: the parameters are those of its preset
"generic (all)", the first in its list. Every method starts from the same headers.
Source: S. Klein et al., IEEE Trans. Med. Imaging 2010, doi:10.1109/TMI.2009.2035616; parameters from repository
lassoan/SlicerElastix, Parameters_Rigid.txt and Parameters_BSpline.txt, commits 5373cf4 and 48c4390.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from common.errors import RegEnvError, RegNumericsError, first_line

from .peers import register_pairs
from .predictions import Folder, Pair

__all__ = ["PARAMETERS", "Elastix"]

SHARED = {
    "Registration": "MultiResolutionRegistration",
    "NumberOfResolutions": "4",  # each of half the voxels along every axis
    "FixedImagePyramid": "FixedRecursiveImagePyramid",
    "MovingImagePyramid": "MovingRecursiveImagePyramid",
    "Metric": "AdvancedMattesMutualInformation",
    "NumberOfHistogramBins": "32",
    "ImageSampler": "Random",
    "NumberOfSpatialSamples": "2048",
    "NewSamplesEveryIteration": "true",
    "Optimizer": "AdaptiveStochasticGradientDescent",
    "Interpolator": "BSplineInterpolator",
    "BSplineInterpolationOrder": "1",
    "HowToCombineTransforms": "Compose",
    "ErodeMask": "false",
    "ResampleInterpolator": "FinalBSplineInterpolator",
    "FinalBSplineInterpolationOrder": "3",
    "Resampler": "DefaultResampler",
    "DefaultPixelValue": "0",
    "WriteResultImage": "false",  # the preset warps the image too; here the field is enough
}
RIGID = {
    "Transform": "EulerTransform",
    "AutomaticScalesEstimation": "true",
    "AutomaticTransformInitialization": "true",  # centers of the images
    "MaximumNumberOfIterations": "250",  # at each resolution
}
BSPLINE = {
    "Transform": "BSplineTransform",
    "FinalGridSpacingInPhysicalUnits": "16",  # mm between control points; twice that at each coarser resolution
    "MaximumNumberOfIterations": "500",
}
PARAMETERS = (SHARED | RIGID, SHARED | BSPLINE)


class Elastix:
    """elastix of every pair, one process, threads by ``ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS``."""

    def check(self) -> None:
        """Raise RegEnvError without itk-elastix."""
        load_elastix()

    def run(self, pairs: Sequence[Pair], out: Path) -> Folder:
        """Register every pair into ``out`` in inference's layout, ``metrics.csv`` with the seconds of each last.

        Raises:
            RegEnvError: without itk-elastix, or if ``out`` cannot be written.
            RegNumericsError: if elastix gives a pair up.
        """
        itk = load_elastix()
        return register_pairs(pairs, out, lambda pair, work: register(itk, pair, work))


def load_elastix() -> ModuleType:
    """The package ``itk``, with elastix in it."""
    import itk  # it loads its modules when they are asked for: not before this method is

    if not hasattr(itk, "ElastixRegistrationMethod"):
        raise RegEnvError("elastix needs itk-elastix, which is not installed; run `pip install '.[elastix]'`.")
    return itk


def register(itk: ModuleType, pair: Pair, work: Path) -> tuple[Path, float]:
    """Register one pair; the field's file in ``work``, and the seconds."""
    fixed, moving = (itk.imread(str(path), itk.F) for path in (pair.fixed, pair.moving))
    parameters = itk.ParameterObject.New()
    for stage in PARAMETERS:
        parameters.AddParameterMap({name: [value] for name, value in stage.items()})
    started = time.perf_counter()
    try:
        method = itk.ElastixRegistrationMethod.New(fixed, moving, parameter_object=parameters, log_to_console=False)
        method.Update()
        transform = method.GetTransformParameterObject()
        field = itk.transformix_deformation_field(moving, transform, output_directory=str(work))  # a copy lands there
    except RuntimeError as error:
        raise RegNumericsError(
            f"elastix gave up the pair {pair.name} ({reason(error)}), expected a transform; look at the images."
        ) from error
    seconds = time.perf_counter() - started
    itk.imwrite(field, str(work / "field.nii.gz"))
    return work / "field.nii.gz", seconds


def reason(error: RuntimeError) -> str:
    """What an ITK exception says, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.endswith(":")), first_line(error))
