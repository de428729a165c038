import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from common.errors import RegInputError
from common.geometry import voxel_offset
from common.map_files import read_affine, read_transform, write_affine
from common.spatial import warp
from tests.common.random_pairs import random_pair, resampled_by_simpleitk, save_pair, save_volume
from tools.convert import convert

MATRIX = np.array([[1.1, 0.2, 0, 4], [-0.1, 0.9, 0.1, -5], [0, 0.05, 1.2, 6], [0, 0, 0, 1]])


@pytest.fixture(params=[0, 4], ids=["3-D", "2-D"])
def pair(request):
    return random_pair(request.param)


@pytest.fixture
def files(pair, tmp_path):
    save_pair(pair, tmp_path)
    return tmp_path


def grids(files):
    return {"reference": files / "fixed.nii.gz", "moving": files / "moving.nii.gz"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("field.nii.gz", "itk"),
        ("ddf.npz", "ddf"),
        ("ddf.nii.gz", "ddf"),
        ("disp.npz", "learn2reg"),
        ("disp.nii.gz", "learn2reg"),
    ],
)
def test_a_field_goes_to_a_format_and_back_by_its_content(pair, files, name, kind):
    convert(files / "transform.h5", files / name, out_format=kind, **grids(files))
    convert(files / name, files / "again.nii.gz", **grids(files))
    again = read_transform(files / "again.nii.gz").on_grid(pair.size, pair.affine)
    torch.testing.assert_close(again, pair.total_mm.float(), atol=1e-3, rtol=0)


def test_learn2regs_voxels_index_the_moving_image(pair, files):
    """Added to the fixed indices they sample the moving array as SimpleITK's resampling does."""
    convert(files / "transform.h5", files / "disp.npz", out_format="learn2reg", **grids(files))
    values = np.load(files / "disp.npz")["arr_0"]
    assert values.shape == (*pair.size, len(pair.size)) and values.dtype == np.float32
    ours = warp(pair.moving, torch.from_numpy(values).movedim(-1, 0)[None].double(), padding_mode="zeros")[0, 0].numpy()
    theirs, inside = resampled_by_simpleitk(pair, sitk.ReadTransform(str(files / "transform.h5")))
    assert inside.mean() > 0.1 and np.abs(ours - theirs)[inside].max() <= 1e-4


def test_our_voxels_have_their_components_first(pair, files):
    convert(files / "transform.h5", files / "ddf.npz", reference=files / "fixed.nii.gz")
    values = torch.from_numpy(np.load(files / "ddf.npz")["ddf"])[None]
    expected = voxel_offset(pair.total_mm, pair.affine, pair.affine).float()
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)


def test_voxels_without_a_grid_are_refused(pair, files):
    convert(files / "transform.h5", files / "ddf.npz")
    with pytest.raises(RegInputError, match="--reference"):
        convert(files / "ddf.npz", files / "field.nii.gz")


def test_voxels_of_another_grid_are_refused(tmp_path):
    np.savez(tmp_path / "ddf.npz", ddf=np.zeros((3, 4, 4, 4), np.float32))
    save_volume(np.zeros((4, 4, 5)), np.eye(4), tmp_path / "fixed.nii.gz")
    with pytest.raises(RegInputError, match=r"expected finite voxels \(3, 4, 4, 5\)"):
        convert(tmp_path / "ddf.npz", tmp_path / "field.nii.gz", reference=tmp_path / "fixed.nii.gz")
    assert not (tmp_path / "field.nii.gz").exists()


@pytest.mark.parametrize("name", ["a.txt", "a.tfm", "a.h5", "a.mat"])
def test_an_affine_goes_to_text_and_to_itk(tmp_path, name):
    np.savetxt(tmp_path / "greedy.mat", MATRIX)
    convert(tmp_path / "greedy.mat", tmp_path / name)
    np.testing.assert_allclose(read_affine(tmp_path / name), MATRIX, atol=1e-9)
    if name == "a.txt":
        np.testing.assert_allclose(np.loadtxt(tmp_path / name), MATRIX)
    else:
        point = sitk.ReadTransform(str(tmp_path / name)).TransformPoint((-1.0, -2.0, 3.0))
        np.testing.assert_allclose(np.array(point) * [-1, -1, 1], (MATRIX @ [1, 2, 3, 1])[:3], atol=1e-9)


