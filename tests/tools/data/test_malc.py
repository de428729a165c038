"""A tiny copy of both raw layouts, made from a phantom brain with all 134 labels, goes the whole way."""

import csv
import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from common.affine import AffineResult
from common.datalist import read_datalist, read_header
from common.errors import RegInputError
from common.geometry import voxels_to_mm
from tools.data import align, brain_masks, malc
from tools.data import prepared as prepared_module
from tools.data.malc import prepare
from tools.data.malc_layout import LABELS, SPLIT, SPLITS, find_split

SIZE = (30, 38, 33)  # voxels of 4 mm
RAW = np.array([[-4.0, 0, 0, 17], [0, 4, 0, -260], [0, 0, 4, -255], [0, 0, 0, 1]])  # LAS, an origin that means nothing
RADII_MM = np.array([48.0, 60, 50])
SPLIT_OF_THREE = {"training": ["1000"], "validation": ["1013", "1015"], "testing": []}
SPLIT_WITH_TEST = {"training": ["1000"], "validation": ["1013"], "testing": ["1003", "1004", "1005"]}


def phantom(scale=1.0, shift_mm=(0, 0, 0), head=False):
    """Image and labels of a brain: labelled cells inside an ellipsoid, perhaps with a skull around it."""
    points = (np.indices(SIZE) - (np.array(SIZE).reshape(3, 1, 1, 1) - 1) / 2) * 4
    points = (points - np.reshape(shift_mm, (3, 1, 1, 1))) / scale
    distance = np.sqrt(((points / RADII_MM.reshape(3, 1, 1, 1)) ** 2).sum(0))
    cells = np.floor((points / RADII_MM.reshape(3, 1, 1, 1) / 0.62 + 1) * 3).astype(int).clip(0, 5)  # 6 x 6 x 6
    labels = np.array(LABELS)[(cells[0] * 36 + cells[1] * 6 + cells[2]) % len(LABELS)]
    brain = distance < 1
    wave = 500 + 200 * np.cos(points[0] / 9) * np.cos(points[1] / 13 + 1) + 150 * np.sin(points[2] / 11)
    image = np.where(brain, wave, 0)
    if head:
        image = image + np.where((distance > 1.1) & (distance < 1.5), 900, 40)
    return image.astype(np.int16), np.where(brain, labels, 0).astype(np.int16)


