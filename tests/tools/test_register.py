"""`regbundles register` on phantoms of 32 voxels a side, in a few steps."""

import json
import logging
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from typer.testing import CliRunner

from common.errors import RegInputError, mendable
from common.geometry import transform_points
from common.phantom import write_phantom
from common.transform_files import read_displacement
from common.volumes import open_volume
from tests.common.dicom_series import write_series
from tools.__main__ import app
from tools.register import bundle_folder, register, similarity_of

SHORT = {"levels": [[4, 4, 5], [2, 1, 2]]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    return write_phantom(folder, subjects=2, size=(32, 32, 32), validation_pairs=1, testing_pairs=1).parent


@pytest.fixture(autouse=True)
def untouched():
    """The command is a process of its own: it may change the search path and what is logged."""
    path, root = list(sys.path), logging.getLogger()
    state = root.handlers, root.level, logging.getLogger("common").level, logging.getLogger("ignite").level
    yield
    sys.path[:] = path
    root.handlers, root.level = state[:2]
    logging.getLogger("common").setLevel(state[2])
    logging.getLogger("ignite").setLevel(state[3])


def pair_of(dataset: Path) -> dict[str, str]:
    """A named pair with labels."""
    pair = json.loads((dataset / "datalist.json").read_text())["testing"][0]
    return {key: str(dataset / path) for key, path in pair.items()}


def test_two_files_make_one_folder(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    register("svf", out, {**pair_of(dataset), "affine": "none", "picture": False, "report": False})
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["dice"] > metrics["dice_before"] + 0.02 and metrics["inverse_residual_mm"] < 0.2
    assert set(metrics["files"]) == {path.name for path in out.iterdir()}
    assert "Dice" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["mha", "nrrd"])
def test_other_formats_give_the_same_field(dataset, tmp_path, suffix):
    pair = {role: pair_of(dataset)[role] for role in ("fixed", "moving")}
    other = {role: str(tmp_path / f"{role}.{suffix}") for role in pair}
    for role, path in other.items():
        sitk.WriteImage(sitk.ReadImage(pair[role]), path)
    for name, images in (("nifti", pair), ("other", other)):
        register(
            "svf", tmp_path / name, {**images, **SHORT, "affine": "none", "picture": False, "report": False}, quiet=True
        )
    first, second = (nib.load(tmp_path / name / "displacement.nii.gz") for name in ("nifti", "other"))
    assert first.get_fdata().any()
    np.testing.assert_allclose(second.get_fdata(), first.get_fdata(), atol=1e-4)
    np.testing.assert_allclose(second.affine, first.affine, atol=1e-4)


@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_a_folder_of_dicom_gives_the_same_map(dataset, tmp_path, role):
    """The scan as a CT series whose numbers are stored with slope and intercept, beside the other one as NIfTI."""
    pair = {role: pair_of(dataset)[role] for role in ("fixed", "moving")}
    other = pair | {role: str(as_series(Path(pair[role]), tmp_path / "dicom"))}
    fields = []
    for name, images in (("nifti", pair), ("series", other)):
        ids = {**images, **SHORT, "modality": "mr", "affine": "none", "picture": False, "report": False}
        register("svf", tmp_path / name, ids, quiet=True)
        fields.append(read_displacement(tmp_path / name / "displacement.nii.gz"))
    points = np.random.default_rng(0).uniform(-40, 40, (500, 3))
    first, second = (transform_points(points, *field) - points for field in fields)
    assert np.linalg.norm(first, axis=1).mean() > 1
    assert np.linalg.norm(first - second, axis=1).max() < 0.05
    warped = nib.load(tmp_path / "series" / "warped.nii.gz")
    np.testing.assert_allclose(warped.affine, open_volume(other["fixed"]).affine, atol=1e-3)
    assert warped.get_fdata().max() == pytest.approx(nib.load(pair["moving"]).get_fdata().max(), rel=0.1)


def as_series(path: Path, folder: Path) -> Path:
    """A scan as DICOM: the same numbers in the same world."""
    image = sitk.ReadImage(str(path))
    direction = np.array(image.GetDirection()).reshape(3, 3)
    count, spacing = image.GetSize()[2], image.GetSpacing()
    positions = np.array(image.GetOrigin()) + spacing[2] * np.arange(count)[:, None] * direction[:, 2]
    stored = np.rint(sitk.GetArrayFromImage(image) + 24).astype(np.int16)
    write_series(folder, positions, rescale=(1, -24), direction=direction, stored=stored, spacing_mm=spacing)
    return folder


def test_a_data_set_makes_a_folder_a_pair_and_a_table(dataset, tmp_path, capsys):
    ids = {"dataset_dir": str(dataset), "section": "validation", **SHORT, "picture": False, "report": False}
    register("svf", tmp_path / "out", ids, quiet=True)
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len(folders) == 1 and (tmp_path / "out" / "metrics.csv").is_file()
    assert capsys.readouterr() == ("", "")
    before = (folders[0] / "metrics.json").stat().st_mtime_ns
    register("svf", tmp_path / "out", ids, quiet=True)
    assert (folders[0] / "metrics.json").stat().st_mtime_ns == before


def test_images_of_two_modalities_are_compared_by_structure(tmp_path):
    """A block of CT, air outside and tissue inside, and its like as MR has it."""
    ct, mr = np.full((12, 12, 12), -1000, np.int16), np.zeros((12, 12, 12), np.int16)
    ct[3:9, 3:9, 3:9], mr[3:9, 3:9, 3:9] = 60, 500
    for name, voxels in (("ct", ct), ("mr", mr)):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii.gz")
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in ("ct", "mr")}
    assert similarity_of({"fixed": paths["ct"], "moving": paths["mr"]}, "lncc") == "mind"
    assert similarity_of({"fixed": paths["ct"], "moving": paths["ct"]}, "mse") == "mse"
    assert similarity_of({"fixed": paths["ct"], "moving": paths["mr"], "modality": "mr"}, "lncc") == "lncc"


