"""Thirty tiny abdomens in Learn2Reg's layout, by the challenge's pairs and by EOIR's split."""

import csv
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from common.datalist import read_datalist, read_header
from common.errors import RegInputError
from tests.tools.data.challenge_archive import contents, write_archive
from tests.tools.data.fetched import fetch_and_prepare
from tests.tools.data.overlays import take_a_step
from tools.__main__ import app
from tools.data import prepared as prepared_module
from tools.data.abdomen_ct import SOURCES, prepare

SIZE = (36, 32, 40)
GRID = np.diag([2.0, 2, 2, 1])
NAMES = [f"AbdomenCTCT_{k:04}_0000" for k in range(1, 31)]
ORGANS = {"0": "background"} | {str(k): f"organ {k}" for k in range(1, 14)}


def abdomen(seed: int) -> dict[str, np.ndarray]:
    """A body of fat and muscle in air with metal in it, in HU, and 13 organs."""
    x, y, z = np.indices(SIZE)
    body = np.hypot((x - 17.5) / 16, (y - 15.5) / 14) < 1
    organs = 1 + (x // 9 + 4 * (y // 8) + z // 20 + seed) % 13
    image = np.where(body, 40 + 30 * np.cos(x / 4 + seed) * np.sin(z / 5) - 120 * (organs == 1), -1000)
    image[18, 16, 20] = 3000
    return {"image": image.astype(np.int16), "label": np.where(body, organs, 0).astype(np.uint8)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """As released: thirty labelled scans, 45 pairs of every third one to validate on, hidden pairs to test on."""
    held = [name for k, name in enumerate(NAMES) if k % 3 == 0]
    pairs = [(a, b) for a, b in permutations(held, 2) if a < b]
    hidden = [("AbdomenCTCT_0031_0000", "AbdomenCTCT_0032_0000")]
    scans = {name: abdomen(k) for k, name in enumerate(NAMES)}
    folder = tmp_path_factory.mktemp("raw")
    lists = {"registration_val": pairs, "registration_test": hidden}
    return write_archive(folder, "AbdomenCTCT", scans, {"0": ORGANS}, affine=GRID, modality="CT", **lists)


@pytest.fixture(scope="module", autouse=True)
def no_sheet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)
        yield


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare(str(raw), str(out), workers=1)
    return out


def numbers(items, key):
    return [int(Path(item[key]).name[12:16]) for item in items]


def test_eoirs_split(prepared):
    assert numbers(read_datalist(str(prepared), "training"), "image") == list(range(1, 21))
    for section, members, count in (("validation", range(21, 24), 6), ("testing", range(24, 31), 42)):
        pairs = read_datalist(str(prepared), section)
        assert list(zip(numbers(pairs, "fixed"), numbers(pairs, "moving"), strict=True)) == [*permutations(members, 2)]
        assert len(pairs) == count
    header = read_header(str(prepared))
    assert len(header["labels"]) == 13 and header["intensity"] == "Hounsfield units clipped to [-500, 800]"
    np.testing.assert_allclose(header["spacing_mm"], [2 * 35 / 17, 2 * 31 / 15, 2 * 39 / 19], atol=1e-3)


def test_scans_are_halved_from_corner_to_corner(prepared):
    image, label = (nib.load(prepared / kind / f"{NAMES[4]}.nii.gz") for kind in ("images", "labels"))
    raw = abdomen(4)
    assert image.shape == label.shape == (18, 16, 20) and set(np.unique(label.dataobj)) == set(range(14))
    voxels = image.get_fdata()
    assert voxels.min() >= -500 and voxels.max() <= 800
    corners = [[0, 0, 0], [35, 31, 39]]
    np.testing.assert_allclose(image.affine @ [17, 15, 19, 1], GRID @ [*corners[1], 1], atol=1e-4)
    np.testing.assert_allclose(image.affine @ [0, 0, 0, 1], GRID @ [*corners[0], 1], atol=1e-4)
    points = np.indices(image.shape) * (np.array([35 / 17, 31 / 15, 39 / 19]).reshape(3, 1, 1, 1))
    expected = map_coordinates(np.clip(raw["image"], -500, 800).astype(float), points, order=2, mode="constant", cval=0)
    np.testing.assert_allclose(voxels[1:-1, 1:-1, 1:-1], np.clip(expected, -500, 800)[1:-1, 1:-1, 1:-1], atol=0.5)
    nearest = map_coordinates(raw["label"], points, order=0)
    assert (np.asarray(label.dataobj) == nearest)[1:-1, 1:-1, 1:-1].all()


def test_the_challenges_own_pairs(raw, tmp_path):
    prepare(str(raw), str(tmp_path), "challenge", workers=1)
    pairs = read_datalist(str(tmp_path), "validation")
    assert len(pairs) == 45 and set(numbers(pairs, "fixed") + numbers(pairs, "moving")) == set(range(1, 31, 3))
    training = numbers(read_datalist(str(tmp_path), "training"), "image")
    assert training == [k for k in range(1, 31) if k % 3 != 1]
    image = nib.load(tmp_path / "images" / f"{NAMES[0]}.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), abdomen(0)["image"])
    assert image.get_data_dtype() == np.int16 and read_header(str(tmp_path))["hidden_test_pairs"] == 1


def test_eoirs_overlay_takes_a_training_step_on_it(prepared):
    fixed = take_a_step("abdomen_ct", prepared)["fixed"]
    assert fixed.min() == 0 and 0.4 < fixed[fixed > 0].median() < 0.45  # 40 HU of [-500, 800]


def test_the_release_is_fetched_unpacked_and_prepared_by_one_call(raw, prepared, tmp_path):
    assert contents(fetch_and_prepare(SOURCES[0], raw / "AbdomenCTCT", tmp_path)) == contents(prepared)


def test_labels_and_windows_are_told(prepared):
    rows = list(csv.DictReader((prepared / "report.csv").open()))
    assert len(rows) == 30 and all(row["labels_found"] == "13" for row in rows)
    assert all(row["size"] == "36 32 40" and row["p1"] == "-1000.0" for row in rows)


def test_every_scan_that_lacks_is_named(tmp_path):
    scans = {name: abdomen(k) for k, name in enumerate(NAMES[:28])}
    scans[NAMES[2]].pop("label")
    write_archive(tmp_path / "raw", "AbdomenCTCT", scans, {"0": ORGANS}, affine=GRID)
    with pytest.raises(RegInputError, match=r"3 findings.*0003_0000.*0029_0000.*0030_0000"):
        prepare(str(tmp_path / "raw"), str(tmp_path / "out"))


def test_scans_that_are_not_in_hounsfield_units_are_refused(tmp_path):
    scans = {name: abdomen(k) for k, name in enumerate(NAMES)}
    for k in (1, 8):
        scans[NAMES[k]]["image"] = scans[NAMES[k]]["image"] + np.int16(1024)
    write_archive(tmp_path / "raw", "AbdomenCTCT", scans, {"0": ORGANS}, affine=GRID)
    with pytest.raises(RegInputError, match=r"2 findings.*0002_0000.*0009_0000.*Hounsfield"):
        prepare(str(tmp_path / "raw"), str(tmp_path / "out"), workers=1)
    assert not (tmp_path / "out").exists()


def test_the_command_names_the_protocols(raw, tmp_path):
    from typer.testing import CliRunner

    words = ["data", "prepare", "abdomen-ct", "--raw", raw, "--out", tmp_path, "--protocol", "mine"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code != 0 and "challenge, eoir" in str(result.exception)
