"""What a registration writes, for a network that answers the true displacement of ``tests.common.scan_pair``."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.transforms import Compose, LoadImaged
from scipy.spatial.transform import Rotation

from common.errors import RegEnvError, RegInputError
from common.outputs import SaveRegistrationd
from common.transforms import StackPaird, ToNetworkGridd
from tests.common.scan_pair import SHIFT_MM, write_pair

FILES = {"displacement.nii.gz", "inverse_displacement.nii.gz", "jacobian.nii.gz", "metrics.json", "transform.h5"}
FILES |= {"warped.nii.gz", "warped_label.nii.gz"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> dict[str, str]:
    return write_pair(tmp_path_factory.mktemp("pair"))


def answered(pair: dict, ddf_mm=SHIFT_MM, initial: np.ndarray | None = None, both: bool = False) -> dict:
    """What reaches the output: the pair, and one displacement in RAS mm everywhere, with its inverse if ``both``."""
    item = LoadImaged(["fixed", "moving"], ensure_channel_first=True)(dict(pair))
    item |= {} if initial is None else {"initial": initial}
    item = Compose([ToNetworkGridd("LIA", (2.0, 2.0, 2.0)), StackPaird()])(item)
    voxels = np.linalg.solve(np.asarray(item["network_affine"])[:3, :3], ddf_mm)
    ddf = torch.tensor(voxels, dtype=torch.float32).view(3, 1, 1, 1).expand(3, *item["image"].shape[1:])
    return item | {"pred": {"ddf": ddf, "inverse": -ddf} if both else ddf}


def registered(pair: dict, out: Path, ddf_mm=SHIFT_MM, initial=None, both=False, **settings) -> Path:
    """The folder that the output made."""
    SaveRegistrationd(str(out), **{"picture": False, "report": False, **settings})(
        answered(pair, ddf_mm, initial, both)
    )
    return out if settings.get("own_folder") else out / "fixed__moving"


def turned() -> np.ndarray:
    """An initial alignment that turns and shifts."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_euler("z", 10, degrees=True).as_matrix(), (1, 2, -3)
    return matrix


def test_every_file_is_there_under_its_name(pair, tmp_path):
    folder = registered(pair, tmp_path, picture=True)
    assert {path.name for path in folder.iterdir()} == FILES | {"registration.png"}
    assert json.loads((folder / "metrics.json").read_text())["files"] == sorted(FILES | {"registration.png"})


def test_the_known_displacement_brings_the_moving_anatomy_onto_the_fixed_one(pair, tmp_path):
    folder = registered(pair, tmp_path)
    fixed, warped = nib.load(pair["fixed"]), nib.load(folder / "warped.nii.gz")
    assert np.abs(warped.affine - fixed.affine).max() < 1e-5 and warped.get_data_dtype() == np.int16
    error = np.abs(fixed.get_fdata() - warped.get_fdata())[3:-3, 3:-3, 2:-2]
    assert error.max() < 40 and error.mean() < 5  # of 1000; linear interpolation of the blobs


def test_numbers_that_are_stored_with_a_slope_keep_their_values(pair, tmp_path):
    image = nib.load(pair["moving"])
    scaled = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    scaled.header.set_slope_inter(0.001, -2)
    nib.save(scaled, tmp_path / "moving.nii.gz")
    folder = registered(pair | {"moving": str(tmp_path / "moving.nii.gz")}, tmp_path / "out")
    expected = nib.load(registered(pair, tmp_path / "plain") / "warped.nii.gz").get_fdata()
    found = nib.load(folder / "warped.nii.gz")
    assert found.get_data_dtype() == np.int16
    np.testing.assert_allclose(found.get_fdata(), expected * 0.001 - 2, atol=0.0021)


def test_outside_the_moving_image_there_is_its_background(pair, tmp_path):
    """Air in a CT, not water."""
    image = nib.load(pair["moving"])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) - np.int16(1000), image.affine), tmp_path / "moving.nii.gz")
    folder = registered(pair | {"moving": str(tmp_path / "moving.nii.gz")}, tmp_path / "out", ddf_mm=(60, 0, 0))
    warped = nib.load(folder / "warped.nii.gz").get_fdata()
    assert (warped == -1000).mean() > 0.3 and warped.max() < 0


