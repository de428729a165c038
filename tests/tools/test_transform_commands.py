import numpy as np
import pytest
from typer.testing import CliRunner

from common.geometry import ddf_to_mm
from common.map_files import read_affine
from common.points import Points, read_points, write_points
from common.transform_files import write_displacement
from tests.common.random_pairs import save_volume
from tests.common.test_geometry import smooth_ddf
from tools import __main__ as command

RUN = CliRunner()


@pytest.fixture
def files(tmp_path):
    """A field that folds here and there, an affine and an image, all on one grid."""
    save_volume(np.random.default_rng(0).random((9, 9, 9)), np.eye(4), tmp_path / "image.nii.gz")
    write_displacement(tmp_path / "warp.nii.gz", ddf_to_mm(smooth_ddf((9, 9, 9), voxels=9), np.eye(4)), np.eye(4))
    np.savetxt(tmp_path / "affine.txt", np.diag([2.0, 2, 2, 1]))
    return tmp_path


def run(*words):
    return RUN.invoke(command.app, [str(word) for word in words])


def test_apply_takes_transforms_then_the_image(files):
    image = files / "image.nii.gz"
    words = ["apply", files / "affine.txt", files / "warp.nii.gz", image, "--reference", image]
    result = run(*words, "--out", files / "out.nii.gz")
    assert result.exit_code == 0 and (files / "out.nii.gz").is_file(), result.output


def test_apply_takes_points_in_place_of_an_image(files):
    write_points(files / "p.csv", Points(np.array([[1.0, 2, 3]])), "RAS")
    result = run("apply", files / "affine.txt", "--points", files / "p.csv", "--out", files / "q.csv")
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(read_points(files / "q.csv").mm, [[2, 4, 6]])


@pytest.mark.parametrize("words", [["affine.txt", "image.nii.gz"], ["image.nii.gz", "--reference", "image.nii.gz"]])
def test_apply_without_what_it_needs_says_so(files, words, monkeypatch):
    monkeypatch.chdir(files)
    result = run("apply", *words, "--out", "out.nii.gz")
    assert result.exit_code != 0 and "--reference" in str(result.exception)


def test_invert_states_the_residual_and_warns_of_folds(files):
    result = run("invert", files / "warp.nii.gz", "--reference", files / "image.nii.gz", "--out", files / "i.nii.gz")
    assert result.exit_code == 0 and "residual: largest" in result.output and "folds" in result.output, result.output


def test_jacobian_states_folds(files):
    result = run("jacobian", files / "warp.nii.gz", "--out", files / "j.nii.gz")
    assert result.exit_code == 0 and "% folded" in result.output, result.output


def test_compose_and_convert_write_what_they_are_asked_for(files):
    assert run("compose", files / "affine.txt", files / "affine.txt", "--out", files / "four.mat").exit_code == 0
    assert run("convert", files / "four.mat", files / "four.txt").exit_code == 0
    np.testing.assert_allclose(read_affine(files / "four.txt"), np.diag([4.0, 4, 4, 1]))
