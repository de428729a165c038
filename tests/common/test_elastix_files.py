from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import RegInputError
from common.map_files import read_affine, read_transform

from .random_pairs import lps, random_pair, sitk_image
from .test_map_files import around, linear_transforms, moved_by_simpleitk, points_of, random_spline

CENTERED = {"Euler3DTransform", "Euler2DTransform", "Similarity3DTransform", "Similarity2DTransform", "AffineTransform"}


def words(values):
    return " ".join(repr(float(v)) for v in values)


def write(path, name, transform, parameters, initial="NoInitialTransform", **entries):
    """A parameter file as elastix 5 writes it, entries in any order, comments and strings in quotes."""
    ndim = transform.GetDimension()
    lines = [
        f'(Transform "{name}")',
        f"(NumberOfParameters {len(parameters)})",
        f"(TransformParameters {words(parameters)})",
        f'(InitialTransformParameterFileName "{initial}")',
        '(HowToCombineTransforms "Compose")',
        f"(FixedImageDimension {ndim})",
        "",
        "// Resampler specific",
        '(Resampler "DefaultResampler") // not read',
        *(f"({key} {value})" for key, value in entries.items()),
    ]
    Path(path).write_text("\n".join(lines) + "\n")


def write_linear(path, transform, **rest):
    """elastix takes the parameters of ITK's classes of the same name."""
    name = transform.GetName().replace("3D", "").replace("2D", "")
    center = words(transform.GetFixedParameters()[: transform.GetDimension()])
    center = {} if name == "TranslationTransform" else {"CenterOfRotationPoint": center}
    write(path, name, transform, transform.GetParameters(), **center, **rest)


def write_spline(path, transform, **rest):
    """elastix writes its grid's direction column by column."""
    ndim = transform.GetDimension()
    size, origin, spacing, direction = np.split(np.array(transform.GetFixedParameters()), [ndim, 2 * ndim, 3 * ndim])
    grid = {
        "GridSize": " ".join(str(int(n)) for n in size),
        "GridIndex": " ".join(["0"] * ndim),
        "GridSpacing": words(spacing),
        "GridOrigin": words(origin),
        "GridDirection": words(direction.reshape(ndim, ndim).T.ravel()),
        "BSplineTransformSplineOrder": "3",
        "UseCyclicTransform": '"false"',
    }
    write(path, "BSplineTransform", transform, transform.GetParameters(), **grid | rest)


LINEAR = [t for t in linear_transforms() if t.GetName() in CENTERED | {"TranslationTransform"}]


@pytest.mark.parametrize("transform", LINEAR, ids=lambda t: f"{t.GetName()} {t.GetDimension()}-D")
def test_a_linear_transform_moves_points_as_simpleitks_class_of_that_name(tmp_path, transform):
    write_linear(tmp_path / "TransformParameters.0.txt", transform)
    points, matrix = points_of(transform.GetDimension()), read_affine(tmp_path / "TransformParameters.0.txt")
    ours = points @ matrix[:-1, :-1].T + matrix[:-1, -1]
    np.testing.assert_allclose(ours, moved_by_simpleitk(transform, points), atol=1e-9)


def test_the_order_of_rotations_is_read(tmp_path):
    transform = sitk.Euler3DTransform((3, -20, 11), 0.3, -0.2, 0.1, (1, 2, 3))
    transform.SetComputeZYX(True)
    write_linear(tmp_path / "zyx.txt", transform, ComputeZYX='"true"')
    points, matrix = points_of(3), read_affine(tmp_path / "zyx.txt")
    ours = points @ matrix[:-1, :-1].T + matrix[:-1, -1]
    np.testing.assert_allclose(ours, moved_by_simpleitk(transform, points), atol=1e-9)


@pytest.mark.parametrize("seed", [1, 4])  # the second is 2-D
def test_a_chain_applies_its_initial_transform_first(tmp_path, seed):
    """Also from a folder that has moved: the name is looked for beside the file."""
    pair = random_pair(seed)
    affine = next(t for t in LINEAR if t.GetName() == "AffineTransform" and t.GetDimension() == len(pair.size))
    spline = random_spline(pair)
    write_linear(tmp_path / "TransformParameters.0.txt", affine)
    write_spline(tmp_path / "TransformParameters.1.txt", spline, initial="/gone/TransformParameters.0.txt")
    points = around(pair)
    ours = read_transform(tmp_path / "TransformParameters.1.txt").points(points)
    both = sitk.CompositeTransform([spline, affine])  # the last is applied first
    np.testing.assert_allclose(ours, moved_by_simpleitk(both, points), atol=1e-9)


def test_a_grid_may_begin_at_another_index(tmp_path):
    pair = random_pair(1)
    spline = random_spline(pair)
    origin, spacing = (np.array(spline.GetFixedParameters()[k : k + 3]) for k in (3, 6))
    direction = np.array(spline.GetFixedParameters()[9:]).reshape(3, 3)
    start = origin - direction @ (spacing * [2, -1, 3])
    write_spline(tmp_path / "spline.txt", spline, GridIndex="2 -1 3", GridOrigin=words(start))
    points = around(pair)
    ours = read_transform(tmp_path / "spline.txt").points(points)
    np.testing.assert_allclose(ours, moved_by_simpleitk(spline, points), atol=1e-9)


