import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.datalist import check_datalist, read_datalist, read_header, read_keypoints, read_trained_grid
from common.errors import RegInputError

HEADER = {"name": "tiny", "orientation": "LIA", "spacing_mm": [1, 1.5, 2], "labels": {"1": "one", "7": "seven"}}
SUBJECTS = [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}, {"image": "images/b.nii.gz"}]
PAIR = {"fixed": "images/c.nii.gz", "moving": "images/d.nii.gz", "fixed_label": "labels/c.nii.gz"}
FILES = [
    "images/a.nii.gz",
    "images/b.nii.gz",
    "images/c.nii.gz",
    "images/d.nii.gz",
    "labels/a.nii.gz",
    "labels/c.nii.gz",
]


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write(folder, **changes):
    content = HEADER | {"training": SUBJECTS, "validation": [PAIR]} | changes
    (folder / "datalist.json").write_text(json.dumps(content))
    return str(folder)


def test_without_a_grid_and_a_data_set_the_image_s_own_grid_is_kept_and_said(tmp_path, caplog):
    found = read_trained_grid(str(tmp_path / "model.pt"), None)
    assert (found["orientation"], found["spacing_mm"], found["labels"]) == (None, "auto", {})
    assert "grid.json is missing" in caplog.text


def test_a_grid_beside_weights_needs_no_data_set(tmp_path):
    grid = {"name": "malc", "orientation": "LIA", "spacing_mm": [2, 2, 2]}
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    assert read_trained_grid(str(tmp_path / "model.pt"), None) == grid | {"labels": {}}


def test_paths_are_absolute_and_below_the_folder(folder):
    items = read_datalist(write(folder), "training")
    assert items[0] == {"image": str(folder / "images/a.nii.gz"), "label": str(folder / "labels/a.nii.gz")}


def test_relative_folder_gives_absolute_paths(folder, monkeypatch):
    write(folder)
    monkeypatch.chdir(folder.parent)
    assert read_datalist(folder.name, "validation")[0]["moving"] == str(folder / "images/d.nii.gz")


def test_a_folder_of_dicom_is_an_image_and_another_folder_is_not(folder):
    dicom = folder / "images" / "series"
    dicom.mkdir()
    (dicom / "1.dcm").write_bytes(bytes(128) + b"DICM")
    assert read_datalist(write(folder, training=[{"image": "images/series"}]), "training")[0]["image"] == str(dicom)
    (dicom / "1.dcm").write_bytes(bytes(132))
    with pytest.raises(RegInputError, match="'images/series' does not exist"):
        read_datalist(write(folder, training=[{"image": "images/series"}]), "training")


def test_the_grid_beside_the_weights_is_the_networks_whatever_the_data_are_on(folder, tmp_path):
    weights = tmp_path / "models" / "model.pt"
    assert read_trained_grid(str(weights), write(folder))["spacing_mm"] == [1, 1.5, 2]
    weights.parent.mkdir()
    grid = {"name": "brains", "orientation": "RAS", "spacing_mm": [2.0, 2.0, 2.0]}
    weights.with_name("grid.json").write_text(json.dumps(grid))
    found = read_trained_grid(str(weights), write(folder))
    assert found == read_header(str(folder)) | grid and found["labels"] == {1: "one", 7: "seven"}


@pytest.mark.parametrize("text", ["", "[]", '{"name": "a", "orientation": "RAS", "spacing_mm": [2, 2]}'])
def test_a_grid_beside_the_weights_that_is_none_is_named(folder, text):
    (folder / "grid.json").write_text(text)
    with pytest.raises(RegInputError, match=r"grid\.json cannot be used"):
        read_trained_grid(str(folder / "model.pt"), write(folder))


def test_header_has_whole_numbers_as_label_values(folder):
    header = read_header(write(folder, modality="MR"))
    assert header["labels"] == {1: "one", 7: "seven"} and header["spacing_mm"] == [1.0, 1.5, 2.0]
    assert header["modality"] == "MR" and "training" not in header


def test_missing_file_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(RegInputError, match=f"regbundles data prepare <dataset> --out {tmp_path}"):
        read_datalist(str(tmp_path), "training")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_byte_order_mark_and_crlf_are_accepted(folder, encoding):
    text = json.dumps(HEADER | {"training": SUBJECTS}, indent=1).replace("\n", "\r\n")
    (folder / "datalist.json").write_bytes(text.encode(encoding))
    assert len(read_datalist(str(folder), "training")) == 2


