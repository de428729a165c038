import csv
import json
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.transforms import Compose, LoadImaged
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from common.errors import RegInputError
from common.inference import AlignAffined, SaveRegistrationd, SummarizeRegistrations, pairs_to_register, stem
from common.transforms import StackPaird, ToNetworkGridd


def grid(angles: tuple, spacing: tuple, size: tuple, flip: bool = False) -> np.ndarray:
    """An oblique, anisotropic, possibly left-handed affine whose grid is centered on the world's origin."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 0] *= -1 if flip else 1
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return affine


def anatomy(affine: np.ndarray, size: tuple, offset=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Two smooth blobs in world space, moved by ``offset`` mm."""
    world = np.moveaxis(np.indices(size), 0, -1) @ affine[:3, :3].T + affine[:3, 3] - np.array(offset)
    return np.exp(-((world - [6, -3, 2]) ** 2).sum(-1) / 90) + 0.6 * np.exp(-((world - [-8, 5, -4]) ** 2).sum(-1) / 50)


@pytest.fixture
def pair(tmp_path) -> dict[str, str]:
    """A fixed scan on an oblique left-handed grid, and the same anatomy 4, -3, 2 mm away on another grid."""
    sizes = {"fixed": (30, 26, 14), "moving": (50, 64, 42)}  # the second covers the first, however turned
    affines = {
        "fixed": grid((20, -15, 30), (1.4, 1.6, 3.0), sizes["fixed"], flip=True),
        "moving": grid((-10, 5, 70), (1.7, 1.3, 2.0), sizes["moving"]),
    }
    paths = {}
    for role, size in sizes.items():
        image = anatomy(affines[role], size, (4, -3, 2) if role == "moving" else (0, 0, 0))
        paths[role], paths[f"{role}_label"] = (str(tmp_path / f"{role}{kind}.nii.gz") for kind in ("", "_label"))
        nib.save(nib.Nifti1Image((1000 * image).astype(np.int16), affines[role]), paths[role])
        nib.save(nib.Nifti1Image((image > 0.4).astype(np.uint8), affines[role]), paths[f"{role}_label"])
    return paths


def registered(pair: dict, out: Path, ddf_mm=(4.0, -3.0, 2.0), initial: np.ndarray | None = None) -> Path:
    """Run the inference transforms with a network that answers one displacement, in RAS mm, everywhere."""
    steps = [LoadImaged(["fixed", "moving"], ensure_channel_first=True)]
    item = Compose(steps)(dict(pair)) | ({} if initial is None else {"initial": initial})
    item = Compose([ToNetworkGridd("LIA", (2.0, 2.0, 2.0)), StackPaird()])(item)
    voxels = np.linalg.solve(np.asarray(item["network_affine"])[:3, :3], ddf_mm)
    item["pred"] = torch.tensor(voxels, dtype=torch.float32).view(3, 1, 1, 1).expand(3, *item["image"].shape[1:])
    save = SaveRegistrationd(str(out), picture=False)
    save(item)
    SummarizeRegistrations(save)(Engine(lambda *_: None))
    return out / "fixed__moving"


def test_the_known_displacement_brings_the_moving_anatomy_onto_the_fixed_one(pair, tmp_path):
    folder = registered(pair, tmp_path / "out")
    fixed, warped = nib.load(pair["fixed"]), nib.load(folder / "warped.nii.gz")
    assert np.abs(warped.affine - fixed.affine).max() < 1e-5 and warped.get_data_dtype() == np.int16
    error = np.abs(fixed.get_fdata() - warped.get_fdata())[3:-3, 3:-3, 2:-2]
    assert error.max() < 40 and error.mean() < 5  # of 1000; linear interpolation of the blobs


def test_the_wrong_direction_does_not(pair, tmp_path):
    folder = registered(pair, tmp_path / "out", ddf_mm=(-4.0, 3.0, -2.0))
    error = np.abs(nib.load(pair["fixed"]).get_fdata() - nib.load(folder / "warped.nii.gz").get_fdata())
    assert error[3:-3, 3:-3, 2:-2].max() > 200


@pytest.mark.parametrize("initial", [None, (1.0, 2.0, -3.0)])
def test_simpleitk_resamples_the_same_image_with_the_written_transforms(pair, tmp_path, initial):
    matrix = None
    if initial:
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = Rotation.from_euler("z", 10, degrees=True).as_matrix(), initial
    folder = registered(pair, tmp_path / "out", initial=matrix)
    expected = nib.load(folder / "warped.nii.gz").get_fdata()
    fixed, moving = (sitk.ReadImage(pair[role], sitk.sitkFloat64) for role in ("fixed", "moving"))
    field = sitk.ReadImage(str(folder / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    transforms = [sitk.DisplacementFieldTransform(field)]
    assert (folder / "transform.h5").exists() == bool(initial)
    if initial:
        transforms.append(sitk.ReadTransform(str(folder / "transform.h5")))
    for transform in transforms:
        found = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0)).T
        assert np.abs(found - expected)[2:-2, 2:-2, 1:-1].max() <= 1.5  # rounding to int16, of 1000