def write(array, path, affine=RAW):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def write_table(folder):
    rows = [["Label Number", "Label Name", "Class"], ["1", "Unlabeled", "None"], ["74", "Vitamin E Tablet", "None"]]
    rows += [[str(value), f"region  {value}", "GM"] for value in LABELS]
    with open(folder / "label_information.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def stripped(tmp_path_factory):
    """``<id>_SS.nii.gz`` and ``<id>_glm.nii.gz`` of three subjects."""
    raw = tmp_path_factory.mktemp("stripped")
    for name, scale, shift in (("1000", 1, (0, 0, 0)), ("1013", 0.9, (6, -3, 3)), ("1015", 0.95, (-3, 6, 0))):
        image, labels = phantom(scale, shift)
        write(image, raw / f"{name}_SS.nii.gz")
        write(labels, raw / f"{name}_glm.nii.gz")
    write_table(raw)
    return raw


@pytest.fixture(scope="module")
def prepared(stripped, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    prepare(str(stripped), str(out), spacing=2.0, workers=1, split=SPLIT_OF_THREE)
    return out


@pytest.fixture
def official(tmp_path):
    """``{training,testing}-{images,labels}`` with whole heads of five subjects."""
    for name in ("1000", "1003", "1004", "1005", "1013"):
        part = "testing" if name in ("1003", "1004", "1005") else "training"
        image, labels = phantom(head=True)
        write(image, tmp_path / "raw" / f"{part}-images" / f"{name}_3.nii.gz")
        write(labels, tmp_path / "raw" / f"{part}-labels" / f"{name}_3_glm.nii.gz")
    write_table(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def copy(stripped, tmp_path):
    """A raw folder that a test may spoil."""
    return shutil.copytree(stripped, tmp_path / "copy")


@pytest.fixture
def quick(monkeypatch):
    """No alignment, no pictures, and 4 mm allowed, where a test is about something else: these take the time."""
    result = AffineResult(np.eye(4), -0.5, 1, overlap=1.0, lead=2.0)
    monkeypatch.setattr(align, "register_affine", lambda *images, **options: result)
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)
    monkeypatch.setattr(malc, "SPACINGS", (1.0, 2.0, 4.0))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_134_labels_are_36_inside_and_98_of_the_cortex():
    assert len(set(LABELS)) == len(LABELS) == 134
    assert sum(value < 100 for value in LABELS) == 36
    assert not {42, 43, 63, 64} & set(LABELS)


def test_the_split_is_15_and_20_subjects_without_overlap():
    names = [name for part in SPLIT.values() for name in part]
    assert len(set(names)) == len(names) == 35
    assert [len(SPLIT[part]) for part in ("training", "validation", "testing")] == [12, 3, 20]


def test_the_official_split_trains_on_15_and_tests_on_20():
    names = [name for part in SPLITS["official"].values() for name in part]
    assert list(SPLITS["official"]) == ["training", "testing"] and len(set(names)) == len(names) == 35
    assert SPLITS["official"]["training"] == tuple(sorted((*SPLIT["training"], *SPLIT["validation"])))
    assert SPLITS["official"]["testing"] == SPLIT["testing"]


def test_one_fixed_scan_has_the_other_34_as_moving():
    content = malc.sections({name for part in SPLIT.values() for name in part}, find_split("one-fixed"))
    names = [(pair["fixed"][7:11], pair["moving"][7:11]) for pair in content["testing"]]
    assert list(content) == ["testing"] and len(set(names)) == 34
    assert {fixed for fixed, _ in names} == {"1000"} and "1000" not in {moving for _, moving in names}


@pytest.mark.parametrize(("name", "count"), [("collection", 18), ("official", 18), ("one-fixed", 34)])
def test_no_pair_is_of_one_persons_two_scans(name, count):
    """1003 and 1023 are; the challenge's other 18 scans for testing make a pair with 1003 each."""
    content = malc.sections({name for part in SPLIT.values() for name in part}, find_split(name))
    names = {(pair["fixed"][7:11], pair["moving"][7:11]) for pair in content["testing"]}
    assert len(names) == count and ("1003", "1023") not in names


def test_an_unknown_split_is_refused():
    with pytest.raises(RegInputError, match="split is 'oficial', expected one of collection, official, one-fixed"):
        find_split("oficial")


def test_images_are_lia_80_96_112_at_2_mm_in_0_to_1(prepared):
    for path in (prepared / "images").iterdir():
        image = nib.load(path)
        voxels = image.get_fdata()
        assert image.shape == (80, 96, 112)
        assert nib.aff2axcodes(image.affine) == ("L", "I", "A")
        np.testing.assert_allclose(image.header.get_zooms(), 2)
        assert voxels.min() == 0
        assert 0.95 < voxels.max() <= 1


def test_the_templates_brain_is_in_the_middle_of_the_field_of_view(prepared):
    voxels = np.argwhere(np.asarray(nib.load(prepared / "labels/1000.nii.gz").dataobj))
    middle = (voxels.min(axis=0) + voxels.max(axis=0)) / 2
    np.testing.assert_allclose(middle, (np.array([80, 96, 112]) - 1) / 2, atol=1)


def test_scans_are_aligned_by_content_though_their_sizes_and_places_differ(prepared, stripped):
    def overlap(first, second):
        return 2 * (first & second).sum() / (first.sum() + second.sum())

    def brains(folder, pattern):
        return [np.asarray(nib.load(folder / pattern.format(n)).dataobj) > 0 for n in ("1000", "1013", "1015")]

    before, after = brains(stripped, "{}_glm.nii.gz"), brains(prepared, "labels/{}.nii.gz")
    for k in (1, 2):
        assert overlap(before[0], before[k]) < 0.91
        assert overlap(after[0], after[k]) > 0.94


def test_the_saved_affine_leads_back_to_the_raw_scan(prepared, stripped):
    """The label at a voxel of the prepared scan is the raw label at the point that the matrix names."""
    image, raw = nib.load(prepared / "labels/1013.nii.gz"), nib.load(stripped / "1013_glm.nii.gz")
    matrix = np.loadtxt(prepared / "affines/1013.txt")
    labels = np.asarray(image.dataobj)
    voxels = np.argwhere(labels > 0)[::997]
    native = voxels_to_mm(voxels_to_mm(voxels, image.affine), np.linalg.inv(raw.affine) @ matrix)
    found = np.asarray(raw.dataobj)[tuple(np.round(native).astype(int).T)]
    assert (found == labels[tuple(voxels.T)]).all()


def test_labels_are_whole_numbers_and_none_is_lost(prepared):
    labels = nib.load(prepared / "labels/1015.nii.gz")
    assert labels.get_data_dtype() == np.uint8
    assert set(np.unique(np.asarray(labels.dataobj))) == {0, *LABELS}


def test_the_datalist_keeps_its_contract(prepared):
    header = read_header(str(prepared))
    assert (header["name"], header["orientation"], header["spacing_mm"]) == ("malc", "LIA", [2, 2, 2])
    assert len(header["labels"]) == 134
    assert header["labels"][4] == "region 4"
    assert "CC BY-NC" in header["licence"]
    assert [sorted(item) for item in read_datalist(str(prepared), "training")] == [["image", "label"]]
    pairs = read_datalist(str(prepared), "validation")
    assert [(p["fixed"][-11:-7], p["moving"][-11:-7]) for p in pairs] == [("1013", "1015"), ("1015", "1013")]


def test_the_contact_sheet_is_a_picture(prepared):
    assert (prepared / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_a_second_run_from_nothing_writes_the_same_bytes(prepared, stripped, tmp_path):
    prepare(str(stripped), str(tmp_path), spacing=2.0, workers=1, split=SPLIT_OF_THREE)
    first, second = contents(prepared), contents(tmp_path)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(prepared, stripped, tmp_path, monkeypatch):
    """Stopped while the second subject's labels are written; the first is not done again."""
    save, done = align.save_nifti, []

    def stop(voxels, affine, path):
        if path.name == "1013.nii.gz" and path.parent.name == "labels":
            raise KeyboardInterrupt
        save(voxels, affine, path)

    monkeypatch.setattr(align, "save_nifti", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(stripped), str(tmp_path), spacing=2.0, workers=1, split=SPLIT_OF_THREE)
    assert not (tmp_path / "datalist.json").exists()
    monkeypatch.setattr(align, "save_nifti", lambda v, a, path: (done.append(path.name), save(v, a, path)))
    prepare(str(stripped), str(tmp_path), spacing=2.0, workers=1, split=SPLIT_OF_THREE)
    assert "1000.nii.gz" not in done
    assert contents(tmp_path) == contents(prepared)


@pytest.mark.usefixtures("quick")
class TestResume:
    """What is done again, and what is not."""

    @pytest.fixture
    def out(self, copy, tmp_path):
        prepare(str(copy), str(tmp_path / "out"), spacing=4.0, workers=1, split=SPLIT_OF_THREE)
        return tmp_path / "out"

    def redone(self, copy, out, monkeypatch, **options):
        save, done = align.save_nifti, []
        monkeypatch.setattr(align, "save_nifti", lambda v, a, path: (done.append(path.name[:4]), save(v, a, path)))
        prepare(str(copy), str(out), workers=1, split=SPLIT_OF_THREE, **{"spacing": 4.0} | options)
        return sorted(set(done) - {"temp"})

    def test_nothing_if_nothing_changed(self, copy, out, monkeypatch):
        assert self.redone(copy, out, monkeypatch) == []

    def test_everything_if_forced(self, copy, out, monkeypatch):
        assert self.redone(copy, out, monkeypatch, force=True) == ["1000", "1013", "1015"]

    def test_everything_if_the_spacing_changed(self, copy, out, monkeypatch):
        assert self.redone(copy, out, monkeypatch, spacing=2.0) == ["1000", "1013", "1015"]

    def test_everything_if_the_mask_changed(self, copy, out, monkeypatch):
        assert self.redone(copy, out, monkeypatch, mask="labels") == ["1000", "1013", "1015"]

    def test_a_subject_whose_raw_scan_changed(self, copy, out, monkeypatch):
        image, _ = phantom(0.92)
        write(image, copy / "1015_SS.nii.gz")
        assert self.redone(copy, out, monkeypatch) == ["1015"]

    def test_a_subject_whose_output_was_cut_short(self, copy, out, monkeypatch):
        path = out / "labels/1013.nii.gz"
        path.write_bytes(path.read_bytes()[:-9])
        assert self.redone(copy, out, monkeypatch) == ["1013"]

    def test_a_subject_whose_record_is_spoiled(self, copy, out, monkeypatch):
        (out / "records/1013.json").write_text("[1]")
        assert self.redone(copy, out, monkeypatch) == ["1013"]


@pytest.mark.usefixtures("quick")
def test_whole_heads_are_refused_with_advice(official, tmp_path):
    with pytest.raises(RegInputError, match=r"5 findings.*shows more than a brain.*--mask labels") as caught:
        prepare(str(official), str(tmp_path / "out"), split=SPLIT_WITH_TEST)
    assert "1005_3.nii.gz" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
def test_a_mask_from_the_labels_strips_whole_heads_and_is_declared(official, tmp_path):
    prepare(str(official), str(tmp_path / "out"), mask="labels", spacing=4.0, workers=1, split=SPLIT_WITH_TEST)
    voxels = nib.load(tmp_path / "out/images/1003.nii.gz").get_fdata()
    labels = np.asarray(nib.load(tmp_path / "out/labels/1003.nii.gz").dataobj)
    assert voxels[labels == 0].mean() < 0.02  # the skull was brighter than the brain
    assert "MANUAL LABELS" in json.loads((tmp_path / "out/datalist.json").read_text())["brain_mask"]


@pytest.mark.usefixtures("quick")
def test_a_mask_from_the_labels_has_no_holes(copy, tmp_path):
    """What the labels leave out inside the brain, such as a fluid space, stays in the image."""
    labels = np.asarray(nib.load(copy / "1000_glm.nii.gz").dataobj).copy()
    labels[14:18, 18:22, 15:19] = 0
    write(labels, copy / "1000_glm.nii.gz")
    prepare(str(copy), str(tmp_path / "out"), mask="labels", spacing=4.0, workers=1, split=SPLIT_OF_THREE)
    voxels = nib.load(tmp_path / "out/images/1000.nii.gz").get_fdata()
    prepared_labels = np.asarray(nib.load(tmp_path / "out/labels/1000.nii.gz").dataobj)
    center = tuple(n // 2 for n in voxels.shape)
    assert prepared_labels[center] == 0
    assert voxels[center] > 0.1


@pytest.mark.usefixtures("quick")
def test_mask_files_are_found_by_id_and_used(official, tmp_path):
    for name in ("1000", "1003", "1004", "1005", "1013"):
        _, labels = phantom(0.8)
        write((labels > 0).astype(np.uint8), tmp_path / "masks" / f"{name}_brain.nii.gz")
    mask = str(tmp_path / "masks" / "{id}_brain.nii.gz")
    prepare(str(official), str(tmp_path / "out"), mask=mask, spacing=4.0, workers=1, split=SPLIT_WITH_TEST)
    inside = np.count_nonzero(nib.load(tmp_path / "out/images/1000.nii.gz").get_fdata() > 0.05)
    labelled = np.count_nonzero(np.asarray(nib.load(tmp_path / "out/labels/1000.nii.gz").dataobj))
    assert 0.8**3 * 0.9 < inside / labelled < 0.8**3 * 1.2


@pytest.fixture
def head_template(tmp_path):
    """A head with its skull, and its brain."""
    image, labels = phantom(head=True)
    write(image, tmp_path / "head.nii.gz")
    write((labels > 0).astype(np.uint8), tmp_path / "brain.nii.gz")
    return brain_masks.HeadTemplate(tmp_path / "head.nii.gz", tmp_path / "brain.nii.gz")


@pytest.mark.usefixtures("quick")
def test_whole_heads_are_stripped_by_a_template_once(official, head_template, tmp_path, monkeypatch):
    """The extraction itself is tested with ``common.brain``; here it answers with a smaller brain than the labels'."""
    calls = []

    def extract(image, template, mask):
        calls.append(image[0].shape)
        return phantom(0.8)[1] > 0

    monkeypatch.setattr(brain_masks, "extract_brain", extract)
    options = {"spacing": 4.0, "workers": 1, "split": SPLIT_WITH_TEST, "heads": head_template}
    prepare(str(official), str(tmp_path / "out"), **options)
    assert len(calls) == 5
    inside = np.count_nonzero(nib.load(tmp_path / "out/images/1000.nii.gz").get_fdata() > 0.05)
    labelled = np.count_nonzero(np.asarray(nib.load(tmp_path / "out/labels/1000.nii.gz").dataobj))
    assert 0.8**3 * 0.9 < inside / labelled < 0.8**3 * 1.2
    assert "template's whole head" in read_header(str(tmp_path / "out"))["brain_mask"]
    with open(tmp_path / "out/report.csv", newline="", encoding="utf-8") as file:
        assert all("ml" in row["mask_doubts"] for row in csv.DictReader(file))  # 0.8 of this phantom is a child's brain
    before = contents(tmp_path / "out")
    prepare(str(official), str(tmp_path / "out"), **options)
    assert len(calls) == 5 and contents(tmp_path / "out") == before


def test_a_template_without_its_skull_is_no_head(official, tmp_path):
    image, labels = phantom()
    write(image, tmp_path / "head.nii.gz")
    write((labels > 0).astype(np.uint8), tmp_path / "brain.nii.gz")
    heads = brain_masks.HeadTemplate(tmp_path / "head.nii.gz", tmp_path / "brain.nii.gz")
    with pytest.raises(RegInputError, match="shows nothing outside of"):
        prepare(str(official), str(tmp_path / "out"), split=SPLIT_WITH_TEST, heads=heads)
    assert not (tmp_path / "out").exists()


def test_a_mask_beside_a_template_head_is_refused(official, head_template, tmp_path):
    with pytest.raises(RegInputError, match="expected one of the two"):
        prepare(str(official), str(tmp_path / "out"), mask="labels", heads=head_template)


def test_a_template_head_without_its_brain_is_refused():
    with pytest.raises(RegInputError, match="expected both or none"):
        brain_masks.head_template("head.nii.gz", None)


@pytest.mark.usefixtures("quick")
def test_test_subjects_make_pairs_of_the_first_with_each_other_one(official, tmp_path):
    prepare(str(official), str(tmp_path / "out"), mask="labels", spacing=4.0, workers=1, split=SPLIT_WITH_TEST)
    pairs = read_datalist(str(tmp_path / "out"), "testing")
    assert [(p["fixed"][-11:-7], p["moving"][-11:-7]) for p in pairs] == [("1003", "1004"), ("1003", "1005")]
    assert "validation" not in json.loads((tmp_path / "out/datalist.json").read_text())  # one subject makes no pair


@pytest.mark.usefixtures("quick")
def test_the_report_has_a_line_a_subject_and_names_lost_labels(copy, tmp_path):
    labels = np.asarray(nib.load(copy / "1013_glm.nii.gz").dataobj).copy()
    labels[labels == 107] = 0
    write(labels, copy / "1013_glm.nii.gz")
    prepare(str(copy), str(tmp_path / "out"), spacing=4.0, workers=1, split=SPLIT_OF_THREE)
    with open(tmp_path / "out/report.csv", newline="", encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["1000", "1013", "1015"]
    assert (rows["1013"]["labels_found"], rows["1013"]["labels_missing"]) == ("133", "107")
    assert rows["1000"]["raw_orientation"] == "LAS"


@pytest.mark.usefixtures("quick")
def test_what_hangs_beside_the_brain_is_removed(copy, tmp_path):
    """Some scans show a vitamin tablet beside the head, labelled 74."""
    image = np.asarray(nib.load(copy / "1013_SS.nii.gz").dataobj).copy()
    labels = np.asarray(nib.load(copy / "1013_glm.nii.gz").dataobj).copy()
    image[1:3, 3:5, 3:5], labels[1:3, 3:5, 3:5] = 3000, 74
    write(image, copy / "1013_SS.nii.gz")
    write(labels, copy / "1013_glm.nii.gz")
    prepare(str(copy), str(tmp_path / "out"), spacing=4.0, workers=1, split=SPLIT_OF_THREE)
    tablet = np.asarray(nib.load(tmp_path / "out/labels/1013.nii.gz").dataobj) == 74
    assert tablet.any()
    assert not nib.load(tmp_path / "out/images/1013.nii.gz").get_fdata()[tablet].any()


@pytest.mark.slow  # each process loads ITK
def test_the_number_of_processes_does_not_change_the_bytes(prepared, stripped, tmp_path):
    prepare(str(stripped), str(tmp_path), spacing=2.0, workers=2, split=SPLIT_OF_THREE)
    assert contents(tmp_path) == contents(prepared)


def test_every_bad_file_is_named_at_once_before_any_work(copy, tmp_path):
    path = copy / "1000_SS.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])
    image = np.asarray(nib.load(copy / "1013_SS.nii.gz").dataobj).astype(np.float32)
    image[0, 0, 0] = np.nan
    write(image, copy / "1013_SS.nii.gz")
    write(np.asarray(nib.load(copy / "1015_glm.nii.gz").dataobj)[1:], copy / "1015_glm.nii.gz")
    with pytest.raises(RegInputError) as caught:
        prepare(str(copy), str(tmp_path / "out"), split=SPLIT_OF_THREE)
    for text in ("3 findings", "1000_SS.nii.gz", "1 NaN or infinite", "1015_glm.nii.gz has the grid"):
        assert text in str(caught.value)
    assert not (tmp_path / "out").exists()


def spoil_constant(raw):
    write(np.full(SIZE, 7, np.int16), raw / "1013_SS.nii.gz")


def spoil_4d(raw):
    write(np.zeros((*SIZE, 2), np.int16), raw / "1013_SS.nii.gz")


def spoil_position(raw):
    image = nib.Nifti1Image(phantom()[0], None)
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, raw / "1013_SS.nii.gz")


def spoil_labels(raw):
    labels = np.asarray(nib.load(raw / "1013_glm.nii.gz").dataobj).copy()
    labels[labels == 4] = 255
    write(labels, raw / "1013_glm.nii.gz")


def spoil_missing(raw):
    (raw / "1013_glm.nii.gz").unlink()


def spoil_twice(raw):
    write(phantom()[0], raw / "more" / "1013_3.nii.gz")


def spoil_table(raw):
    (raw / "label_information.csv").write_text("Label Number,Label Name\n4,3rd Ventricle\n")


def spoil_stranger(raw):
    write(phantom()[0], raw / "2000_SS.nii.gz")
    write(phantom()[1], raw / "2000_glm.nii.gz")


def spoil_all(raw):
    for path in raw.glob("*.nii.gz"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_constant, "1013_SS.nii.gz is 7 everywhere"),
        (spoil_4d, "1013_SS.nii.gz has shape .*expected 3 axes"),
        (spoil_position, "1013_SS.nii.gz states no position"),
        (spoil_labels, r"1013_glm.nii.gz has the labels \[255\]"),
        (spoil_missing, "1013_SS.nii.gz has no labels"),
        (spoil_twice, "subject 1013 is there 2 times"),
        (spoil_table, "names all 134 labels"),
        (spoil_stranger, "subject 2000 is in no part of the split"),
        (spoil_all, "no subject found under .*training-images/<id>_3.nii.gz.*<id>_SS.nii.gz"),
    ],
)
def test_bad_input_is_refused(copy, tmp_path, spoil, text):
    spoil(copy)
    with pytest.raises(RegInputError, match=text):
        prepare(str(copy), str(tmp_path / "out"), split=SPLIT_OF_THREE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"mask": "lables"}, "mask is 'lables', expected none, labels or a path"),
        ({"mask": "nowhere/{id}.nii.gz"}, r"3 findings[\s\S]*nowhere/1013.nii.gz cannot be opened"),
        ({"spacing": 1.5}, "spacing is 1.5"),
        ({"template": "nowhere.nii.gz"}, "nowhere.nii.gz cannot be opened"),
        ({"split": {"validation": ["1000", "1013", "1015"]}}, "none of the training subjects"),
    ],
)
def test_bad_options_are_refused(stripped, tmp_path, option, text):
    with pytest.raises(RegInputError, match=text):
        prepare(str(stripped), str(tmp_path / "out"), **{"split": SPLIT_OF_THREE} | option)
    assert not (tmp_path / "out").exists()