def test_the_wrong_direction_does_not(pair, tmp_path):
    folder = registered(pair, tmp_path, ddf_mm=(-4.0, 3.0, -2.0))
    error = np.abs(nib.load(pair["fixed"]).get_fdata() - nib.load(folder / "warped.nii.gz").get_fdata())
    assert error[3:-3, 3:-3, 2:-2].max() > 200


@pytest.mark.parametrize("initial", [None, turned()], ids=["headers", "turned"])
def test_simpleitk_resamples_the_same_image_with_each_of_the_written_transforms(pair, tmp_path, initial):
    folder = registered(pair, tmp_path, initial=initial)
    expected = nib.load(folder / "warped.nii.gz").get_fdata()
    fixed, moving = (sitk.ReadImage(pair[role], sitk.sitkFloat64) for role in ("fixed", "moving"))
    field = sitk.ReadImage(str(folder / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    for transform in (sitk.DisplacementFieldTransform(field), sitk.ReadTransform(str(folder / "transform.h5"))):
        found = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)).T
        assert np.abs(found - expected)[2:-2, 2:-2, 1:-1].max() <= 1.5  # rounding to int16, of 1000


@pytest.mark.parametrize("both", [True, False], ids=["from the velocity", "fixed point"])
@pytest.mark.parametrize("initial", [None, turned()], ids=["headers", "turned"])
def test_the_inverse_field_leads_back_on_the_moving_grid(pair, tmp_path, initial, both):
    """SimpleITK carries moving points through the inverse, then through the composite: they arrive where they were."""
    folder = registered(pair, tmp_path, initial=initial, both=both)
    forward = sitk.ReadTransform(str(folder / "transform.h5"))
    image = sitk.ReadImage(str(folder / "inverse_displacement.nii.gz"), sitk.sitkVectorFloat64)
    moving = sitk.ReadImage(pair["moving"])
    assert image.GetSize() == moving.GetSize() and np.allclose(image.GetOrigin(), moving.GetOrigin(), atol=1e-4)
    back = sitk.DisplacementFieldTransform(image)
    for index in ((25, 32, 21), (20, 30, 25), (30, 35, 18)):
        point = moving.TransformIndexToPhysicalPoint(index)
        assert np.linalg.norm(np.subtract(forward.TransformPoint(back.TransformPoint(point)), point)) < 0.01
        assert np.linalg.norm(np.subtract(back.TransformPoint(point), point)) > 2
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["inverse_residual_mm"] < 0.01 and metrics["inverse_residual_over_percent"] == 0


def test_the_jacobian_is_that_of_the_field_or_of_the_whole_map(pair, tmp_path):
    grown = np.diag([1.2, 1.1, 1.0, 1.0])
    for kind, value in (("deformable", 1.0), ("total", 1.32)):
        folder = registered(pair, tmp_path / kind, initial=grown, jacobian=kind)
        np.testing.assert_allclose(nib.load(folder / "jacobian.nii.gz").get_fdata(), value, atol=1e-4)


def test_labels_are_scored_before_and_after(pair, tmp_path):
    folder = registered(pair, tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["dice_before"] < 0.8 < 0.93 < metrics["dice"] == pytest.approx(metrics["dice_per_label"]["1"])
    assert metrics["sdlogj"] == pytest.approx(0, abs=1e-5) and metrics["folded_percent"] == metrics["ndv_percent"] == 0
    label = nib.load(folder / "warped_label.nii.gz")
    assert label.get_data_dtype() == np.uint8 and set(np.unique(label.dataobj)) == {0, 1}


@pytest.mark.parametrize("way", ["nearest", "linear"])
def test_labels_that_float32_does_not_hold_stay_what_they_are(pair, tmp_path, way):
    """Atlases number their structures by database keys."""
    maps, dice = {}, {}
    for first in (1, 2**24):
        paths = {**pair, **{f"{role}_label": str(tmp_path / f"{role}{first}.nii.gz") for role in ("fixed", "moving")}}
        for role in ("fixed", "moving"):
            image = nib.load(pair[f"{role}_label"])
            halves = np.indices(image.shape)[0] > image.shape[0] // 2
            numbered = np.where(np.asarray(image.dataobj), first + halves, 0).astype(np.int32)
            nib.save(nib.Nifti1Image(numbered, image.affine), paths[f"{role}_label"])
        folder = registered(paths, tmp_path / str(first), label_interpolation=way)
        maps[first] = np.asarray(nib.load(folder / "warped_label.nii.gz").dataobj)
        dice[first] = json.loads((folder / "metrics.json").read_text())["dice_per_label"]
    assert set(np.unique(maps[1])) == {0, 1, 2}
    assert np.array_equal(maps[2**24], np.where(maps[1], maps[1] + 2**24 - 1, 0))
    assert dice[2**24] == {str(2**24): dice[1]["1"], str(2**24 + 1): dice[1]["2"]}


def test_linear_labels_are_those_of_the_largest_weight(pair, tmp_path):
    """Of two labels that is half and half of a linearly interpolated indicator, as SimpleITK has it."""
    folder = registered(pair, tmp_path, label_interpolation="linear")
    fixed, moving = (sitk.ReadImage(pair[role], sitk.sitkFloat64) for role in ("fixed", "moving_label"))
    transform = sitk.ReadTransform(str(folder / "transform.h5"))
    weight = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)).T
    found = nib.load(folder / "warped_label.nii.gz").get_fdata()
    clear = np.abs(weight - 0.5) > 1e-3
    assert np.array_equal(found[clear], (weight > 0.5)[clear]) and found.any()


