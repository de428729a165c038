"""A tiny copy of neurite-OASIS goes the whole way, down to a step of training by its overlay."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.bundles.pairwise import copy_of_bundle
from tests.bundles.trained import run
from tests.tools.data.brain_labels import SIZE, brain
from tools.__main__ import app
from tools.data import oasis
from tools.data import prepared as prepared_module
from tools.data.label_orientation import SEG35
from tools.data.leakage import excluded_from_oasis
from tools.data.oasis_layout import SEG35_NAMES, SUBJECTS, split_of

NUMBERS = (1, 2, 3, 438, 439, 440)
LIA = np.array([[-1.0, 0, 0, 80], [0, 0, 1, -125], [0, -1, 0, 97], [0, 0, 0, 1]])


def folder_of(number):
    return f"OASIS_OAS1_{number:04}_MR1"


def write(array, path, affine=LIA):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def release(raw):
    """Six subjects, both kinds of labels, both tables."""
    for number in NUMBERS:
        image, labels = brain(SEG35, SEG35_NAMES, seed=number)
        write(image, raw / folder_of(number) / "aligned_norm.nii.gz")
        write(labels, raw / folder_of(number) / "aligned_seg35.nii.gz")
        tissue = np.where(labels > 0, 3, 0) - 2 * np.isin(labels, (2, 21)) + 1 * np.isin(labels, (3, 22))
        write(tissue.astype(np.int16), raw / folder_of(number) / "aligned_seg4.nii.gz")
    lines = [f"  {value}  {name}   70  130 180 0" for value, name in ({0: "Unknown"} | SEG35_NAMES).items()]
    (raw / "seg35_labels.txt").write_text("\n".join(lines))
    names = ("Unknown", "Cortex", "Subcortical-Gray-Matter", "White-Matter", "CSF")
    (raw / "seg4_labels.txt").write_text("".join(f"{k} {name} 0 0 0 0\n" for k, name in enumerate(names)))
    (raw / "subjects.txt").write_text("\n".join(map(folder_of, NUMBERS)))
    return raw


def prepare(raw, out, **options):
    return oasis.prepare(str(raw), str(out), **{"partial": True, "workers": 1, "size": SIZE} | options)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(items, key="image"):
    return [int(item[key].split("OAS1_")[1][:4]) for item in items]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return release(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    return prepare(raw, tmp_path_factory.mktemp("prepared")).parent


@pytest.fixture
def copy(raw, tmp_path):
    """A raw folder that a test may spoil."""
    return shutil.copytree(raw, tmp_path / "copy")


@pytest.fixture
def quick(monkeypatch):
    """No pictures where a test is about something else."""
    monkeypatch.setattr(prepared_module, "contact_sheet", lambda rows, path: None)


def test_learn2reg_trains_on_394_and_validates_on_19_consecutive_pairs():
    split = split_of("learn2reg")
    assert len(SUBJECTS) == 414 and len(split.training) == 394 and len(split.validation) == 19
    pairs = [(int(fixed[11:15]), int(moving[11:15])) for fixed, moving in split.validation]
    assert pairs == [(number, number + 1) for number in range(438, 457)]
    assert not {name for pair in split.validation for name in pair} & set(split.training)


def test_patch_trains_on_182_disjoint_pairs_and_validates_on_5_without_the_test_sets_persons():
    split = split_of("patch")
    training = [name for pair in split.training for name in pair]
    validation = {name for pair in split.validation for name in pair}
    assert len(split.training) == 182 and len(set(training)) == 364
    assert len(split.validation) == 5 and len(validation) == 6 and not validation & set(training)
    assert not {name[6:15] for name in split.names} & set(excluded_from_oasis())
    assert len(excluded_from_oasis()) >= 30


def test_the_datalist_keeps_its_contract(prepared):
    header = read_header(str(prepared))
    assert (header["name"], header["orientation"], header["spacing_mm"]) == ("oasis", "LIA", [1, 1, 1])
    assert header["labels"] == SEG35_NAMES and (header["labels"][13], header["labels"][35]) == (
        "Brain-Stem",
        "Right-choroid-plexus",
    )
    assert names_in(read_datalist(str(prepared), "training", check_files=True)) == [1, 2, 3]
    pairs = read_datalist(str(prepared), "validation")
    check_datalist(pairs)
    assert list(zip(names_in(pairs, "fixed"), names_in(pairs, "moving"), strict=True)) == [(438, 439), (439, 440)]


def test_voxels_labels_and_affine_are_the_releases_own(prepared, raw):
    for kind, file in (("images", "aligned_norm"), ("labels", "aligned_seg35")):
        found, given = (
            nib.load(prepared / kind / f"{folder_of(3)}.nii.gz"),
            nib.load(raw / folder_of(3) / f"{file}.nii.gz"),
        )
        np.testing.assert_array_equal(found.get_fdata(), given.get_fdata())
        np.testing.assert_array_equal(found.affine, given.affine)
    assert nib.load(prepared / "labels" / f"{folder_of(3)}.nii.gz").get_data_dtype() == np.uint8


@pytest.mark.usefixtures("quick")
def test_a_header_in_other_axes_is_heeded(prepared, copy, tmp_path):
    """The same scan stored RAS comes out the same, voxels and affine."""
    for path in (copy / folder_of(2)).iterdir():
        nib.save(nib.as_closest_canonical(nib.load(path)), path)
    prepare(copy, tmp_path / "out")
    assert contents(tmp_path / "out/images") == contents(prepared / "images")
    assert contents(tmp_path / "out/labels") == contents(prepared / "labels")


def test_a_scan_whose_labels_are_mirrored_against_its_header_is_refused(copy, tmp_path):
    for path in (copy / folder_of(2)).iterdir():
        write(nib.load(path).get_fdata()[::-1], path)
    with pytest.raises(RegInputError, match=f"{folder_of(2)}.*lies RIA by its labels.*expected LIA"):
        prepare(copy, tmp_path / "out")


@pytest.mark.usefixtures("quick")
def test_tissues_come_with_the_tables_names(raw, tmp_path):
    out = prepare(raw, tmp_path, labels="seg4").parent
    assert list(read_header(str(out))["labels"].values()) == [
        "Cortex",
        "Subcortical-Gray-Matter",
        "White-Matter",
        "CSF",
    ]
    assert set(np.unique(nib.load(out / f"labels/{folder_of(1)}.nii.gz").dataobj)) == {0, 1, 3, 4}


@pytest.mark.usefixtures("quick")
def test_the_patch_split_leaves_pairs_to_train_on(raw, tmp_path):
    """Of the six, 1 and 2 are a pair, 3's partner and all of the validation are absent."""
    out = prepare(raw, tmp_path, split="patch").parent
    pairs = read_datalist(str(out), "training")
    assert (names_in(pairs, "fixed"), names_in(pairs, "moving")) == ([1], [2])
    assert "MALC" in json.loads((out / "datalist.json").read_text())["split"]


