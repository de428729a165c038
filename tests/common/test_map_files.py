import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.io import savemat

from common.errors import RegInputError
from common.map_files import read_affine, read_transform, write_affine
from common.transform_files import write_displacement

from .random_pairs import lps, random_pair, sitk_image

CENTER = (3.0, -20.0, 11.0)


def linear_transforms():
    """One of every linear class that SimpleITK can make, none the identity."""
    versor = (0.1, -0.2, 0.3)
    yield sitk.TranslationTransform(3, (1.5, -2, 3))
    yield sitk.ScaleTransform(3, (1.1, 0.9, 1.2))
    yield sitk.AffineTransform((1.1, 0.2, 0, 0, 0.9, -0.1, 0.1, 0, 1.2), (3, -4, 5), CENTER)
    yield sitk.VersorTransform((*versor, 0.9), CENTER)
    yield sitk.VersorRigid3DTransform((*versor, 0.9), (1, 2, 3), CENTER)
    yield sitk.Euler3DTransform(CENTER, 0.3, -0.2, 0.1, (1, 2, 3))
    yield sitk.Similarity3DTransform(1.2, (*versor, 0.9), (1, 2, 3), CENTER)
    yield sitk.ScaleVersor3DTransform((1.1, 0.9, 1.2), (*versor, 0.9), (1, 2, 3), CENTER)
    yield sitk.ScaleSkewVersor3DTransform((1.1, 1, 1.2), (0.1, 0, 0, 0.2, 0, 0), (*versor, 0.9), (1, 2, 3), CENTER)
    yield sitk.TranslationTransform(2, (1.5, -2))
    yield sitk.AffineTransform((1.1, 0.2, -0.1, 0.9), (3, -4), CENTER[:2])
    yield sitk.Euler2DTransform(CENTER[:2], 0.3, (1, 2))
    yield sitk.Similarity2DTransform(1.2, 0.3, (1, 2), CENTER[:2])


def named(transform):
    return f"{transform.GetName()} {transform.GetDimension()}-D"


def points_of(ndim, count=200, reach=40.0):
    return np.random.default_rng(0).uniform(-reach, reach, (count, ndim))


def moved_by_simpleitk(transform, points):
    return lps([transform.TransformPoint(point.tolist()) for point in lps(points)])


@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".mat", ".h5"])
@pytest.mark.parametrize("transform", list(linear_transforms()), ids=named)
def test_every_linear_class_moves_points_as_simpleitk_does(tmp_path, transform, suffix):
    path = tmp_path / f"linear{suffix}"
    sitk.WriteTransform(transform, str(path))
    points = points_of(transform.GetDimension())
    matrix = read_affine(path)
    ours = points @ matrix[:-1, :-1].T + matrix[:-1, -1]
    np.testing.assert_allclose(ours, moved_by_simpleitk(transform, points), atol=1e-9)


