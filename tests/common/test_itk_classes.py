import subprocess
import sys

import numpy as np
import pytest
import torch

from common import itk_classes
from common.itk_classes import (
    from_itk_matrix,
    image_view,
    itk_class,
    itk_member,
    read_transforms,
    register_formats,
    to_itk_matrix,
    write_transform,
)
from common.transform_files import write_composite


@pytest.mark.slow  # ITK's own names load 1200 modules
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_abbreviated_names_are_the_classes_of_itks_public_names(ndim):
    import itk

    image = itk.Image[itk.F, ndim]
    metric = itk.MattesMutualInformationImageToImageMetricv4[image, image]
    pairs = [
        ("MattesMutualInformationImageToImageMetricv4", f"IF{ndim}IF{ndim}", metric),
        ("RegistrationParameterScalesFromPhysicalShift", f"MMIITIMF{ndim}", None),
        ("ImageRegistrationMethodv4", f"REGv4F{ndim}F{ndim}", itk.ImageRegistrationMethodv4[image, image]),
        ("RegularStepGradientDescentOptimizerv4", "D", itk.RegularStepGradientDescentOptimizerv4[itk.D]),
        ("ImageMaskSpatialObject", str(ndim), itk.ImageMaskSpatialObject[ndim]),
        ("AffineTransform", f"D{ndim}", itk.AffineTransform[itk.D, ndim]),
        ("Matrix", f"D{ndim}{ndim}", itk.Matrix[itk.D, ndim, ndim]),
    ]
    for name, suffix, public in pairs:
        expected = public or itk.RegistrationParameterScalesFromPhysicalShift[metric]
        assert itk_class(name, suffix) is expected


def test_a_matrix_goes_to_itk_and_back():
    matrix = np.random.default_rng(0).normal(size=(3, 3))
    np.testing.assert_array_equal(from_itk_matrix(to_itk_matrix(matrix), 3), matrix)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_an_image_view_has_the_affines_points_and_the_arrays_voxels(dtype):
    voxels = np.arange(24).reshape(2, 3, 4).astype(dtype)
    affine = np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
    image, _buffer = image_view(voxels, affine)
    index = (1, 2, 3)
    assert image.GetPixel(index) == voxels[index]
    assert list(image.TransformIndexToPhysicalPoint(index)) == pytest.approx((affine @ [*index, 1])[:3])


def test_a_transform_file_comes_back_as_the_classes_that_went_in(tmp_path):
    composite = itk_class("CompositeTransform", "D3").New()
    for name, suffix in (("AffineTransform", "D3"), ("Euler3DTransform", "D"), ("TranslationTransform", "D3")):
        composite.AddTransform(itk_class(name, suffix).New())
    write_transform(composite, str(tmp_path / "three.h5"))
    names = [type(part).__name__ for part in read_transforms(str(tmp_path / "three.h5"))]
    assert names == ["itkAffineTransformD3", "itkEuler3DTransformD", "itkTranslationTransformD3"]


def test_transforms_of_a_file_without_a_composite_keep_their_order(tmp_path):
    register_formats()
    writer = itk_member("TransformFileWriter", "itkTransformFileWriterTemplateD").New()
    writer.SetFileName(str(tmp_path / "two.tfm"))
    for name, suffix in (("AffineTransform", "D3"), ("Euler3DTransform", "D")):
        writer.AddTransform(itk_class(name, suffix).New())
    writer.Update()
    names = [transform.GetNameOfClass() for transform in read_transforms(str(tmp_path / "two.tfm"))]
    assert names == ["AffineTransform", "Euler3DTransform"]


@pytest.mark.parametrize("suffix", [".h5", ".tfm", ".mat"])
def test_formats_are_told_by_their_suffix(tmp_path, suffix):
    transform = itk_class("AffineTransform", "D2").New()
    transform.SetTranslation([3.0, -4.0])
    write_transform(transform, str(tmp_path / f"affine{suffix}"))
    (again,) = read_transforms(str(tmp_path / f"affine{suffix}"))
    assert list(again.GetTranslation()) == [3, -4]


TOO_FULL = """
import resource, sys
import numpy as np
import torch
from common.transform_files import write_composite
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
write_composite(sys.argv[1], torch.rand(1, 3, 24, 24, 24), np.eye(4))
"""


@pytest.mark.parametrize("room", [1000, 200_000])
def test_a_process_whose_transform_does_not_fit_ends_by_itself(tmp_path, room):
    """Room for no header, or for the compressed field alone; HDF5 ends the first by a signal if it is handed it."""
    words = [sys.executable, "-W", "ignore", "-c", TOO_FULL, str(tmp_path / "transform.h5"), str(room)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and "transform.h5 could not be written" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, 9, 40])
def test_no_file_is_larger_than_the_room_that_is_asked_for(tmp_path, size, monkeypatch):
    asked = []
    monkeypatch.setattr(itk_classes, "require_room", lambda path, size: asked.append(size))
    field = torch.randn(1, 3, size, size + 1, size + 2) if size else None
    write_composite(tmp_path / "transform.h5", field, np.eye(4), np.eye(4))
    assert (tmp_path / "transform.h5").stat().st_size < asked[0]


def test_many_files_register_the_formats_once(tmp_path, monkeypatch):
    """ITK takes the same factory again and again, and asks each for each file: the thousandth took seconds."""
    calls = []
    member = itk_classes.itk_member
    monkeypatch.setattr(itk_classes, "itk_member", lambda *names: calls.append(names[1]) or member(*names))
    for _ in range(3):
        write_composite(tmp_path / "transform.h5", None, None, np.eye(4))
        read_transforms(str(tmp_path / "transform.h5"))
    assert all(calls.count(name) <= 1 for name in calls if name.endswith("Factory"))