def test_a_second_run_writes_the_same_bytes_in_place_and_anew(prepared, raw, tmp_path):
    before = contents(prepared)
    prepare(raw, prepared)
    prepare(raw, tmp_path)
    assert contents(prepared) == before == contents(tmp_path)


@pytest.mark.usefixtures("quick")
def test_other_labels_are_prepared_anew_and_what_is_finished_is_kept(copy, tmp_path, monkeypatch):
    save, done = oasis.save_nifti, []
    prepare(copy, tmp_path / "out")
    monkeypatch.setattr(oasis, "save_nifti", lambda v, a, path: (done.append(path.name), save(v, a, path)))
    prepare(copy, tmp_path / "out")
    assert done == []
    prepare(copy, tmp_path / "out", labels="seg4")
    assert len(done) == 2 * len(NUMBERS)


@pytest.mark.usefixtures("quick")
def test_the_report_has_a_line_a_scan_and_names_lost_labels(copy, tmp_path):
    path = copy / folder_of(438) / "aligned_seg35.nii.gz"
    labels = np.asarray(nib.load(path).dataobj)
    write(np.where(labels == 35, 21, labels), path)
    out = prepare(copy, tmp_path / "out").parent
    rows = {row["id"]: row for row in csv.DictReader(open(out / "report.csv"))}
    assert list(rows) == [folder_of(number) for number in NUMBERS]
    assert (rows[folder_of(438)]["labels_found"], rows[folder_of(438)]["labels_missing"]) == ("34", "35")
    assert rows[folder_of(1)]["raw_orientation"] == "LIA"