def test_labels_are_scored_before_and_after(pair, tmp_path):
    folder = registered(pair, tmp_path / "out")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["dice_before"] < 0.8 < 0.93 < metrics["dice"] == pytest.approx(metrics["dice_per_label"]["1"])
    assert metrics["sdlogj"] == pytest.approx(0, abs=1e-5) and metrics["folded_percent"] == metrics["ndv_percent"] == 0
    label = nib.load(folder / "warped_label.nii.gz")
    assert label.get_data_dtype() == np.uint8 and set(np.unique(label.dataobj)) == {0, 1}


def test_an_initial_alignment_counts_as_before(pair, tmp_path):
    exact = np.eye(4)
    exact[:3, 3] = (4, -3, 2)
    metrics = json.loads((registered(pair, tmp_path / "out", (0, 0, 0), exact) / "metrics.json").read_text())
    assert metrics["dice_before"] > 0.93 and metrics["dice"] == pytest.approx(metrics["dice_before"], abs=0.01)


def test_the_table_has_a_row_a_pair_and_the_means(pair, tmp_path):
    registered(pair, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert [row["fixed"] for row in rows] == ["fixed.nii.gz", "mean"]
    assert float(rows[0]["dice"]) == pytest.approx(float(rows[1]["dice"]))


def test_the_table_has_the_seconds_of_each_forward_pass_alone(pair, tmp_path):
    save = SaveRegistrationd(str(tmp_path), picture=False)
    summary = SummarizeRegistrations(save)

    def step(engine, batch):
        time.sleep(0.05)
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        time.sleep(0.2)
        save.rows.append({"fixed": batch, "moving": "m"})

    engine = Engine(step)
    engine.register_events(*IterationEvents)
    summary.attach(engine)
    engine.run(["a", "b"])
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["fixed"] for row in rows] == ["a", "b", "mean"]
    assert all(0.05 <= float(row["seconds"]) < 0.2 for row in rows)


def test_alignment_by_content_recovers_a_shift(tmp_path):
    size = (40, 36, 32)
    affine = grid((5, 0, 10), (2.0, 2.0, 2.0), size)
    rng = np.random.default_rng(0)
    texture = gaussian_filter(rng.random(size), 2) * (anatomy(affine, size) > 0.02)
    item = {}
    for role, offset in (("fixed", 0.0), ("moving", 12.0)):
        placed = affine.copy()
        placed[0, 3] += offset
        path = tmp_path / f"{role}.nii.gz"
        nib.save(nib.Nifti1Image(texture.astype(np.float32), placed), path)
        item[role] = str(path)
    loaded = LoadImaged(["fixed", "moving"], ensure_channel_first=True)(item)
    assert "initial" not in AlignAffined("none")(loaded)
    np.testing.assert_allclose(AlignAffined("rigid")(loaded)["initial"][:3, 3], [12, 0, 0], atol=0.5)


def test_an_unknown_alignment_is_named():
    with pytest.raises(RegInputError, match="affine is 'warp'"):
        AlignAffined("warp")


def test_named_files_win_and_are_checked(pair, tmp_path):
    assert pairs_to_register("unused", fixed=pair["fixed"], moving=pair["moving"]) == [
        {"fixed": pair["fixed"], "moving": pair["moving"]}
    ]
    with pytest.raises(RegInputError, match=r"no\.nii\.gz"):
        pairs_to_register(fixed=pair["fixed"], moving=str(tmp_path / "no.nii.gz"))
    with pytest.raises(RegInputError, match="moving is None"):
        pairs_to_register(fixed=pair["fixed"])


def test_named_masks_come_along_and_are_on_their_images_grids(pair):
    images = {role: pair[role] for role in ("fixed", "moving")}
    masks = {f"{role}_mask": pair[f"{role}_label"] for role in images}
    assert pairs_to_register(**images, **masks) == [images | masks]
    assert pairs_to_register(**images, moving_mask=masks["moving_mask"]) == [
        images | {"moving_mask": masks["moving_mask"]}
    ]
    with pytest.raises(RegInputError, match="fixed_label"):  # the file that serves as a mask here
        pairs_to_register(**images, moving_mask=masks["fixed_mask"])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha"])
def test_the_stem_is_the_name_without_suffixes(name):
    assert stem(Path("x") / name) == "a"
