"""Synthetic series, written slice by slice by SimpleITK; SimpleITK's own reader is the oracle for the sound ones."""

import locale

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import RegInputError
from common.preflight import check_image
from common.volumes import open_volume, read_voxels

from .dicom_series import OBLIQUE, even, write_series


@pytest.mark.parametrize(
    "direction", [np.eye(3), OBLIQUE, OBLIQUE @ np.diag([-1, 1, -1])], ids=["axial", "oblique", "turned over"]
)
def test_a_series_in_any_file_order_is_the_volume_in_hounsfield_units(tmp_path, direction):
    values = write_series(tmp_path, direction=direction, positions=even(5, direction), order=[3, 0, 4, 1, 2])
    image = open_volume(tmp_path)
    np.testing.assert_array_equal(read_voxels(image), values.T)
    oracle = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_array_equal(read_voxels(image), sitk.GetArrayFromImage(oracle).T)
    for index in ((0, 0, 0), (6, 5, 4), (2, 3, 1)):
        ras = np.array(oracle.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        np.testing.assert_allclose((image.affine @ [*index, 1])[:3], ras, atol=1e-4)
    np.testing.assert_array_equal(check_image(tmp_path).voxels, values.T)


def test_reading_leaves_the_locale_as_it_was(tmp_path):
    before = locale.setlocale(locale.LC_ALL)
    write_series(tmp_path)
    read_voxels(open_volume(tmp_path))
    assert locale.setlocale(locale.LC_ALL) == before


def test_positions_give_the_distance_of_slices_not_the_header_s_thickness(tmp_path):
    write_series(tmp_path, positions=even(5, gap=1.25))
    np.testing.assert_allclose(np.linalg.norm(open_volume(tmp_path).affine[:3, 2]), 1.25, atol=1e-5)


def test_other_files_beside_a_series_do_not_matter(tmp_path):
    values = write_series(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "report.dcm").write_bytes(bytes(128) + b"DICM" + bytes(60))  # as structured reports: no pixels
    np.testing.assert_array_equal(read_voxels(open_volume(tmp_path)), values.T)


def test_several_series_are_named_and_one_can_be_chosen(tmp_path):
    write_series(tmp_path, uid="1.2.3.4")
    values = write_series(tmp_path, uid="1.2.3.9", positions=even(3), seed=1)
    message = r"holds 2 DICOM series, 1\.2\.3\.4 \(thorax, 5 slices\), 1\.2\.3\.9 \(thorax, 3 slices\); .*#1\.2\.3\.4'"
    with pytest.raises(RegInputError, match=message):
        open_volume(tmp_path)
    np.testing.assert_array_equal(check_image(f"{tmp_path}#1.2.3.9").voxels, values.T)
    with pytest.raises(RegInputError, match=r"expected the series 9\.9"):
        open_volume(f"{tmp_path}#9.9")


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        (np.delete(even(8), 3, axis=0), r"lacks 1 slices, the first between .* one every 2\.50 mm"),
        (np.delete(even(9), [2, 3], axis=0), "lacks 2 slices"),
        (np.delete(even(20), 18, axis=0), "lacks 1 slices"),
        (even(5) + np.outer([0, 0, 1.1, 0, 0], OBLIQUE[:, 2]), r"slices 1\.40 to 3\.60 mm apart, expected even"),
        (np.concatenate([even(5), even(5)]), "several slices at .* one time point"),
        (even(5) + np.outer(np.arange(5), OBLIQUE[:, 1]), r"slanted by 21\.8 degrees \(4\.0 mm"),
    ],
    ids=["missing", "two missing", "missing near the end", "uneven", "two time points", "tilted gantry"],
)
def test_slices_that_make_up_no_even_stack_are_refused(tmp_path, positions, text):
    write_series(tmp_path, positions=positions)
    with pytest.raises(RegInputError, match=text):
        open_volume(tmp_path)


def test_positions_rounded_as_scanners_do_are_no_gap(tmp_path):
    write_series(tmp_path, positions=np.round(even(5, gap=0.625), 2))
    np.testing.assert_allclose(np.linalg.norm(open_volume(tmp_path).affine[:3, 2]), 0.625, atol=0.005)


def test_a_scout_of_another_orientation_is_refused(tmp_path):
    write_series(tmp_path, direction=np.eye(3), positions=even(3, np.eye(3)))
    turned = np.eye(3)[:, [1, 2, 0]]
    write_series(tmp_path, direction=turned, positions=even(1, turned), order=[9])
    with pytest.raises(RegInputError, match="several orientations"):
        open_volume(tmp_path)


def test_folders_and_files_that_are_no_series_are_refused(tmp_path):
    with pytest.raises(RegInputError, match="is a folder without DICOM images"):
        check_image(tmp_path)
    write_series(tmp_path / "one")
    with pytest.raises(RegInputError, match="is one file of DICOM, expected a series; name the folder"):
        check_image(next((tmp_path / "one").iterdir()))


def test_a_slice_that_is_cut_short_is_found(tmp_path):
    write_series(tmp_path)
    path = sorted(tmp_path.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RegInputError, match=r"cannot be read|can be read"):
        check_image(tmp_path)