@pytest.mark.parametrize("suffix", [".txt", ".mat"])
def test_an_affine_by_the_name_that_old_ants_gives_it_is_read(tmp_path, suffix):
    path, name = tmp_path / f"affine{suffix}", "MatrixOffsetTransformBase_double_3_3"
    parameters = np.random.default_rng(0).normal(size=12)
    if suffix == ".txt":
        words = [" ".join(str(float(v)) for v in values) for values in (parameters, CENTER)]
        path.write_text(
            f"#Insight Transform File V1.0\n#Transform 0\nTransform: {name}\nParameters: {words[0]}\n"
            f"FixedParameters: {words[1]}\n"
        )
    else:
        savemat(path, {name: parameters[:, None], "fixed": np.array(CENTER)[:, None]}, format="4")
    points, matrix = points_of(3), read_affine(path)
    expected = sitk.AffineTransform(parameters[:9].tolist(), parameters[9:].tolist(), CENTER)
    ours = points @ matrix[:-1, :-1].T + matrix[:-1, -1]
    np.testing.assert_allclose(ours, moved_by_simpleitk(expected, points), atol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("suffix", [".tfm", ".mat", ".h5"])
def test_simpleitk_reads_the_affine_that_we_write(tmp_path, ndim, suffix):
    matrix = np.eye(ndim + 1)
    matrix[:-1] += np.random.default_rng(1).normal(scale=0.3, size=(ndim, ndim + 1))
    write_affine(tmp_path / f"affine{suffix}", matrix)
    points = points_of(ndim)
    theirs = moved_by_simpleitk(sitk.ReadTransform(str(tmp_path / f"affine{suffix}")), points)
    np.testing.assert_allclose(points @ matrix[:-1, :-1].T + matrix[:-1, -1], theirs, atol=1e-9)


@pytest.mark.parametrize("suffix", [".txt", ".mat"])
def test_a_matrix_as_text_is_ras(tmp_path, suffix):
    matrix = np.array([[1.1, 0.2, 0, 4], [0, 0.9, 0.1, -5], [0, 0, 1.2, 6], [0, 0, 0, 1]])
    np.savetxt(tmp_path / f"greedy{suffix}", matrix)
    np.testing.assert_array_equal(read_affine(tmp_path / f"greedy{suffix}"), matrix)


@pytest.mark.parametrize(
    "text", ["1 0 0\n0 1 0\n", "1 0 0\n0 1 0\n0 0.1 1\n", "1 2\n3\n", "nothing\n", "0 0 0\n0 0 0\n0 0 1\n"]
)
def test_a_text_that_is_no_transform_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(RegInputError, match=r"expected") as caught:
        read_affine(tmp_path / "bad.txt")
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RegInputError, match=r"no\.h5 cannot be read"):
        read_transform(tmp_path / "no.h5")


def random_spline(pair, seed=0):
    """A cubic B-spline over the pair's fixed grid, as SimpleITK makes it, with random coefficients of some mm."""
    grid = sitk_image(np.zeros(pair.size), pair.affine)
    spline = sitk.BSplineTransformInitializer(grid, list(range(3, 3 + len(pair.size))))
    rng = np.random.default_rng(seed)
    spline.SetParameters(rng.normal(scale=2, size=len(spline.GetParameters())).tolist())
    return spline


def field_of(pair, tmp_path, name):
    write_displacement(tmp_path / name, pair.total_mm, pair.affine)
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / name), sitk.sitkVectorFloat64))


def around(pair, count=300):
    """Points in and around the fixed grid."""
    size = np.array(pair.size)
    index = np.random.default_rng(2).uniform(-0.2 * size, 1.2 * size, (count, len(size)))
    return index @ pair.affine[:-1, :-1].T + pair.affine[:-1, -1]


@pytest.mark.parametrize("seed", [1, 4])  # the second is 2-D
def test_a_b_spline_moves_points_in_and_around_its_grid_as_simpleitk_does(tmp_path, seed):
    pair = random_pair(seed)
    spline = random_spline(pair)
    sitk.WriteTransform(spline, str(tmp_path / "spline.h5"))
    points = around(pair)
    theirs = moved_by_simpleitk(spline, points)
    still = (theirs == points).all(axis=1).mean()
    assert 0.2 < still < 0.8  # beyond its control points a spline does nothing
    np.testing.assert_allclose(read_transform(tmp_path / "spline.h5").points(points), theirs, atol=1e-9)


@pytest.mark.parametrize("seed", [2, 9])  # the second is 2-D
def test_a_composite_of_fields_affines_and_b_splines_moves_points_as_simpleitk_does(tmp_path, seed):
    pair, other = random_pair(seed), random_pair(seed + 5)
    ndim = len(pair.size)
    affine = next(t for t in linear_transforms() if t.GetName() == "AffineTransform" and t.GetDimension() == ndim)
    fields = field_of(other, tmp_path, "a.nii.gz"), field_of(pair, tmp_path, "b.nii.gz")
    both = sitk.CompositeTransform([affine, random_spline(other), fields[0], random_spline(pair), fields[1]])
    sitk.WriteTransform(both, str(tmp_path / "all.h5"))
    points = around(pair)
    ours = read_transform(tmp_path / "all.h5").points(points)
    np.testing.assert_allclose(ours, moved_by_simpleitk(both, points), atol=1e-3)  # fields are float32