def test_a_template_with_its_head_is_refused(stripped, tmp_path):
    write(phantom(head=True)[0], tmp_path / "head.nii.gz")
    with pytest.raises(RegInputError, match="expected a skull-stripped template"):
        prepare(str(stripped), str(tmp_path / "out"), template=str(tmp_path / "head.nii.gz"), split=SPLIT_OF_THREE)


@pytest.mark.usefixtures("quick")
def test_a_template_file_centers_the_grid_on_itself(stripped, tmp_path):
    affine = RAW.copy()
    affine[:3, 3] = 1000, 2000, 3000
    write(phantom()[0], tmp_path / "template.nii.gz", affine)
    template = str(tmp_path / "template.nii.gz")
    prepare(str(stripped), str(tmp_path / "out"), template=template, spacing=4.0, workers=1, split=SPLIT_OF_THREE)
    image = nib.load(tmp_path / "out/images/1000.nii.gz")
    middle = voxels_to_mm([(np.array(image.shape) - 1) / 2], image.affine)[0]
    np.testing.assert_allclose(middle, affine[:3, :3] @ ((np.array(SIZE) - 1) / 2) + affine[:3, 3], atol=5)


def test_outputs_carry_no_time_or_name_in_their_gzip_header(prepared):
    head = (prepared / "images/1000.nii.gz").read_bytes()[:10]
    assert head[3] == 0  # no file name
    assert head[4:8] == bytes(4)  # no time
    assert gzip.decompress((prepared / "images/1000.nii.gz").read_bytes())[344:348] == b"n+1\0"