@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"name": ', "Expecting value"),
        ('{"name": "a", "name": "b"}', "key 'name' is there twice"),
        ('{"spacing_mm": [NaN]}', "the number NaN"),
        ("[]", "JSON list"),
        ("<html>", "Expecting value"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_json_object_is_refused(tmp_path, text, reason):
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(RegInputError, match=reason):
        read_datalist(str(tmp_path), "training")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "datalist.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RegInputError, match="is not a datalist"):
        read_header(str(tmp_path))


def test_missing_section_names_those_that_are_there(folder):
    with pytest.raises(RegInputError, match=r"\['training', 'validation'\], expected 'testing'"):
        read_datalist(write(folder), "testing")


BROKEN = [
    ({"training": {}}, "training is a dict, expected a list"),
    ({"training": ["a"]}, r"training\[0\] is a str, expected an object"),
    ({"training": [{"label": "labels/a.nii.gz"}]}, r"training\[0\] has no 'image'"),
    ({"training": [{"image": 3}]}, r"training\[0\] has image 3, expected a path"),
    ({"training": [{"image": "images/a.nii.gz", "lable": "x"}]}, "unknown key 'lable'"),
    ({"training": [{"image": "../a.nii.gz"}]}, "below the datalist's folder"),
    ({"training": [{"image": "/a.nii.gz"}]}, "below the datalist's folder"),
    ({"training": [SUBJECTS[0], SUBJECTS[0]]}, "training has 'images/a.nii.gz' 2 times"),
    ({"training": [*SUBJECTS, {"image": "images/e.nii.gz"}]}, r"training\[2\] image 'images/e.nii.gz' does not exist"),
    ({"training": [{"image": "images"}]}, r"image 'images' does not exist"),
    ({"validation": [{"fixed": "images/c.nii.gz"}]}, r"validation\[0\] has no 'moving'"),
    ({"validation": [{"fixed": "images/c.nii.gz", "moving": "images/c.nii.gz"}]}, "as fixed and moving"),
    ({"validation": [{"fixed": "images/a.nii.gz", "moving": "images/c.nii.gz"}]}, "training and validation share"),
    (
        {"testing": [{"fixed": "images/d.nii.gz", "moving": "./images/b.nii.gz"}]},
        "training and testing share 'images/b",
    ),
    (
        {"testing": [{"fixed": "images/d.nii.gz", "moving": "images/e.nii.gz"}]},
        "validation and testing share 'images/d",
    ),
]


@pytest.mark.parametrize("change, finding", BROKEN, ids=[finding for _, finding in BROKEN])
def test_each_breach_of_the_contract_is_found(folder, change, finding):
    with pytest.raises(RegInputError, match=finding):
        read_datalist(write(folder, **change), "training")


def test_all_findings_come_at_once_in_one_line(folder):
    items = [{"image": "images/x.nii.gz"}, {"image": "images/y.nii.gz"}]
    with pytest.raises(RegInputError) as error:
        read_datalist(write(folder, training=items, validation=[PAIR, PAIR | {"fixed_label": "z"}]), "training")
    first = str(error.value)
    with pytest.raises(RegInputError) as error:
        read_datalist(write(folder, training=items), "training")
    assert "validation has" in first and "\n" not in first
    assert "x.nii.gz" in str(error.value) and "y.nii.gz" in str(error.value)


def test_files_of_another_section_may_be_missing(folder):
    change = {"testing": [{"fixed": "images/p.nii.gz", "moving": "images/q.nii.gz"}]}
    assert len(read_datalist(write(folder, **change), "training")) == 2


def test_the_atlas_may_be_in_every_section(folder):
    pair = {"fixed": "images/c.nii.gz", "moving": "images/a.nii.gz"}
    assert read_datalist(write(folder, validation=[pair], atlas="images/a.nii.gz"), "validation")


def test_training_may_hold_pairs(folder):
    pair = {"fixed": "images/a.nii.gz", "moving": "images/b.nii.gz"}
    assert read_datalist(write(folder, training=[pair]), "training")[0]["fixed"] == str(folder / "images/a.nii.gz")


@pytest.mark.parametrize(
    "change, finding",
    [
        ({"orientation": "LIP "}, "orientation"),
        ({"orientation": "LRA"}, "orientation"),
        ({"orientation": None}, "orientation"),
        ({"spacing_mm": [1, 1]}, "spacing_mm"),
        ({"spacing_mm": [1, 1, 0]}, "spacing_mm"),
        ({"spacing_mm": [1, 1, True]}, "spacing_mm"),
        ({"spacing_mm": 1}, "spacing_mm"),
        ({"name": 3}, "name is 3"),
        ({"labels": {"one": "1"}}, "labels"),
        ({"labels": ["one"]}, "labels"),
    ],
)
def test_wrong_header_is_refused(folder, change, finding):
    with pytest.raises(RegInputError, match=finding):
        read_header(write(folder, **change))


def test_keypoints_are_one_landmark_a_line(tmp_path):
    (tmp_path / "p.csv").write_text("1.5,2,3\r\n4,5,6\r\n")
    assert torch.equal(read_keypoints(str(tmp_path / "p.csv"), 3), torch.tensor([[1.5, 2, 3], [4, 5, 6]]))


@pytest.mark.parametrize("text", ["x,y,z\n1,2,3\n", "1,2\n", "1,2,nan\n", "", "1,2,3\n4,5\n"])
def test_other_tables_are_no_keypoints(tmp_path, text):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(RegInputError, match=r"p\.csv"):
        read_keypoints(str(tmp_path / "p.csv"), 3)


@pytest.fixture
def scans(tmp_path):
    """Two good scans with labels and landmarks, as one pair."""
    pair = {}
    for role in ("fixed", "moving"):
        voxels = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(np.int16)
        pair |= {role: f"{tmp_path}/{role}.nii", f"{role}_label": f"{tmp_path}/{role}_label.nii"}
        pair[f"{role}_keypoints"] = f"{tmp_path}/{role}.csv"
        for key in (role, f"{role}_label"):
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), pair[key])
        np.savetxt(pair[f"{role}_keypoints"], [[0, 0, 0], [4.4, 5, 6]], delimiter=",")
    return pair