def test_a_composite_on_a_grid_is_simpleitks_displacement_field(tmp_path):
    pair, other = random_pair(0), random_pair(1)
    both = sitk.CompositeTransform([sitk.Euler3DTransform(CENTER, 0.3, -0.2, 0.1, (1, 2, 3)), random_spline(pair)])
    sitk.WriteTransform(both, str(tmp_path / "both.h5"))
    grid = sitk_image(np.zeros(other.size), other.affine)
    field = sitk.TransformToDisplacementField(both, sitk.sitkVectorFloat64, grid.GetSize(), grid.GetOrigin(),
                                              grid.GetSpacing(), grid.GetDirection())  # fmt: skip
    theirs = lps(sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3))
    ours = read_transform(tmp_path / "both.h5").on_grid(other.size, other.affine)[0].movedim(0, -1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_deformation_is_no_affine(tmp_path):
    pair = random_pair(0)
    write_displacement(tmp_path / "field.nii.gz", pair.total_mm, pair.affine)
    with pytest.raises(RegInputError, match="holds a deformation"):
        read_affine(tmp_path / "field.nii.gz")


def test_a_spline_that_itk_cannot_make_is_refused_by_what_itk_says(tmp_path):
    grid = sitk_image(np.zeros((6, 6, 6)), np.eye(4))
    sitk.WriteTransform(sitk.BSplineTransformInitializer(grid, [2, 2, 2], 2), str(tmp_path / "quadratic.tfm"))
    with pytest.raises(RegInputError, match="BSplineTransform_double_3_3_2") as caught:
        read_transform(tmp_path / "quadratic.tfm")
    assert len(str(caught.value).splitlines()) == 1


def test_an_affine_under_another_name_is_not_written(tmp_path):
    with pytest.raises(RegInputError, match=r"expected \.h5, \.tfm, \.mat"):
        write_affine(tmp_path / "affine.json", np.eye(4))
    assert not list(tmp_path.iterdir())


@pytest.mark.ants
def test_what_ants_writes_is_read_as_ants_applies_it(tmp_path):
    """A small SyN registration by antspyx: warp, affine, and their composite."""
    ants = pytest.importorskip("ants", reason="antspyx is not installed")
    pair = random_pair(0)
    image = np.kron(pair.moving[0, 0].numpy(), np.ones((2, 2, 2))).astype("float32")
    fixed = ants.from_numpy(image, spacing=(1.2, 0.9, 1.7), origin=(-12.0, 31.0, 5.0))
    moving = ants.from_numpy(np.roll(image, 1, axis=0), spacing=(1.2, 0.9, 1.7), origin=(-10.0, 30.0, 5.0))
    found = ants.registration(fixed, moving, "SyN", outprefix=f"{tmp_path}/", reg_iterations=(10, 5, 0))
    warp, affine = (read_transform(path) for path in found["fwdtransforms"])
    points = lps(points_of(3, reach=8) + np.array([4, 40, 20]))
    table = {axis: column for axis, column in zip("xyz", lps(points).T, strict=True)}
    pandas = pytest.importorskip("pandas")
    moved = ants.apply_transforms_to_points(3, pandas.DataFrame(table), found["fwdtransforms"])
    theirs = lps(moved[["x", "y", "z"]].to_numpy())
    assert np.abs(theirs - points).max() > 0.5
    np.testing.assert_allclose(affine.points(warp.points(points)), theirs, atol=1e-3)
