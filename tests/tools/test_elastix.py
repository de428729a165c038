import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from common.errors import RegEnvError, RegNumericsError
from common.transform_files import read_displacement, write_displacement
from tools.elastix import PARAMETERS, Elastix
from tools.methods import parse_methods
from tools.predictions import Pair

AFFINE = np.array([[-2, 0, 0, 30], [0, 0, 2, -20], [0, -2, 0, 25], [0, 0, 0, 1.0]])  # LIA


@pytest.fixture
def pair(tmp_path) -> Pair:
    """Smooth texture in a ball, and the same with every voxel's value two voxels up the first axis."""
    size, rng = (40, 36, 32), np.random.default_rng(0)
    ball = sum((x - (n - 1) / 2) ** 2 for x, n in zip(np.indices(size), size, strict=True)) < 170
    image = gaussian_filter(rng.random(size), 1.5) * gaussian_filter(ball.astype(float), 1)
    for name, voxels in (("fixed", image), ("moving", np.roll(image, 2, axis=0))):
        nib.save(nib.Nifti1Image((voxels / voxels.max()).astype(np.float32), AFFINE), tmp_path / f"{name}.nii.gz")
    return Pair({role: str(tmp_path / f"{role}.nii.gz") for role in ("fixed", "moving")})


class Parameters(list):
    """``itk.ParameterObject`` as far as it is used."""

    New = classmethod(lambda cls: cls())
    AddParameterMap = list.append


def fake_itk(ddf_mm, error=None) -> SimpleNamespace:
    """A package ``itk`` whose elastix answers one field, or raises."""

    class Method:
        @classmethod
        def New(cls, fixed, moving, parameter_object, log_to_console):  # noqa: N802
            assert (fixed, moving, log_to_console) == ("fixed.nii.gz", "moving.nii.gz", False)
            assert parameter_object == [{name: [value] for name, value in stage.items()} for stage in PARAMETERS]
            return cls()

        def Update(self):  # noqa: N802
            if error is not None:
                raise RuntimeError(error)

        def GetTransformParameterObject(self):  # noqa: N802
            return "parameters"

    return SimpleNamespace(
        F=float,
        imread=lambda path, kind: Path(path).name,
        ParameterObject=Parameters,
        ElastixRegistrationMethod=Method,
        transformix_deformation_field=lambda moving, parameters, output_directory: (moving, parameters),
        imwrite=lambda field, path: write_displacement(path, ddf_mm, AFFINE),
    )


def test_without_itk_elastix_the_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "itk", SimpleNamespace())
    with pytest.raises(RegEnvError, match=r"pip install '\.\[elastix\]'"):
        Elastix().check()


def test_the_stages_are_rigid_then_bsplines_by_mutual_information():
    assert [stage["Transform"] for stage in PARAMETERS] == ["EulerTransform", "BSplineTransform"]
    assert {stage["Metric"] for stage in PARAMETERS} == {"AdvancedMattesMutualInformation"}


def test_it_is_a_source_of_evaluate():
    assert isinstance(parse_methods(["slicer=elastix"])["slicer"], Elastix)


def test_fields_and_seconds_lie_where_inference_puts_them(pair, tmp_path, monkeypatch):
    ddf_mm = torch.randn(1, 3, *pair.fixed_grid.size, generator=torch.Generator().manual_seed(0))
    monkeypatch.setitem(sys.modules, "itk", fake_itk(ddf_mm))
    folder = Elastix().run([pair], tmp_path / "out")
    written, affine = read_displacement(tmp_path / "out" / "fixed__moving" / "displacement.nii.gz")
    assert torch.equal(written, ddf_mm) and np.allclose(affine, AFFINE)
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert [row["fixed"] for row in rows] == ["fixed.nii.gz"]
    assert folder.seconds(pair) == float(rows[0]["seconds"]) >= 0


def test_a_pair_that_elastix_gives_up_is_named_with_its_reason(pair, tmp_path, monkeypatch):
    text = (
        "\nsource/itkMetric.hxx:120:\nITK ERROR: Metric(0x1): Too many samples map outside moving image buffer: 0 / 9\n"
    )
    monkeypatch.setitem(sys.modules, "itk", fake_itk(None, text))
    with pytest.raises(RegNumericsError, match=r"gave up the pair fixed__moving \(ITK ERROR: .*Too many samples"):
        Elastix().run([pair], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.reference
def test_elastix_finds_the_shift_in_the_direction_of_a_pull_field(pair, tmp_path, monkeypatch):
    itk = pytest.importorskip("itk")
    if not hasattr(itk, "ElastixRegistrationMethod"):
        pytest.skip("itk-elastix is not installed")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    prediction = Elastix().run([pair], tmp_path / "out").read(pair)
    assert not list((tmp_path / "here").iterdir())  # elastix likes to leave files in the working directory
    inner = prediction.offset[0][:, 12:28, 12:24, 10:22].mean(dim=(1, 2, 3))
    assert inner.tolist() == pytest.approx([2, 0, 0], abs=0.2)
