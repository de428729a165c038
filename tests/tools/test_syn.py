import csv
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter

from common.errors import RegEnvError, RegNumericsError
from common.transform_files import read_displacement, write_displacement
from tools.predictions import Pair
from tools.syn import PARAMETERS, SyN

AFFINE = np.array([[-2, 0, 0, 30], [0, 0, 2, -20], [0, -2, 0, 25], [0, 0, 0, 1.0]])  # LIA


@pytest.fixture
def pair(tmp_path) -> Pair:
    """Smooth texture in a ball, and the same with every voxel's value two voxels up the first axis."""
    size, rng = (26, 24, 22), np.random.default_rng(0)
    ball = sum((x - (n - 1) / 2) ** 2 for x, n in zip(np.indices(size), size, strict=True)) < 64
    image = gaussian_filter(rng.random(size), 1.5) * gaussian_filter(ball.astype(float), 1)
    for name, voxels in (("fixed", image), ("moving", np.roll(image, 2, axis=0))):
        nib.save(nib.Nifti1Image((voxels / voxels.max()).astype(np.float32), AFFINE), tmp_path / f"{name}.nii.gz")
    return Pair({role: str(tmp_path / f"{role}.nii.gz") for role in ("fixed", "moving")})


def fake_ants(files_of) -> SimpleNamespace:
    """A package ``ants`` whose registration hands back what ``files_of(outprefix)`` wrote."""

    def registration(fixed, moving, outprefix, **parameters):
        assert parameters == PARAMETERS and (fixed, moving) == ("fixed.nii.gz", "moving.nii.gz")
        return {"fwdtransforms": files_of(outprefix)}

    return SimpleNamespace(image_read=lambda path: Path(path).name, registration=registration)


def test_without_antspyx_the_sentence_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(RegEnvError, match="`pip install antspyx`"):
        SyN().check()


def test_fields_and_seconds_lie_where_inference_puts_them(pair, tmp_path, monkeypatch):
    ddf_mm = torch.randn(1, 3, *pair.fixed_grid.size, generator=torch.Generator().manual_seed(0))

    def files_of(prefix):
        write_displacement(f"{prefix}1Warp.nii.gz", ddf_mm, AFFINE)
        return [f"{prefix}1Warp.nii.gz"]

    monkeypatch.setitem(sys.modules, "ants", fake_ants(files_of))
    folder = SyN().run([pair], tmp_path / "out")
    written, affine = read_displacement(tmp_path / "out" / "fixed__moving" / "displacement.nii.gz")
    assert torch.equal(written, ddf_mm) and np.allclose(affine, AFFINE)
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert [row["fixed"] for row in rows] == ["fixed.nii.gz"]
    assert folder.seconds(pair) == float(rows[0]["seconds"]) >= 0


@pytest.mark.parametrize("moved", [False, True])
def test_an_affine_passes_if_it_is_the_identity(pair, tmp_path, monkeypatch, moved):
    def files_of(prefix):
        transform = sitk.AffineTransform(3)
        transform.SetTranslation((float(moved), 0.0, 0.0))
        sitk.WriteTransform(transform, f"{prefix}0GenericAffine.mat")
        write_displacement(f"{prefix}1Warp.nii.gz", torch.ones(1, 3, *pair.fixed_grid.size), AFFINE)
        return [f"{prefix}1Warp.nii.gz", f"{prefix}0GenericAffine.mat"]

    monkeypatch.setitem(sys.modules, "ants", fake_ants(files_of))
    if moved:
        with pytest.raises(RegNumericsError, match="at most identities"):
            SyN().run([pair], tmp_path / "out")
    else:
        assert (SyN().run([pair], tmp_path / "out").file(pair)).is_file()


@pytest.mark.ants
@pytest.mark.reference
def test_syn_finds_the_shift_in_the_direction_of_a_pull_field(pair, tmp_path):
    pytest.importorskip("ants", reason="antspyx is not installed")
    prediction = SyN().run([pair], tmp_path / "out").read(pair)
    inner = prediction.offset[0][:, 10:16, 9:15, 8:14].mean(dim=(1, 2, 3))
    assert inner.tolist() == pytest.approx([2, 0, 0], abs=0.4)
