"""What the pairs of the benchmark are made of, on small scans of the same names."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import center_of_mass

from common.errors import RegInputError
from tools.benchmark import raw_cases
from tools.benchmark.raw_cases import CASES, find_cases, rotation, tissues_of_numbers

AFFINE = np.array([[-1.0, 0, 0, 10], [0, 1.2, 0, -7], [0, 0, 1.1, 4], [0, 0, 0, 1]])
BLOCK = (slice(4, 9), slice(3, 7), slice(6, 12))


@pytest.fixture
def data(tmp_path) -> Path:
    """A block of 100 in every scan, 44 (white matter) in every label map."""
    voxels = np.zeros((14, 12, 16), np.int16)
    voxels[BLOCK] = 100
    for folder in ("malc", "mni152", "lung_ct"):
        (tmp_path / folder).mkdir()
    for scan in ("1000", "1001", "1002"):
        nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "malc" / f"{scan}_SS.nii.gz")
        nib.save(nib.Nifti1Image((voxels > 0) * np.uint8(44), AFFINE), tmp_path / "malc" / f"{scan}_glm.nii.gz")
    for kind, values in (("t1", voxels), ("wm", voxels * 2), ("gm", 200 - voxels * 2)):
        name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
        nib.save(nib.Nifti1Image(values.astype(np.uint8), AFFINE), tmp_path / "mni152" / name)
    for scan in ("baseline", "followup", "baseline_mask", "followup_mask"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / "lung_ct" / f"{scan}.mha"))
    return tmp_path


@pytest.fixture
def work(tmp_path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def center_mm(path: Path) -> np.ndarray:
    image = nib.load(path)
    return nib.affines.apply_affine(image.affine, center_of_mass(np.asarray(image.dataobj)))


def test_scans_are_scored_by_their_own_labels(data, work):
    names = ["lung", "brains-1001"]
    lung, brains = find_cases(data, work, names).values()
    assert (lung.fixed.name, lung.moving.name) == ("baseline.mha", "followup.mha")
    assert [Path(flag).name for flag in lung.flags[1::2]] == ["baseline_mask.mha", "followup_mask.mha"]
    assert (brains.fixed.name, brains.moving.name) == ("1000_SS.nii.gz", "1001_SS.nii.gz")
    assert [Path(flag).name for flag in brains.flags[1::2]] == ["1000_glm.nii.gz", "1001_glm.nii.gz"]
    assert brains.flags[::2] == ("--fixed-label", "--moving-label")


def test_a_turned_header_turns_the_world_and_no_voxel(data, work):
    case = find_cases(data, work, ["brains-1002-turned-header"])["brains-1002-turned-header"]
    source = data / "malc" / "1002_SS.nii.gz"
    np.testing.assert_array_equal(nib.load(case.moving).dataobj, nib.load(source).dataobj)
    np.testing.assert_allclose(center_mm(case.moving), rotation() @ center_mm(source), atol=1e-4)
    np.testing.assert_allclose(center_mm(case.flags[3]), center_mm(case.moving), atol=1e-4)
    assert np.degrees(np.arccos((np.trace(rotation()) - 1) / 2)) == pytest.approx(40)


def test_turned_voxels_keep_the_block_whole_and_the_header_as_it_was(data, work):
    case = find_cases(data, work, ["brains-1002-turned-voxels"])["brains-1002-turned-voxels"]
    image, label = nib.load(case.moving), nib.load(case.flags[3])
    np.testing.assert_allclose(image.affine, AFFINE)
    original = np.asarray(nib.load(data / "malc" / "1002_SS.nii.gz").dataobj)
    assert np.asarray(image.dataobj).sum() == pytest.approx(original.sum(), rel=0.02)
    assert set(np.unique(label.dataobj)) == {0, 44}
    middle = (np.array(image.shape) - 1) / 2
    from_middle = np.array(center_of_mass(original)) - (np.array(original.shape) - 1) / 2
    for turned in (image, label):
        found = np.array(center_of_mass(np.asarray(turned.dataobj))) - middle
        np.testing.assert_allclose(found, rotation() @ from_middle, atol=0.2)


def test_thick_brains_are_means_of_planes_with_the_labels_of_the_middle_one(data, work):
    """Planes 6 to 11 of 16 are the block: slices of planes 5 to 9 and 10 to 14 hold four and two of them."""
    case = find_cases(data, work, ["brains-1001-thick-overlay"])["brains-1001-thick-overlay"]
    image, label = (nib.load(path) for path in (case.fixed, case.flags[1]))
    assert np.asarray(image.dataobj)[5, 4].tolist() == [0, 80, 40]
    assert np.asarray(label.dataobj)[5, 4].tolist() == [0, 44, 0]
    for thick in (image, label):
        np.testing.assert_allclose(thick.affine @ [0, 0, 1, 1], AFFINE @ [0, 0, 7, 1])
    assert case.moving.name == "1001_SS.nii.gz" and case.flags[4:] == ("--overlay", "thick_slices")


def test_tissues_of_the_template_are_those_with_more_than_half_of_a_voxel(data, work):
    case = find_cases(data, work, ["icbm152"])["icbm152"]
    fixed, moving = (np.asarray(nib.load(path).dataobj) for path in case.flags[1::2])
    assert (fixed[BLOCK] == 1).all() and (fixed == 1).sum() == fixed[BLOCK].size and fixed[0, 0, 0] == 2
    assert (moving[BLOCK] == 1).all() and moving[0, 0, 0] == 0
    assert nib.load(case.fixed).shape == fixed.shape


def test_numbers_become_tissues_by_their_class():
    """A cortex, a nucleus, two kinds of white matter; then fluid, a vessel, a lesion, outside."""
    assert tissues_of_numbers(np.array([101, 59, 44, 41, 51, 63, 53, 0])).tolist() == [2, 2, 1, 1, 0, 0, 0, 0]


def test_thick_slices_come_either_way_and_once_by_the_overlay(data, work, monkeypatch):
    made = raw_cases.deformed_pair((40, 40, 50), 4.0)
    monkeypatch.setattr(raw_cases, "phantom", lambda: made)
    names = ["thick-fixed", "thick-moving", "thick-moving-overlay"]
    fixed, moving, overlay = find_cases(data, work, names).values()
    zooms = [tuple(nib.load(path).header.get_zooms()) for case in (fixed, moving) for path in case[:2]]
    assert zooms == [(2, 20, 2), (4, 4, 4), (4, 4, 4), (2, 20, 2)]
    assert fixed.flags == moving.flags == () and overlay.flags == ("--overlay", "thick_slices")
    assert overlay[:2] == moving[:2]


def test_every_case_reads_only_what_is_its_own(tmp_path):
    with pytest.raises(RegInputError, match=r"baseline\.mha is missing"):
        find_cases(tmp_path, tmp_path, ["lung"])
    with pytest.raises(RegInputError, match="no case 'lungs', expected some of lung"):
        find_cases(tmp_path, tmp_path, ["lung", "lungs"])
    assert {"lung", "icbm152"} < set(CASES)
