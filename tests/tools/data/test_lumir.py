"""A tiny copy of LUMIR's archive, by the challenge's json and by EOIR's, goes the whole way."""

import json
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.datalist import read_datalist, read_header
from common.errors import RegInputError
from tests.tools.data.challenge_archive import brain, contents, write, write_archive
from tests.tools.data.fetched import fetch_and_prepare
from tests.tools.data.overlays import take_a_step
from tools.__main__ import app
from tools.data import prepared as prepared_module
from tools.data.lumir import SOURCES, prepare

SIZE = (20, 24, 22)
TRAINING = [f"LUMIRMRI_{k:04}_0000" for k in (0, 1, 2, 3364, 3365, 3366)]
VALIDATION = [f"LUMIRMRI_{k}_0000" for k in (3454, 3455, 3456)]


@pytest.fixture(autouse=True)
def no_sheet(monkeypatch):
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


def scan(k):
    return (brain(k, SIZE)[0] * 1.4).clip(0, 255).astype(np.uint8)


@pytest.fixture
def raw(tmp_path):
    """As downloaded: the archive's folder and, beside it, the json, whose paths begin with a slash."""
    folder = tmp_path / "raw"
    write_archive(folder, "LUMIR", {name: {"image": scan(k)} for k, name in enumerate(TRAINING)}, {})
    for k, name in enumerate(VALIDATION):
        write(scan(10 + k), folder / "LUMIR" / "imagesVal" / f"{name}.nii.gz")
    for k, name in enumerate(TRAINING[3:]):
        write(brain(3 + k, SIZE)[1], folder / "LUMIR" / "SanityCheckLabelsTr" / f"{name}.nii.gz")
    path = folder / "LUMIR" / "LUMIR_dataset.json"
    content = json.loads(path.read_text().replace('"./', '"/'))
    pairs = zip(VALIDATION[1:], VALIDATION, strict=False)
    images = "/imagesVal/{}.nii.gz".format
    content["validation"] = [{"fixed": images(fixed), "moving": images(moving)} for fixed, moving in pairs]
    path.unlink()
    (folder / "LUMIR_dataset.json").write_text(json.dumps(content))
    return folder


def eoirs_json(raw):
    """EOIR's description of the same archive: the labelled scans under validation, the pairs under test."""
    path = raw / "LUMIR_dataset.json"
    content = json.loads(path.read_text())
    content["test"] = content["validation"]
    content["validation"] = [
        {"image": f"/imagesTr/{name}.nii.gz", "seg": f"/SanityCheckLabelsTr/{name}.nii.gz"} for name in TRAINING[3:]
    ]
    content["training"] = content["training"][:3]
    path.write_text(json.dumps(content))


def names(folder, section, *keys):
    return [tuple(Path(item[key]).name[:18] for key in keys) for item in read_datalist(str(folder), section)]


def test_labelled_scans_validate_and_the_challenges_pairs_test(raw, tmp_path):
    prepare(str(raw), str(tmp_path / "out"), workers=1)
    assert names(tmp_path / "out", "training", "image") == [(name,) for name in TRAINING[:3]]
    assert names(tmp_path / "out", "validation", "fixed", "moving") == list(permutations(TRAINING[3:], 2))
    assert names(tmp_path / "out", "testing", "fixed", "moving") == list(zip(VALIDATION[1:], VALIDATION, strict=False))
    assert all(set(item) == {"image"} for item in read_datalist(str(tmp_path / "out"), "training"))
    assert all("fixed_label" in item for item in read_datalist(str(tmp_path / "out"), "validation"))
    assert all(set(item) == {"fixed", "moving"} for item in read_datalist(str(tmp_path / "out"), "testing"))
    header = read_header(str(tmp_path / "out"))
    assert header["name"] == "LUMIR" and header["labels"] == {} and "[0, 255]" in header["intensity"]


def test_eoirs_json_gives_the_same_data_set(raw, tmp_path):
    prepare(str(raw), str(tmp_path / "challenge"), workers=1)
    eoirs_json(raw)
    prepare(str(raw), str(tmp_path / "eoir"), workers=1)
    assert contents(tmp_path / "eoir") == contents(tmp_path / "challenge")


def test_eoirs_overlay_takes_a_training_step_on_it(raw, tmp_path):
    prepare(str(raw), str(tmp_path / "out"), workers=1)
    stored = nib.load(tmp_path / "out" / "images" / f"{TRAINING[0]}.nii.gz")
    assert stored.get_data_dtype() == np.uint8
    fixed = take_a_step("lumir", tmp_path / "out")["fixed"]
    assert any(fixed.max() == pytest.approx(scan(k).max() / 255) for k in range(3))


def test_an_archive_with_the_json_in_it_is_fetched_and_prepared_by_one_call(raw, tmp_path):
    prepare(str(raw), str(tmp_path / "by_hand"), workers=1)
    source = SOURCES[0]._replace(files=SOURCES[0].files[:1])
    assert contents(fetch_and_prepare(source, raw, tmp_path / "fetched")) == contents(tmp_path / "by_hand")


def test_labels_that_lack_are_asked_for(raw, tmp_path):
    for path in (raw / "LUMIR" / "SanityCheckLabelsTr").iterdir():
        path.unlink()
    with pytest.raises(RegInputError, match="holds labels of 0 scans of LUMIR, expected those of 3364 to 3373"):
        prepare(str(raw), str(tmp_path / "out"))


def test_the_command_prepares_it(raw, tmp_path):
    from typer.testing import CliRunner

    words = ["data", "prepare", "lumir", "--raw", raw, "--out", tmp_path / "out", "--workers", "1"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0 and result.output.strip().endswith("datalist.json")
