"""A cohort of small brains goes the whole way, from a plain folder, a table or BIDS."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.common.test_brain import phantom_head, raw_head
from tools.data import prepared as prepared_module
from tools.data import scan_job
from tools.data.folder import prepare
from tools.data.recipe import Recipe
from tools.data.split import divide

from .own_scans import GRID, POINTS, SIZE, brain, contents, write, write_points, write_subject, write_table

BRAIN = Recipe("brain")
PEOPLE = ("ann", "bob", "cyd", "dan", "eve")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    for k, name in enumerate(PEOPLE):
        write_subject(folder, name, 0.9 + 0.04 * k)
    (folder / "names.json").write_text('{"3": "left", "7": "right", "9": "missing"}')
    return folder


def go(plain, out, recipe=BRAIN, **options):
    options = {"validation": 2, "testing": 2, "label_names": str(plain / "names.json"), "workers": 1} | options
    return prepare(str(plain), str(out), recipe, **options)


@pytest.fixture(scope="module")
def prepared(plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    assert go(plain, out) == out / "datalist.json"
    return out


@pytest.fixture
def quick(monkeypatch):
    """No pictures, where a test is about something else."""
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


def test_the_datalist_keeps_its_contract(prepared):
    header = read_header(str(prepared))
    assert (header["orientation"], header["spacing_mm"], header["modality"]) == ("LAS", [6, 6, 6], "mr")
    assert header["labels"] == {3: "left", 7: "right", 9: "missing"}
    assert "stripped before" in header["brain_mask"] and "SHA-256" in header["split"]
    for section in ("training", "validation", "testing"):
        check_datalist(read_datalist(str(prepared), section))


def test_a_subject_is_in_one_section_as_the_seed_has_it(prepared):
    content = json.loads((prepared / "datalist.json").read_text())
    drawn = divide(PEOPLE, 2, 2, seed=0)
    for section in ("validation", "testing"):
        pairs = [(p["fixed"][7:10], p["moving"][7:10]) for p in content[section]]
        a, b = (name for name in PEOPLE if drawn[name] == section)
        assert pairs == [(a, b), (b, a)]
        assert all({"fixed_label", "moving_keypoints", "fixed_mask"} <= set(p) for p in content[section])
    assert [s["image"][7:10] for s in content["training"]] == [n for n in PEOPLE if drawn[n] == "training"]


def test_a_scan_that_needs_no_resampling_is_scaled_and_nothing_else(prepared):
    image, labels = brain(0.9)
    found = nib.load(prepared / "images/ann.nii.gz")
    inside = image[image != 0].astype(float)
    low, high = inside.min(), np.percentile(inside, 99.9)
    np.testing.assert_allclose(
        found.get_fdata(), np.where(image, np.clip((image - low) / (high - low), 0, 1), 0), atol=1e-6
    )
    np.testing.assert_array_equal(found.affine, GRID)
    written = nib.load(prepared / "labels/ann.nii.gz")
    assert np.array_equal(written.dataobj, labels) and written.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(nib.load(prepared / "masks/ann.nii.gz").dataobj) > 0, labels > 0)
    np.testing.assert_allclose(np.loadtxt(prepared / "keypoints/ann.csv", delimiter=","), POINTS, atol=1e-4)


def test_the_report_has_a_row_a_scan(prepared):
    rows = list(csv.DictReader((prepared / "report.csv").open()))
    assert [row["id"] for row in rows] == list(PEOPLE)
    volume = 4 / 3 * np.pi * 48 * 60 * 50 / 1000 * 0.9**3
    assert float(rows[0]["mask_ml"]) == pytest.approx(volume, rel=0.03)
    assert (rows[0]["labels_found"], rows[0]["labels_missing"], rows[0]["keypoints"]) == ("3 7", "9", "3")
    assert (
        rows[0]["raw_size"] == "24 28 26"
        and "ml, expected 500 to 2500" in rows[0]["doubts"]
        and rows[4]["doubts"] == ""
    )
    assert (prepared / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_writes_the_same_bytes(plain, prepared, tmp_path):
    before = contents(prepared)
    go(plain, tmp_path)
    assert contents(tmp_path).keys() == before.keys()
    again = {**contents(tmp_path), "datalist.json": before["datalist.json"]}  # it has the folder's name
    assert [name for name in before if again[name] != before[name]] == []
    go(plain, prepared)
    assert contents(prepared) == before


def test_what_is_finished_is_not_done_again_unless_an_option_changes(plain, tmp_path, monkeypatch, quick):
    saved, save = [], scan_job.save_nifti
    monkeypatch.setattr(scan_job, "save_nifti", lambda *args: (saved.append(args[2].name), save(*args)))
    go(plain, tmp_path)
    (tmp_path / "labels/bob.nii.gz").write_bytes(b"damaged")
    saved.clear()
    go(plain, tmp_path)
    assert saved == ["bob.nii.gz"] * 3
    saved.clear()
    go(plain, tmp_path, BRAIN._replace(window=(0.0, 900.0)))
    assert len(saved) == 15


def test_resampling_moves_image_labels_and_landmarks_together(plain, tmp_path, quick):
    go(plain, tmp_path, BRAIN._replace(orientation="LIA", spacing=(3.0, 3.0, 3.0), size=(52, 52, 56)))
    image, label = (nib.load(tmp_path / kind / "ann.nii.gz") for kind in ("images", "labels"))
    assert nib.aff2axcodes(image.affine) == ("L", "I", "A") and image.shape == label.shape == (52, 52, 56)
    points = np.loadtxt(tmp_path / "keypoints/ann.csv", delimiter=",")
    world = nib.affines.apply_affine(image.affine, points)
    np.testing.assert_allclose(world, nib.affines.apply_affine(GRID, POINTS), atol=1e-3)
    _, truth = brain(0.9)
    values = np.asarray(label.dataobj)
    voxels = np.argwhere(values > 0)
    native = np.rint(nib.affines.apply_affine(np.linalg.inv(GRID) @ image.affine, voxels)).astype(int)
    assert (truth[tuple(native.T)] == values[tuple(voxels.T)]).all()
    assert len(voxels) * 3**3 == (truth > 0).sum() * 6**3


def test_bids_gives_the_same_images_as_a_table(tmp_path, quick):
    rows = []
    for k, name in enumerate(("sub-1", "sub-2")):
        image, labels = brain(0.9 + 0.1 * k)
        path = write(image, tmp_path / f"bids/{name}/anat/{name}_T1w.nii.gz")
        label = write(labels, tmp_path / f"bids/derivatives/x/{name}/anat/{name}_dseg.nii.gz")
        rows.append({"image": path, "label": label, "section": "validation"})
    prepare(str(tmp_path / "bids"), str(tmp_path / "one"), BRAIN, validation=2, workers=1, name="x")
    prepare(str(write_table(tmp_path / "t.csv", rows)), str(tmp_path / "two"), BRAIN, workers=1, name="x")
    one, two = (json.loads((tmp_path / n / "datalist.json").read_text()) for n in ("one", "two"))
    assert one["validation"] == two["validation"] and len(one["validation"]) == 2
    assert contents(tmp_path / "one/images") == contents(tmp_path / "two/images")
    assert one["labels"] == {"3": "label 3", "7": "label 7"}


def test_other_formats_give_the_same_voxels(tmp_path, quick):
    image, _ = brain()
    for name, suffix in (("a", ".mha"), ("b", ".nrrd")):
        scan = SimpleITK.GetImageFromArray(image.transpose(2, 1, 0))
        scan.SetSpacing((6, 6, 6))
        scan.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
        scan.SetOrigin((-70, 80, -60))
        SimpleITK.WriteImage(scan, str(tmp_path / f"{name}{suffix}"))
    write(image, tmp_path / "c.nii.gz")
    prepare(str(tmp_path), str(tmp_path / "out"), BRAIN, workers=1)
    written = contents(tmp_path / "out/images")
    assert len(written) == 3 and len(set(written.values())) == 1


def test_a_head_is_refused_taken_as_asked_or_masked(tmp_path, quick):
    head, labels = brain(head=True)
    rows = [{"image": write(head, tmp_path / f"{name}.nii.gz")} for name in "ab"]
    table = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(RegInputError, match=r"2 scans seem to show more than a brain.*--whole-head") as error:
        prepare(str(table), str(tmp_path / "out"), BRAIN, workers=1)
    assert "a.nii.gz" in str(error.value) and not (tmp_path / "out").exists()

    prepare(str(table), str(tmp_path / "whole"), BRAIN._replace(whole_head=True), workers=1)
    assert read_header(str(tmp_path / "whole"))["brain_mask"].startswith("none: whole heads")
    assert np.asarray(nib.load(tmp_path / "whole/images/a.nii.gz").dataobj)[labels == 0].max() == 1

    mask = write((labels > 0).astype(np.uint8), tmp_path / "m.nii.gz")
    table = write_table(tmp_path / "t.csv", [row | {"mask": mask} for row in rows])
    prepare(str(table), str(tmp_path / "masked"), BRAIN, workers=1)
    assert np.asarray(nib.load(tmp_path / "masked/images/a.nii.gz").dataobj)[labels == 0].max() == 0
    assert "given" in read_header(str(tmp_path / "masked"))["brain_mask"]


def test_every_finding_is_told_at_once(tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        write_subject(tmp_path, name)
    (tmp_path / "a.nii.gz").write_bytes(b"")
    write(brain()[1], tmp_path / "b_seg.nii.gz", np.eye(4))
    write_points(tmp_path / "c_landmarks.csv", POINTS[:2])
    write_points(tmp_path / "d_landmarks.csv", POINTS + 100)
    (tmp_path / "e_seg.nii.gz").unlink()
    with pytest.raises(RegInputError) as error:
        prepare(str(tmp_path), str(tmp_path / "out"), BRAIN._replace(align="rigid", modality="pet"), workers=1)
    for words in (
        "modality is 'pet'",
        "1 of 5 in training have no label (e)",
        "align is 'rigid' without a template",
        "a.nii.gz is empty",
        "b_seg.nii.gz has the grid",
        "d_landmarks.csv has 3 of 3 landmarks outside",
        "c has 2 landmarks and",
        "7 findings, expected none",
    ):
        assert words in str(error.value), words
    assert not (tmp_path / "out").exists()


def test_scans_on_other_grids_are_told_with_what_would_help(tmp_path, quick):
    image, _ = brain()
    write(image, tmp_path / "a.nii.gz")
    write(image, tmp_path / "b.nii.gz", GRID @ np.diag([0.9, 0.9, 1, 1]))
    with pytest.raises(
        RegInputError, match=r"2 kinds of grids \(LAS 6 x 6 x 6 mm: a; LAS 5.4 x 5.4 x 6 mm: b\).*--spacing"
    ):
        prepare(str(tmp_path), str(tmp_path / "out"), BRAIN, workers=1)
    with pytest.raises(RegInputError, match=r"a, b cover different fields of view .*--template SCAN"):
        prepare(str(tmp_path), str(tmp_path / "out"), BRAIN._replace(spacing=(6.0, 6.0, 6.0)), workers=1)
    assert not (tmp_path / "out").exists()


def test_all_scans_come_onto_a_template_by_content(tmp_path, quick):
    """The second is the first, moved by its header: alignment finds the way back."""
    image, labels = brain()
    moved = GRID.copy()
    moved[:3, 3] += [14, -9, 7]
    for name, grid in (("a", GRID), ("b", moved)):
        write(image, tmp_path / f"{name}.nii.gz", grid)
        write(labels, tmp_path / f"{name}_seg.nii.gz", grid)
        write_points(tmp_path / f"{name}_landmarks.csv", POINTS, grid)
    recipe = BRAIN._replace(template=tmp_path / "a.nii.gz", align="rigid")
    prepare(str(tmp_path), str(tmp_path / "out"), recipe, workers=1)
    one, two = (np.asarray(nib.load(tmp_path / f"out/labels/{n}.nii.gz").dataobj) for n in "ab")
    assert one.shape == two.shape == SIZE and np.mean(one[labels > 0] == two[labels > 0]) > 0.97
    points = np.loadtxt(tmp_path / "out/keypoints/b.csv", delimiter=",")
    np.testing.assert_allclose(points, POINTS, atol=0.15)  # voxels
    shift = np.loadtxt(tmp_path / "out/affines/b.txt")
    center = nib.affines.apply_affine(GRID, POINTS.mean(axis=0))
    np.testing.assert_allclose(nib.affines.apply_affine(shift, center), center + np.array([14, -9, 7]), atol=1.0)


def test_the_brain_of_a_raw_head_is_found_by_a_template(tmp_path, quick, monkeypatch):
    """The mask against the truth: Dice 0.95 at least, on a head that the template's own was deformed into."""
    monkeypatch.setattr(scan_job, "WORKING_MM", 4.0)
    head, affine, inside = phantom_head()
    grid = {"spacing": (4.4, 4.0, 5.0), "size": (48, 58, 42), "turn_deg": 10, "largest_mm": 8.0}
    scan, scan_affine, truth = raw_head(head, affine, inside, **grid)
    write(scan, tmp_path / "scans/a.nii.gz", scan_affine)
    write(np.where(truth, scan, 0), tmp_path / "scans/b.nii.gz", scan_affine)
    template = write(head, tmp_path / "head.nii.gz", affine)
    mask = write(inside.astype(np.uint8), tmp_path / "mask.nii.gz", affine)
    out = tmp_path / "out"
    prepare(str(tmp_path / "scans"), str(out), BRAIN._replace(template_head=template, template_mask=mask), workers=1)
    found, before = (np.asarray(nib.load(out / f"masks/{n}.nii.gz").dataobj) > 0 for n in "ab")
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) >= 0.95
    assert np.asarray(nib.load(out / "images/a.nii.gz").dataobj)[~found].max() == 0
    rows = list(csv.DictReader((out / "report.csv").open()))
    assert [row["mask_from"] for row in rows] == ["extracted", "stripped before"]
    assert 2 * (before & truth).sum() / (before.sum() + truth.sum()) > 0.99


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (("training", "training", "testing"), "testing has the one scan"),
        (("training", "testing", ""), "has no section"),
        (("training", "training", "training"), "subject x is in"),
    ],
)
def test_sections_of_a_table_are_checked(plain, tmp_path, sections, words):
    rows = [{"image": plain / f"{n}.nii.gz", "section": s} for n, s in zip(PEOPLE, sections, strict=False)]
    if words.startswith("subject"):
        rows = [row | {"subject": "x"} for row in rows]
        rows[0]["section"] = "testing"
    with pytest.raises(RegInputError, match=words):
        prepare(str(write_table(tmp_path / "t.csv", rows)), str(tmp_path / "out"), BRAIN, workers=1)


def test_numbers_beside_sections_are_refused(plain, tmp_path):
    rows = [{"image": plain / f"{name}.nii.gz", "section": "training"} for name in PEOPLE]
    with pytest.raises(RegInputError, match="expected one of the two ways"):
        prepare(str(write_table(tmp_path / "t.csv", rows)), str(tmp_path / "out"), BRAIN, testing=2)


def test_the_first_scan_may_be_the_fixed_one_of_all(plain, tmp_path, quick):
    go(plain, tmp_path, validation=0, testing=4, pairing="first")
    pairs = json.loads((tmp_path / "datalist.json").read_text())["testing"]
    assert len(pairs) == 3 and len({pair["fixed"] for pair in pairs}) == 1