@pytest.mark.parametrize(
    ("bundle", "ids", "found"),
    [
        ("none", {}, "expected one of eoir, "),
        ("ncf", {"levels": []}, "ncf has no 'levels'"),
        ("svf", {"affine": "gone.mat"}, "gone.mat"),
        ("svf", {"moving_points": "gone.csv", "fixed_points": "gone.csv"}, "gone.csv"),
        ("svf", {"jacobian": "all"}, "jacobian is 'all'"),
        ("eoir", {"ckpt_path": "gone.pt"}, "configs/train.json"),
    ],
)
def test_a_bad_request_is_one_sentence_and_leaves_nothing(dataset, tmp_path, bundle, ids, found):
    with pytest.raises(Exception) as caught:
        register(bundle, tmp_path / "out", {**pair_of(dataset), **ids}, quiet=True)
    error = mendable(caught.value)
    assert isinstance(error, RegInputError)
    assert found in str(error) and "\n" not in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "o"],
        ["f.nii", "--out", "o"],
        ["f.nii", "m.nii", "--dataset-dir", "d", "--out", "o"],
        ["f.nii", "m.nii", "--extract", "brain", "--out", "o"],
    ],
)
def test_half_a_request_is_refused(words):
    result = CliRunner().invoke(app, ["register", *words])
    assert isinstance(result.exception, RegInputError)


OVERLAYS = [
    (b"{", r"overlay\.json is no config"),
    (b"[1]", r"overlay\.json is no config"),
    (b"\xff", r"overlay\.json is no config"),
    (b'{"handlers": [{"_target_": "$["}]}', r"overlay\.json makes a config that does not work"),
    (b'{"evaluator": {"_target_": "nothing.at.all"}}', r"overlay\.json makes a config that does not work"),
]


@pytest.mark.parametrize(("content", "found"), OVERLAYS)
def test_an_overlay_that_is_none_is_refused_in_one_line(dataset, tmp_path, content, found):
    (tmp_path / "overlay.json").write_bytes(content)
    with pytest.raises(RegInputError, match=found) as caught:
        register("svf", tmp_path / "out", pair_of(dataset), [str(tmp_path / "overlay.json")], "lncc", quiet=True)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_bundle_is_a_name_or_a_folder():
    folder = bundle_folder("svf")
    assert (folder / "configs" / "inference.json").is_file() and bundle_folder(str(folder)) == folder
    with pytest.raises(RegInputError, match="expected one of"):
        bundle_folder("tests")
