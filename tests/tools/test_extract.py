"""The command that cuts out a brain: what it writes, and what it refuses before any work."""

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import RegInputError
from tools.__main__ import app
from tools.extract import extract

SIZE = (6, 7, 8)
AFFINE = np.array([[-1.0, 0, 0, 3], [0, 0, 1.5, -4], [0, 2.0, 0, 5], [0, 0, 0, 1]])


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Scan, template and mask on disk, and an extraction that finds the middle of the scan."""

    def middle(image, template, template_mask, report):
        assert [voxels.shape for voxels in (image[0], template[0], template_mask)] == [SIZE] * 3
        np.testing.assert_allclose(image[1], AFFINE)
        report(1, {"similarity": 0.5})
        return middle_of(SIZE)

    monkeypatch.setattr("tools.extract.extract_brain", middle)
    scan = np.random.default_rng(0).integers(-1000, 1000, SIZE).astype(np.int16)
    paths = [tmp_path / f"{name}.nii.gz" for name in ("scan", "head", "brain")]
    for path, voxels in zip(paths, (scan, scan + 1, middle_of(SIZE).astype(np.uint8)), strict=True):
        nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return paths


def middle_of(size):
    mask = np.zeros(size, dtype=bool)
    mask[2:4, 2:5, 3:6] = True
    return mask


def test_brain_and_mask_are_written_on_the_scans_grid(files, tmp_path):
    extract(*files, tmp_path / "out" / "b.nii.gz", mask_out=tmp_path / "out" / "m.nii.gz", quiet=True)
    brain, mask, scan = (nib.load(path) for path in (tmp_path / "out/b.nii.gz", tmp_path / "out/m.nii.gz", files[0]))
    assert brain.get_data_dtype() == np.int16 and mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj), middle_of(SIZE))
    np.testing.assert_array_equal(np.asarray(brain.dataobj), np.asarray(scan.dataobj) * middle_of(SIZE))
    for image in (brain, mask):
        np.testing.assert_allclose(image.affine, AFFINE)
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_scan_of_scaled_numbers_keeps_its_values(files, tmp_path):
    scan = nib.Nifti1Image(np.linspace(0, 0.125, np.prod(SIZE)).reshape(SIZE), AFFINE)
    scan.set_data_dtype(np.int16)
    nib.save(scan, files[0])
    extract(*files, tmp_path / "b.nii.gz", quiet=True)
    stored, found = (nib.load(path).get_fdata() for path in (files[0], tmp_path / "b.nii.gz"))
    np.testing.assert_allclose(found, stored * middle_of(SIZE), atol=1e-6)


def test_the_command_extracts(files, tmp_path):
    scan, head, brain = map(str, files)
    options = ["--template", head, "--template-mask", brain, "--out", str(tmp_path / "b.nii.gz"), "--quiet"]
    for arguments, status in ((options, 0), (options, 1), ([*options, "--force"], 0)):  # the second: it is there
        assert CliRunner().invoke(app, ["extract", scan, *arguments]).exit_code == status
    assert not CliRunner().invoke(app, ["extract", "--help"]).exit_code


@pytest.mark.parametrize(
    "out, mask_out, message",
    [
        ("b.mha", None, "ends in '.mha', expected .nii, .nii.gz"),
        ("b.nii.gz", "m.txt", "ends in '.txt'"),
        ("b.nii.gz", "b.nii.gz", "expected two files"),
        ("scan.nii.gz", None, "exists, expected a new name; choose another one or replace it with --force"),
    ],
)
def test_names_that_will_not_do_are_refused(files, tmp_path, out, mask_out, message):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RegInputError, match=message):
        extract(*files, tmp_path / out, mask_out=None if mask_out is None else tmp_path / mask_out)
    assert sorted(tmp_path.iterdir()) == before


def test_a_mask_of_another_template_is_refused(files, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), AFFINE), files[2])
    with pytest.raises(RegInputError, match=r"brain\.nii\.gz has the grid .* expected that of .*head\.nii\.gz"):
        extract(*files, tmp_path / "b.nii.gz")
    assert not (tmp_path / "b.nii.gz").exists()
