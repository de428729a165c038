"""A small prepared data set is spoiled in one way after another; a person hears of each, and of all at once."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import RegInputError
from tools.__main__ import app
from tools.data.check import check_datasets, leaks, summary

AFFINE = np.array([[-2.0, 0, 0, 5], [0, 0, 2, -7], [0, -2, 0, 9], [0, 0, 0, 1]])  # LIA, 2 mm
PAIR = {"fixed": "images/c.nii.gz", "moving": "images/d.nii.gz"}
LABELS = {f"{role}_label": path.replace("images", "labels") for role, path in PAIR.items()}
CONTENT = {
    "name": "small",
    "modality": "MR",
    "orientation": "LIA",
    "spacing_mm": [2, 2, 2],
    "licence": "none",
    "labels": {"1": "left", "2": "right"},
    "training": [{"image": f"images/{s}.nii.gz", "label": f"labels/{s}.nii.gz"} for s in "ab"],
    "validation": [PAIR | LABELS],
}


def write(array, path, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def save(folder, content):
    (folder / "datalist.json").write_text(json.dumps(content))


def make(folder, names="abcd", **changes):
    """A data set of scans with noise and two labelled halves."""
    labels = np.zeros((6, 7, 5), np.uint8)
    labels[1:3], labels[3:5] = 1, 2
    for seed, name in enumerate(names):
        write(np.random.default_rng(seed).random((6, 7, 5), np.float32), folder / f"images/{name}.nii.gz")
        write(labels, folder / f"labels/{name}.nii.gz")
    save(folder, CONTENT | changes)
    return folder


@pytest.fixture
def dataset(tmp_path):
    return make(tmp_path / "small")


def findings(folder):
    return check_datasets([str(folder)], quiet=True)[0].findings


def test_a_sound_data_set_has_no_finding_and_its_parts_are_counted(dataset):
    (checked,) = check_datasets([str(dataset)], quiet=True)
    assert checked.findings == [] and checked.sections == {"training": (2, 2), "validation": (1, 2)}
    assert summary(checked) == "small: training 2 scans; validation 1 pairs of 2 scans; 2 of 2 labels found"


def spoil_byte(folder):
    path = folder / "images/a.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum, which nibabel does not read
    path.write_bytes(content)


def spoil_missing(folder):
    (folder / "labels/d.nii.gz").unlink()


def spoil_orientation(folder):
    for kind in ("images", "labels"):
        image = nib.load(folder / kind / "b.nii.gz")
        write(np.asarray(image.dataobj), folder / kind / "b.nii.gz", np.diag([2.0, 2, 2, 1]))


def spoil_label_grid(folder):
    write(np.ones((6, 7, 4), np.uint8), folder / "labels/c.nii.gz")


def spoil_label_value(folder):
    for name in "abcd":
        labels = np.zeros((6, 7, 5), np.uint8)
        labels[2] = 1
        write(labels, folder / f"labels/{name}.nii.gz")


def spoil_section(folder):
    save(folder, CONTENT | {"training": [*CONTENT["training"], {"image": "images/c.nii.gz"}]})


def spoil_escape(folder):
    save(folder, CONTENT | {"training": [{"image": "../a.nii.gz"}]})


def spoil_header(folder):
    save(folder, CONTENT | {"spacing_mm": [2, 2]})


def spoil_sections(folder):
    save(folder, {key: value for key, value in CONTENT.items() if key not in ("training", "validation")})


def spoil_keypoints(folder):
    (folder / "c.csv").write_text("1,1,1\n2,2,2\n")
    (folder / "d.csv").write_text("1,1,1\n")
    save(folder, CONTENT | {"validation": [PAIR | {"fixed_keypoints": "c.csv", "moving_keypoints": "d.csv"}]})


def spoil_mask(folder):
    write(np.ones((6, 7, 4), np.uint8), folder / "mask.nii.gz")
    save(folder, CONTENT | {"validation": [PAIR | {"fixed_mask": "mask.nii.gz"}]})


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_byte, "images/a.nii.gz"),
        (spoil_missing, "fixed_label|moving_label 'labels/d.nii.gz' does not exist"),
        (spoil_orientation, r"images/b.nii.gz has the orientation RAS .* expected LIA and \[2, 2, 2\]"),
        (spoil_label_grid, r"labels/c.nii.gz has the grid \(6, 7, 4\)"),
        (spoil_label_value, "no scan shows the labels 2 of"),
        (spoil_section, "training and validation share 'images/c.nii.gz'"),
        (spoil_escape, "expected a path below"),
        (spoil_header, "spacing_mm is"),
        (spoil_sections, "it has no section"),
        (spoil_keypoints, "2 landmarks and .* 1, expected as many"),
        (spoil_mask, "mask.nii.gz has the grid"),
    ],
)
def test_each_fault_is_told(dataset, spoil, text):
    spoil(dataset)
    found = findings(dataset)
    assert any(re.search(text, sentence) for sentence in found), found


def test_a_spacing_that_is_not_the_headers_is_told(dataset):
    save(dataset, CONTENT | {"spacing_mm": [2, 2, 1]})
    assert len([text for text in findings(dataset) if "voxels of [2.0, 2.0, 2.0] mm" in text]) == 4


def test_all_faults_are_told_at_once_and_each_once(dataset):
    for spoil in (spoil_byte, spoil_missing, spoil_label_grid):
        spoil(dataset)
    found = findings(dataset)
    assert len(found) == len(set(found)) == 3


def test_values_beside_the_headers_table_are_named_without_being_a_finding(dataset):
    save(dataset, CONTENT | {"labels": {"1": "left"}})
    (checked,) = check_datasets([str(dataset)], quiet=True)
    assert checked.findings == [] and checked.labels == (1, 1, [2])
    assert summary(checked).endswith("1 of 1 labels found; beside them the values 2")


def test_the_atlas_may_be_in_two_sections(dataset):
    content = CONTENT | {"atlas": "images/c.nii.gz", "training": [*CONTENT["training"], {"image": "images/c.nii.gz"}]}
    save(dataset, content)
    checked = check_datasets([str(dataset)], quiet=True)
    assert checked[0].findings == [] and leaks(checked) == []


def test_a_folder_without_a_datalist_is_no_data_set(tmp_path):
    with pytest.raises(RegInputError, match=r"datalist.json is missing"):
        check_datasets([str(tmp_path)], quiet=True)


class TestLeaks:
    """Persons whom two data sets show."""

    @pytest.fixture
    def oasis(self, tmp_path):
        items = [{"image": f"images/OASIS_OAS1_{n}_MR1.nii.gz"} for n in ("0001", "0101")]
        names = ["OASIS_OAS1_0001_MR1", "OASIS_OAS1_0101_MR1"]
        return make(tmp_path / "oasis", names, name="oasis", labels={}, training=items, validation=[])

    @pytest.fixture
    def malc(self, tmp_path):
        pair = {"fixed": "images/1104.nii.gz", "moving": "images/1023.nii.gz"}
        return make(tmp_path / "malc", ["1104", "1023"], name="malc", labels={}, training=[], validation=[pair])

    def test_training_on_who_is_tested_is_a_leak_and_ends_with_1(self, oasis, malc):
        result = CliRunner().invoke(app, ["data", "check", str(oasis), str(malc), "--quiet"])
        assert result.exit_code == 1
        assert "LEAK: oasis training and malc validation show, or may show, 1 same persons: OAS1_0101." in result.output

    def test_each_alone_is_sound(self, oasis, malc):
        for folder in (oasis, malc):
            assert CliRunner().invoke(app, ["data", "check", str(folder), "--quiet"]).exit_code == 0

    def test_two_training_sets_with_one_person_are_told_and_pass(self, oasis, malc):
        save(
            malc,
            CONTENT | {"name": "malc", "labels": {}, "training": [{"image": "images/1023.nii.gz"}], "validation": []},
        )
        result = CliRunner().invoke(app, ["data", "check", str(oasis), str(malc), "--quiet"])
        assert result.exit_code == 0 and "OAS1_0101" in result.output and "LEAK" not in result.output


def test_the_command_names_every_finding_and_ends_with_1(dataset):
    spoil_byte(dataset)
    spoil_missing(dataset)
    result = CliRunner().invoke(app, ["data", "check", str(dataset), "--quiet"])
    assert result.exit_code == 1 and "images/a.nii.gz" in result.output and "labels/d.nii.gz" in result.output