def test_the_check_says_ok_of_the_true_alignment_and_not_of_its_opposite(pair, tmp_path, caplog):
    """In ``metrics.json``, in the table's row and in the line that is logged."""
    caplog.set_level("INFO", logger="common.outputs")
    saved, exact = {}, np.eye(4)
    exact[:3, 3] = SHIFT_MM
    for name, shift in (("right", (0, 0, 0)), ("wrong", tuple(-2 * x for x in SHIFT_MM))):
        save = SaveRegistrationd(str(tmp_path / name), picture=False, report=False)
        save(answered(pair, shift, exact))
        saved[name] = json.loads((tmp_path / name / "fixed__moving" / "metrics.json").read_text())
        assert save.rows[0]["verdict"] == saved[name]["verdict"]
        assert save.rows[0]["reasons"] == "; ".join(saved[name]["reasons"])
        assert saved[name]["seconds_by_step"]["check"] > 0
    assert (saved["right"]["verdict"], saved["right"]["reasons"]) == ("ok", [])
    assert saved["wrong"]["verdict"] != "ok" and any("Dice" in reason for reason in saved["wrong"]["reasons"])
    assert saved["right"]["signals"]["similarity"] > 0.9 > 0.6 > saved["wrong"]["signals"]["similarity"]
    lines = [record.getMessage() for record in caplog.records if "moving.nii.gz -> fixed.nii.gz" in record.getMessage()]
    assert "ok; results in" in lines[0] and f"{saved['wrong']['verdict']} ({saved['wrong']['reasons'][0]}" in lines[1]


def test_answers_from_other_starts_reach_the_check(pair, tmp_path):
    item = answered(pair, both=True)
    away = item["pred"]["ddf"] + torch.tensor([5.0, 0, 0]).view(3, 1, 1, 1)  # 10 mm of blobs of about 30
    item["pred"]["starts"] = away[None]
    SaveRegistrationd(str(tmp_path), picture=False, report=False)(item)
    metrics = json.loads((tmp_path / "fixed__moving" / "metrics.json").read_text())
    assert metrics["signals"]["starts_mm"] == pytest.approx(10, rel=1e-3)
    assert any("another start" in reason for reason in metrics["reasons"])


def test_an_initial_alignment_counts_as_before(pair, tmp_path):
    exact = np.eye(4)
    exact[:3, 3] = SHIFT_MM
    metrics = json.loads((registered(pair, tmp_path, (0, 0, 0), exact) / "metrics.json").read_text())
    assert metrics["dice_before"] > 0.93 and metrics["dice"] == pytest.approx(metrics["dice_before"], abs=0.01)