def test_a_deformation_is_no_matrix(pair, files):
    with pytest.raises(RegInputError, match="would hold an affine alone"):
        convert(files / "transform.h5", files / "a.txt")


def neuro_pair(tmp_path):
    """Two images whose grids FSL sees differently: one left-handed, one right-handed."""
    pytest.importorskip("nitransforms", reason="nitransforms is not installed")
    fixed, moving = np.diag([-1.2, 1.0, 1.5, 1]), np.diag([0.9, 1.1, 1.3, 1])
    fixed[:3, 3], moving[:3, 3] = (10, -5, 3), (-7, 2, 9)
    save_volume(np.zeros((8, 9, 10)), fixed, tmp_path / "fixed.nii.gz")
    save_volume(np.zeros((11, 7, 6)), moving, tmp_path / "moving.nii.gz")
    write_affine(tmp_path / "a.mat", MATRIX)
    return fixed, moving


def test_flirts_matrix_takes_moving_voxels_in_its_mm_to_fixed_ones(tmp_path):
    """FLIRT's millimeters, by its documentation: voxel size times index, the first axis flipped if right-handed."""
    fixed, moving = neuro_pair(tmp_path)
    convert(tmp_path / "a.mat", tmp_path / "flirt.mat", out_format="fsl", **grids(tmp_path))
    flirt = np.loadtxt(tmp_path / "flirt.mat")
    index = np.array([2.0, 3, 4, 1])  # of the fixed image; left-handed, so no flip
    there = np.linalg.solve(moving, MATRIX @ fixed @ index)[:3]
    in_mm = np.append((np.array([10, 0, 0]) + [-1, 1, 1] * there) * [0.9, 1.1, 1.3], 1)  # 11 voxels, flipped
    np.testing.assert_allclose((flirt @ in_mm)[:3], index[:3] * [1.2, 1, 1.5], atol=1e-5)
    convert(tmp_path / "flirt.mat", tmp_path / "again.tfm", source_format="fsl", **grids(tmp_path))
    np.testing.assert_allclose(read_affine(tmp_path / "again.tfm"), MATRIX, atol=1e-5)


def test_an_lta_maps_its_source_the_moving_image_to_the_fixed_one(tmp_path):
    neuro_pair(tmp_path)
    convert(tmp_path / "a.mat", tmp_path / "a.lta", **grids(tmp_path))
    text = (tmp_path / "a.lta").read_text()
    source, target = text.split("src volume info")[1].split("dst volume info")
    assert "volume = 11 7 6" in source and "volume = 8 9 10" in target
    rows = text.split("1 4 4\n")[1].splitlines()[:4]
    np.testing.assert_allclose(np.array([row.split() for row in rows], float) @ MATRIX, np.eye(4), atol=1e-9)
    convert(tmp_path / "a.lta", tmp_path / "again.tfm")
    np.testing.assert_allclose(read_affine(tmp_path / "again.tfm"), MATRIX, atol=1e-5)


def test_fsl_needs_both_images(tmp_path):
    neuro_pair(tmp_path)
    with pytest.raises(RegInputError, match="--reference and --moving"):
        convert(tmp_path / "a.mat", tmp_path / "flirt.mat", out_format="fsl", reference=tmp_path / "fixed.nii.gz")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="the format is 'slicer'"):
        convert(tmp_path / "a.mat", tmp_path / "b.mat", out_format="slicer")


def test_a_file_that_exists_stays_unless_it_is_forced(tmp_path):
    np.savetxt(tmp_path / "a.txt", MATRIX)
    (tmp_path / "b.tfm").write_text("precious")
    with pytest.raises(RegInputError, match="--force"):
        convert(tmp_path / "a.txt", tmp_path / "b.tfm")
    assert (tmp_path / "b.tfm").read_text() == "precious"
    convert(tmp_path / "a.txt", tmp_path / "b.tfm", force=True)


def test_a_field_as_an_array_has_no_position(pair, files):
    """Its file states none: a viewer shall not lay components over the image."""
    convert(files / "transform.h5", files / "ddf.nii.gz", out_format="ddf")
    image = nib.load(files / "ddf.nii.gz")
    assert image.shape[: 1 + len(pair.size)] == (len(pair.size), *pair.size)
    np.testing.assert_array_equal(image.affine, np.eye(4))