def as_subject(pair):
    return {"image": pair["fixed"], "label": pair["fixed_label"], "keypoints": pair["fixed_keypoints"]}


def test_good_files_pass(scans):
    check_datalist([scans, scans])
    check_datalist([as_subject(scans)])
    check_datalist([{"image": scans["moving"]}])


@pytest.mark.parametrize("key", ["fixed", "moving", "fixed_label", "moving_label"])
def test_a_cut_file_is_found(scans, key):
    content = open(scans[key], "rb").read()
    open(scans[key], "wb").write(content[:-50])
    with pytest.raises(RegInputError, match=f"{key}.nii"):
        check_datalist([scans])


def test_a_mask_on_another_grid_is_found(scans, tmp_path):
    nib.save(nib.Nifti1Image(np.ones((5, 6, 8), np.uint8), np.eye(4)), tmp_path / "mask.nii")
    with pytest.raises(RegInputError, match=r"mask\.nii"):
        check_datalist([as_subject(scans) | {"mask": f"{tmp_path}/mask.nii"}])


@pytest.mark.parametrize("points", [[[-0.6, 0, 0], [1, 1, 1]], [[0, 0, 0], [0, 5.6, 0]]])
def test_landmarks_outside_their_image_are_found(scans, points):
    np.savetxt(scans["moving_keypoints"], points, delimiter=",")
    with pytest.raises(RegInputError, match=r"moving\.csv has 1 landmarks outside"):
        check_datalist([scans])


def test_unequal_numbers_of_landmarks_are_found(scans):
    np.savetxt(scans["moving_keypoints"], [[1, 1, 1]], delimiter=",")
    with pytest.raises(RegInputError, match=r"has 2 landmarks and .* 1, expected as many"):
        check_datalist([scans])


def test_faults_of_labels_and_landmarks_are_found_together(scans):
    np.savetxt(scans["fixed_keypoints"], [[99, 1, 1]], delimiter=",")
    nib.save(nib.Nifti1Image(np.ones((5, 6, 8), np.uint8), np.eye(4)), scans["fixed_label"])
    with pytest.raises(RegInputError) as error:
        check_datalist([as_subject(scans)])
    assert "fixed_label.nii" in str(error.value) and "fixed.csv" in str(error.value)


def test_every_unusable_file_is_named(scans):
    for key in ("fixed", "moving"):
        open(scans[key], "w").write("<html>")
    with pytest.raises(RegInputError) as error:
        check_datalist([scans])
    assert "fixed.nii" in str(error.value) and "moving.nii" in str(error.value)


def test_landmarks_that_are_no_text_are_one_finding(scans):
    """Their lines are counted all the same."""
    Path(scans["moving_keypoints"]).write_bytes(b"1,2,3\n4,5.\xff,6\n")
    with pytest.raises(RegInputError, match=r"moving\.csv is not a table of landmarks") as caught:
        check_datalist([scans])
    assert "findings" not in str(caught.value)


SOUND = ((8, 9, 10), "LIA", 2.0)


def save_scan(path, size, codes, spacing_mm):
    """Noise with these axes."""
    affine = np.zeros((4, 4))
    for axis, code in enumerate(codes):
        row = next(k for k, pair in enumerate(("RL", "AP", "SI")) if code in pair)
        affine[row, axis] = spacing_mm * (1 if code in "RAS" else -1)
    affine[3, 3] = 1
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random(size, np.float32), affine), path)


@pytest.mark.parametrize("odd", [((8, 9, 11), "LIA", 2.0), ((8, 9, 10), "RIA", 2.0), ((8, 9, 10), "LIA", 2.1)])
@pytest.mark.parametrize("section", ["training", "validation"])
def test_images_that_are_seen_voxel_by_voxel_are_laid_out_alike(tmp_path, section, odd):
    names = {"training": ("a", "b"), "validation": ("c", "d")}
    write(tmp_path, training=[{"image": f"{n}.nii"} for n in "ab"], validation=[{"fixed": "c.nii", "moving": "d.nii"}])
    for name in "abcd":
        save_scan(tmp_path / f"{name}.nii", *SOUND)
    assert read_datalist(str(tmp_path), section, check_files=True)
    save_scan(tmp_path / f"{names[section][1]}.nii", *odd)
    with pytest.raises(RegInputError, match=rf"{names[section][1]}.nii has 8 x 9.* in .IA, expected 8 x 9 x 10 voxels"):
        read_datalist(str(tmp_path), section, check_files=True)