def test_every_bad_file_is_named_at_once_before_any_work(copy, tmp_path):
    image, labels = brain(SEG35, SEG35_NAMES)
    write(image * 255, copy / folder_of(1) / "aligned_norm.nii.gz")
    write(labels + 1, copy / folder_of(2) / "aligned_seg35.nii.gz")
    write(image, copy / folder_of(3) / "aligned_norm.nii.gz", LIA @ np.diag([2, 2, 2, 1]))
    write(labels, copy / folder_of(3) / "aligned_seg35.nii.gz", LIA @ np.diag([2, 2, 2, 1]))
    path = copy / folder_of(438) / "aligned_norm.nii.gz"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(RegInputError) as caught:
        prepare(copy, tmp_path / "out")
    for text in ("4 findings", "intensities from 0 to", "has the labels [36]", "voxels of [2.0, 2.0, 2.0] mm"):
        assert text in str(caught.value)
    assert f"{folder_of(438)}/aligned_norm.nii.gz" in str(caught.value)
    assert not (tmp_path / "out").exists()


def lose_file(raw):
    (raw / folder_of(1) / "aligned_seg35.nii.gz").unlink()


def add_twin(raw):
    shutil.copytree(raw / folder_of(1), raw / "more" / folder_of(1))


def lose_all(raw):
    for number in NUMBERS:
        shutil.rmtree(raw / folder_of(number))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lose_file, "aligned_seg35.nii.gz is missing"),
        (add_twin, "OAS1_0001_MR1 is there 2 times"),
        (lose_all, "no subject of the split found under .*expected OASIS_OAS1_<number>_MR1/"),
    ],
)
def test_another_layout_is_refused(copy, tmp_path, spoil, text):
    spoil(copy)
    with pytest.raises(RegInputError, match=text):
        prepare(copy, tmp_path / "out")


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"partial": False}, "lacks 408 of the split's 414 subjects, the first OASIS_OAS1_0004_MR1.*--partial"),
        ({"labels": "seg24"}, "labels is 'seg24', expected seg35 or seg4"),
        ({"split": "mine"}, "split is 'mine', expected learn2reg or patch"),
    ],
)
def test_bad_options_are_refused(raw, tmp_path, option, text):
    with pytest.raises(RegInputError, match=text):
        prepare(raw, tmp_path / "out", **option)


@pytest.mark.usefixtures("quick")
def test_the_names_of_the_35_need_no_table_those_of_the_tissues_do(copy, tmp_path):
    for path in copy.glob("*_labels.txt"):
        path.unlink()
    out = prepare(copy, tmp_path / "out").parent
    assert read_header(str(out))["labels"] == SEG35_NAMES
    with pytest.raises(RegInputError, match=r"names no labels, expected seg4_labels.txt"):
        prepare(copy, tmp_path / "out", labels="seg4")


def test_the_command_takes_labels_and_split(raw, tmp_path):
    command = ["data", "prepare", "oasis", "--raw", str(raw), "--out", str(tmp_path / "out"), "--labels", "seg4"]
    result = CliRunner().invoke(app, [*command, "--split", "patch"])
    assert isinstance(result.exception, RegInputError) and "of the split's 370 subjects" in str(result.exception)


@pytest.mark.slow
def test_the_command_prepares_brains_of_the_published_size(raw, tmp_path):
    for path in raw.rglob("*.nii.gz"):
        image = nib.load(path)
        voxels = np.kron(np.asarray(image.dataobj), np.ones((8, 8, 8), image.get_data_dtype()))
        write(voxels, tmp_path / "raw" / path.relative_to(raw))
    command = ["data", "prepare", "oasis", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--partial"]
    result = CliRunner().invoke(app, [*command, "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert len(read_datalist(str(tmp_path / "out"), "validation", check_files=True)) == 2


@pytest.mark.slow
def test_the_overlay_trains_on_it(prepared, tmp_path):
    copy = copy_of_bundle("voxelmorph", tmp_path)
    run(copy, prepared, "train", "oasis", steps_per_epoch=2)
    assert (copy / "models/model.pt").is_file()