def test_points_go_where_the_anatomy_went(pair, tmp_path):
    lps = np.array([[-6.0, 3.0, 2.0], [8.0, -5.0, -4.0]])
    shift = np.array(SHIFT_MM) * (-1, -1, 1)
    for role, points in (("fixed", lps), ("moving", lps + shift)):
        rows = "\n".join(",".join(map(str, point)) for point in points)
        (tmp_path / f"{role}.csv").write_text(f"# space: LPS mm\nx,y,z\n{rows}\n")
    points = {f"{role}_points": str(tmp_path / f"{role}.csv") for role in ("fixed", "moving")}
    folder = registered(pair | points, tmp_path / "out")
    lines = [line for line in (folder / "points.csv").read_text().splitlines() if line[:1] in "-0123456789"]
    found = np.array([[float(v) for v in line.split(",")[:3]] for line in lines])
    np.testing.assert_allclose(found, lps + shift, atol=0.01)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["tre_mm_before"] == pytest.approx(29**0.5) and metrics["tre_mm"] < 0.01
    assert metrics["tre_mm_quantiles_before"] == pytest.approx(dict.fromkeys(("p50", "p95", "max"), 29**0.5))
    assert max(metrics["tre_mm_quantiles"].values()) < 0.01


def test_further_images_take_the_same_way(pair, tmp_path):
    also = tmp_path / "t2.nii.gz"
    image = nib.load(pair["moving"])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj, dtype=np.float32) / 2, image.affine), also)
    folder = registered(pair, tmp_path / "out", also=[str(also)])
    found = nib.load(folder / "also_t2.nii.gz")
    assert found.get_data_dtype() == np.float32
    np.testing.assert_allclose(2 * found.get_fdata(), nib.load(folder / "warped.nii.gz").get_fdata(), atol=0.51)


@pytest.mark.parametrize("failing", ["write_composite", "save_as", "scores_of"])
def test_a_failure_leaves_what_was_there(pair, tmp_path, monkeypatch, failing):
    folder = registered(pair, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(f"common.outputs.{failing}", fail)
    with pytest.raises(RegEnvError, match="No space left"):
        registered(pair, tmp_path, ddf_mm=(0, 0, 0))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["fixed__moving"]


def test_what_is_not_ours_is_not_replaced(pair, tmp_path):
    folder = registered(pair, tmp_path)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RegInputError, match=r"holds notes\.txt"):
        registered(pair, tmp_path, force=True)
    assert (folder / "notes.txt").read_text() == "mine"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "scan.nii.gz").touch()
    with pytest.raises(RegInputError, match=r"holds scan\.nii\.gz"):
        registered(pair, tmp_path / "own", own_folder=True)


def test_a_finished_pair_is_known_by_its_fingerprint(pair, tmp_path):
    item = answered(pair) | {"fingerprint": "abc"}
    SaveRegistrationd(str(tmp_path), picture=False, report=False)(item)
    save = SaveRegistrationd(str(tmp_path))
    assert save.finished(pair, "abc") and save.rows[0]["dice"] > 0.93
    with pytest.raises(RegInputError, match="other images, weights or settings"):
        save.finished(pair, "abd")
    assert not SaveRegistrationd(str(tmp_path), force=True).finished(pair, "abd")
    assert not SaveRegistrationd(str(tmp_path / "new")).finished(pair, "abc")


@pytest.mark.parametrize("name", ["jacobian", "label_interpolation"])
def test_an_unknown_choice_is_named(name):
    with pytest.raises(RegInputError, match=f"{name} is 'cubic'"):
        SaveRegistrationd("out", **{name: "cubic"})


def test_slices_have_a_transform_and_an_inverse_too(tmp_path):
    affine = np.diag([1.5, 1.2, 1.0, 1.0])
    item = {}
    for k, role in enumerate(("fixed", "moving")):
        image = np.zeros((20, 24), np.float32)
        image[8 + 2 * k : 14 + 2 * k, 9:16] = 1
        item[role] = str(tmp_path / f"{role}.nii.gz")
        nib.save(nib.Nifti1Image(image, affine), item[role])
    item = LoadImaged(["fixed", "moving"], ensure_channel_first=True)(item)
    item = Compose([ToNetworkGridd(None, None), StackPaird()])(item)
    ddf = torch.zeros(2, 20, 24)
    ddf[0] = 2
    SaveRegistrationd(str(tmp_path / "out"))(item | {"pred": ddf})
    folder = tmp_path / "out" / "fixed__moving"
    assert nib.load(folder / "displacement.nii.gz").shape == (20, 24, 1, 1, 2)
    found, fixed = (nib.load(path).get_fdata() for path in (folder / "warped.nii.gz", tmp_path / "fixed.nii.gz"))
    np.testing.assert_allclose(found, fixed, atol=1e-5)