def test_parameters_in_a_binary_file_are_read(tmp_path):
    transform = next(iter(LINEAR))
    write_linear(tmp_path / "t.txt", transform)
    text = (tmp_path / "t.txt").read_text().replace(words(transform.GetParameters()), '"t.txt.dat"')
    np.array(transform.GetParameters()).tofile(tmp_path / "t.txt.dat")
    (tmp_path / "b.txt").write_text(text + '(UseBinaryFormatForTransformationParameters "true")\n')
    np.testing.assert_array_equal(read_affine(tmp_path / "b.txt"), read_affine(tmp_path / "t.txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"AffineTransform"', '"SplineKernelTransform"'), "SplineKernelTransform"),
        (("(NumberOfParameters 12)", "(NumberOfParameters 11)"), "12 parameters, of which NumberOfParameters says 11"),
        (("(FixedImageDimension 3)", ""), "FixedImageDimension"),
        (("NoInitialTransform", "missing.txt"), "missing.txt, which is missing"),
        (("NoInitialTransform", "bad.txt"), "starts from itself"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, change, message):
    write_linear(tmp_path / "good.txt", next(t for t in LINEAR if t.GetName() == "AffineTransform"))
    (tmp_path / "bad.txt").write_text((tmp_path / "good.txt").read_text().replace(*change))
    with pytest.raises(RegInputError, match=message) as caught:
        read_transform(tmp_path / "bad.txt")
    assert len(str(caught.value).splitlines()) == 1


def test_transforms_that_are_added_are_refused(tmp_path):
    transform = next(iter(LINEAR))
    write_linear(tmp_path / "0.txt", transform)
    write_linear(tmp_path / "1.txt", transform, initial="0.txt")
    text = (tmp_path / "1.txt").read_text()
    (tmp_path / "1.txt").write_text(text.replace('"Compose"', '"Add"'))
    with pytest.raises(RegInputError, match="adds transforms"):
        read_transform(tmp_path / "1.txt")


@pytest.mark.parametrize("suffix", ["", "h5", "tfm"])
def test_what_elastix_writes_is_read_as_transformix_applies_it(tmp_path, monkeypatch, suffix):
    """Four stages on an oblique grid by itk-elastix, as its own text and as text that names ITK files."""
    itk = pytest.importorskip("itk")
    if not hasattr(itk, "ElastixRegistrationMethod"):
        pytest.skip("itk-elastix is not installed")
    pair, other = random_pair(1), random_pair(2)
    monkeypatch.chdir(tmp_path)
    for name, one in (("fixed", pair), ("moving", other)):
        sitk.WriteImage(sitk_image(one.ddf[0, 0].numpy() * 100, pair.affine), f"{name}.nii.gz")
    fixed, moving = (itk.imread(f"{name}.nii.gz", itk.F) for name in ("fixed", "moving"))
    parameters = itk.ParameterObject.New()
    for stage in ("EulerTransform", "SimilarityTransform", "AffineTransform", "BSplineTransform"):
        parameters.AddParameterMap({key: [value] for key, value in stage_of(stage, suffix).items()})
    method = itk.ElastixRegistrationMethod.New(
        fixed, moving, parameter_object=parameters, log_to_console=False, output_directory=str(tmp_path)
    )
    method.Update()
    theirs = itk.transformix_deformation_field(moving, method.GetTransformParameterObject())
    theirs = lps(itk.array_from_image(theirs).transpose(2, 1, 0, 3))
    ours = read_transform(tmp_path / "TransformParameters.3.txt").on_grid(pair.size, pair.affine)
    assert np.abs(theirs).max() > 0.5
    np.testing.assert_allclose(ours[0].movedim(0, -1), theirs, atol=1e-3)


def stage_of(transform, suffix):
    """A quick registration; it need not be a good one."""
    stage = {
        "Transform": transform,
        "Registration": "MultiResolutionRegistration",
        "NumberOfResolutions": "1",
        "FixedImagePyramid": "FixedSmoothingImagePyramid",
        "MovingImagePyramid": "MovingSmoothingImagePyramid",
        "Metric": "AdvancedMeanSquares",
        "ImageSampler": "Full",
        "Optimizer": "AdaptiveStochasticGradientDescent",
        "MaximumStepLength": "1",
        "Interpolator": "LinearInterpolator",
        "HowToCombineTransforms": "Compose",
        "MaximumNumberOfIterations": "20",
        "AutomaticScalesEstimation": "true",
        "ResampleInterpolator": "FinalLinearInterpolator",
        "Resampler": "DefaultResampler",
        "WriteResultImage": "false",
        "FinalGridSpacingInPhysicalUnits": "6",
    }
    return stage | ({"ITKTransformOutputFileNameExtension": suffix} if suffix else {})
