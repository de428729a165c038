import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from common import phantom as module
from common.anatomy import LABELS, anatomy
from common.datalist import read_datalist, read_header
from common.errors import RegInputError
from common.phantom import default_spacing_mm, ensure_phantom, known_ddf, phantom_subject, write_phantom
from common.spatial import jacobian_determinant, warp

SIZES = [(48, 56), (32, 32, 32)]
TINY = {"subjects": 2, "size": (16, 16, 16), "validation_pairs": 1, "testing_pairs": 1}


@pytest.fixture(scope="module")
def brains():
    """Three subjects of the default size."""
    return [phantom_subject(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom") / "data", **TINY).parent


def mean_dice(a, b):
    shared = [k for k in LABELS if (a == k).any() or (b == k).any()]
    return float(np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in shared]))


def centroid_mm(phantom, value):
    voxel = np.argwhere(phantom.label[0].numpy() == value).mean(axis=0)
    return (phantom.affine @ [*voxel, 1])[:3]


@pytest.mark.parametrize("size", [(48, 56), (24, 20, 28)])
def test_label_is_the_anatomy_at_the_displaced_world_position(size):
    phantom = phantom_subject(2, size)
    moved = (np.indices(size) + phantom.ddf[0].numpy().astype(float)).reshape(len(size), -1)
    moved = np.vstack([moved, np.zeros((3 - len(size), moved.shape[1])), np.ones(moved.shape[1])])
    x, y, z = (phantom.affine @ moved)[:3].reshape(3, *size)
    expected = np.zeros(size, int)
    for _, left, right, depth in anatomy((x, y, z)):
        expected[(depth > 0) & (x < 0)] = left
        expected[(depth > 0) & (x > 0)] = right
    assert (expected == phantom.label[0].numpy()).mean() > 0.9995  # float32 on a surface


def test_every_structure_is_there():
    label = phantom_subject(0, (32, 32, 32)).label
    assert set(label.unique().tolist()) == {0, *LABELS}


def test_left_structures_lie_at_negative_x_of_ras(brains):
    for value, name in LABELS.items():
        if name.startswith(("left", "right")):
            assert (centroid_mm(brains[0], value)[0] < 0) == name.startswith("left"), name


def test_cerebellum_is_behind_and_below_the_thalamus(brains):
    offset = centroid_mm(brains[0], 19) - centroid_mm(brains[0], 7)
    assert offset[1] < -15 and offset[2] < -20


def test_axes_are_left_inferior_anterior(brains):
    assert nib.aff2axcodes(brains[0].affine) == ("L", "I", "A")


def test_head_keeps_off_the_border(brains):
    for phantom in brains:
        inner = torch.zeros_like(phantom.label)
        inner[:, 1:-1, 1:-1, 1:-1] = 1
        assert not phantom.label[inner == 0].any()


def test_tissues_have_the_contrast_of_t1(brains):
    image, label = brains[0].image, brains[0].label
    ventricle, cortex, white = (float(image[(label == a) | (label == a + 1)].median()) for a in (5, 1, 3))
    assert 1.5 * ventricle < cortex < 0.85 * white and 500 < white < 900


def test_background_is_exactly_zero(brains):
    assert float((brains[0].image == 0).float().mean()) > 0.6


def test_start_dice_leaves_something_to_register(brains):
    scores = [mean_dice(brains[i].label.numpy(), brains[j].label.numpy()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert 0.5 < np.mean(scores) < 0.65


@pytest.mark.parametrize("pair", [(0, 1), (2, 0)])
def test_known_ddf_brings_the_moving_labels_onto_the_fixed_ones(brains, pair):
    """Nearest-neighbor sampling of a 3 mm grid costs the rest: the map itself is tested below."""
    fixed, moving = (brains[i] for i in pair)
    warped = warp(moving.label[None].float(), known_ddf(fixed, moving), mode="nearest")[0]
    assert mean_dice(fixed.label.numpy(), warped.numpy()) > 0.85


@pytest.mark.parametrize("size", SIZES)
def test_known_ddf_solves_its_equation(size):
    """phi_moving(x + u) = phi_fixed(x), phi_moving sampled by scipy."""
    fixed, moving = phantom_subject(0, size), phantom_subject(1, size)
    u = known_ddf(fixed, moving)[0].numpy().astype(float)
    points = np.indices(size) + u
    there = np.stack([map_coordinates(c, points, order=1, mode="nearest") for c in moving.ddf[0].numpy().astype(float)])
    assert np.abs(u + there - fixed.ddf[0].numpy()).max() < 1e-3


def test_known_ddf_is_that_of_a_finer_grid():
    """The fields of the same two subjects at twice the resolution, in coarse voxels."""
    coarse, fine = ([phantom_subject(seed, (n, n, n)) for seed in (0, 1)] for n in (17, 33))
    ratio = default_spacing_mm((33,) * 3) / default_spacing_mm((17,) * 3)
    difference = known_ddf(*coarse) - ratio * known_ddf(*fine)[:, :, ::2, ::2, ::2]
    assert difference.norm(dim=1).max() < 0.1 and difference.norm(dim=1).mean() < 0.02


def test_known_ddf_of_a_subject_onto_itself_is_zero():
    phantom = phantom_subject(3, (32, 32, 32))
    assert known_ddf(phantom, phantom).abs().max() < 1e-3


def test_known_ddf_refuses_two_sizes():
    with pytest.raises(RegInputError, match="expected the same"):
        known_ddf(phantom_subject(0, (32, 32)), phantom_subject(0, (32, 40)))


@pytest.mark.parametrize("size", SIZES)
def test_deformation_does_not_fold(size):
    assert min(float(jacobian_determinant(phantom_subject(seed, size).ddf).min()) for seed in range(6)) > 0.2


def test_velocity_vanishes_on_the_border():
    svf = phantom_subject(0, (20, 24, 28)).svf
    for axis in (2, 3, 4):
        assert svf.select(axis, 0).abs().max() < 1e-5 and svf.select(axis, -1).abs().max() < 1e-5


def test_a_subject_is_the_same_at_every_size():
    coarse, fine = phantom_subject(5, (17, 17, 17)), phantom_subject(5, (33, 33, 33))
    coarse_mm, fine_mm = coarse.svf * default_spacing_mm((17,) * 3), fine.svf * default_spacing_mm((33,) * 3)
    torch.testing.assert_close(coarse_mm, fine_mm[:, :, ::2, ::2, ::2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(65, 65), (33, 33, 33)])
def test_velocity_has_the_asked_size(size):
    """Sines: the mean square over the cells between the nodes is exact."""
    svf_mm = phantom_subject(0, size, deformation_mm=1.0).svf * default_spacing_mm(size)
    cells = (torch.tensor(size) - 1).prod()
    assert float((svf_mm**2).sum() / cells / len(size)) == pytest.approx(1, rel=1e-3)


def test_same_seed_same_voxels_other_seed_other_voxels():
    first, again, other = (phantom_subject(seed, (32, 32)) for seed in (1, 1, 2))
    assert torch.equal(first.image, again.image) and not torch.equal(first.label, other.label)


@pytest.mark.parametrize("size", [(8, 64, 64), (64,), (32, 32, 32, 32)])
def test_impossible_size_is_refused(size):
    with pytest.raises(RegInputError, match="two or three axes of at least 16"):
        phantom_subject(0, size)


def test_a_head_that_does_not_fit_is_refused():
    with pytest.raises(RegInputError, match=r"use 3\.0 mm"):
        phantom_subject(0, (64, 64, 64), spacing_mm=1.0)


def test_written_data_keep_the_datalist_contract(written):
    sizes = {s: len(read_datalist(str(written), s)) for s in ("training", "validation", "testing")}
    header = read_header(str(written))
    assert sizes == {"training": 2, "validation": 1, "testing": 1}
    assert header["orientation"] == "LIA" and header["labels"] == LABELS


def test_written_files_are_the_subjects(written):
    phantom = phantom_subject(1, TINY["size"])
    image = nib.load(written / "images" / "phantom_001.nii.gz")
    label = nib.load(written / "labels" / "phantom_001.nii.gz")
    assert np.abs(image.get_fdata() - phantom.image[0].numpy()).max() <= 0.5
    assert np.array_equal(label.get_fdata(), phantom.label[0].numpy())
    np.testing.assert_allclose(image.affine, phantom.affine, atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), phantom.affine, atol=1e-4)


def test_two_dimensional_data_are_written_and_read(tmp_path):
    path = write_phantom(tmp_path, subjects=2, size=(32, 40), validation_pairs=0, testing_pairs=0)
    assert read_header(str(path.parent))["orientation"] == "LA"
    assert nib.load(read_datalist(str(tmp_path), "training")[0]["image"]).shape == (32, 40)


def test_same_arguments_write_the_same_bytes(written, tmp_path):
    write_phantom(tmp_path, **TINY)
    files = [p.relative_to(written) for p in written.rglob("*") if p.is_file()]
    assert len(files) == 13
    assert all((tmp_path / f).read_bytes() == (written / f).read_bytes() for f in files)


def test_ensure_writes_once_and_leaves_no_other_file(tmp_path):
    target = tmp_path / "deep" / "phantom"
    assert ensure_phantom(target, **TINY) == str(target)
    before = {p: p.stat().st_mtime_ns for p in target.rglob("*")}
    ensure_phantom(target, **TINY)
    assert {p: p.stat().st_mtime_ns for p in target.rglob("*")} == before
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("change", [{"size": (20, 16, 16)}, {"seed": 1}, {"subjects": 3}])
def test_ensure_refuses_a_phantom_made_otherwise(written, change):
    with pytest.raises(RegInputError, match="remove that folder"):
        ensure_phantom(written, **(TINY | change))


def test_ensure_keeps_a_data_set_of_the_users_own(tmp_path):
    (tmp_path / "datalist.json").write_text(json.dumps({"name": "mine"}))
    assert ensure_phantom(tmp_path, **TINY) == str(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_ensure_refuses_a_folder_of_other_files(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RegInputError, match="no datalist"):
        ensure_phantom(tmp_path, **TINY)


def test_ensure_takes_the_files_of_a_faster_process(tmp_path, monkeypatch):
    target, write = tmp_path / "phantom", module.write_phantom

    def be_overtaken(folder, *args):
        write(folder, *args)
        write(target, *args)
        (target / "mark").write_text("the other's")

    monkeypatch.setattr(module, "write_phantom", be_overtaken)
    ensure_phantom(target, **TINY)
    assert (target / "mark").is_file() and list(tmp_path.iterdir()) == [target]


def test_ensure_leaves_nothing_when_it_is_stopped(tmp_path, monkeypatch):
    def stop(folder, *args):
        Path(folder, "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_phantom", stop)
    with pytest.raises(KeyboardInterrupt):
        ensure_phantom(tmp_path / "phantom", **TINY)
    assert not list(tmp_path.iterdir())


def test_one_training_subject_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="at least 2"):
        write_phantom(tmp_path, subjects=1)
