"""A tiny copy of TransMorph's release of IXI goes the whole way, down to a step of training by its overlay."""

import csv
import json
import os
import pickle
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.bundles.pairwise import copy_of_bundle
from tests.bundles.trained import run
from tests.tools.data.brain_labels import SIZE, brain
from tools.__main__ import app
from tools.data import ixi
from tools.data import prepared as prepared_module
from tools.data.aseg import ASEG_NAMES
from tools.data.ixi_layout import COUNTS, NAMES, NUMBERS, SCORED, find_brains
from tools.data.label_orientation import ASEG

DATA = os.environ.get("REGBUNDLES_TEST_DATA")
PARTS = {"Train": (0, 4, 10), "Val": (2,), "Test": (1, 3)}


def write(path, image, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps((image, labels), protocol=4))


def release(raw, codes="LIA"):
    """Six subjects and the atlas, with all 45 labels."""
    write(raw / "IXI_data" / "atlas.pkl", *brain(ASEG, ASEG_NAMES, codes))
    for part, numbers in PARTS.items():
        for number in numbers:
            write(raw / "IXI_data" / part / f"subject_{number}.pkl", *brain(ASEG, ASEG_NAMES, codes, seed=1 + number))
    return raw


def prepare(raw, out, **options):
    return ixi.prepare(str(raw), str(out), **{"partial": True, "workers": 1, "size": SIZE} | options)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_the_labels_are_the_papers_46_numbers_and_30_structures():
    """Both lists as published with the benchmark, in the numbers that its evaluation gives them."""
    assert len(NUMBERS) == 46 and NUMBERS[:8] == (0, 2, 3, 4, 5, 7, 8, 10) and NUMBERS[-5:] == (251, 252, 253, 254, 255)
    assert SCORED == (1, 2, 3, *range(5, 17), 18, *range(20, 24), *range(25, 33), 34, 36) and len(SCORED) == 30
    assert (NAMES[13], NAMES[16], NAMES[31], NAMES[34]) == (
        *("Brain-Stem", "CSF", "Right-Hippocampus", "Right-VentralDC"),
    )


def test_the_release_is_403_58_and_115_scans_and_an_atlas(tmp_path):
    numbers = iter(range(576))
    for part, count in (("Train", 403), ("Val", 58), ("Test", 115)):
        (tmp_path / part).mkdir()
        for _ in range(count):
            (tmp_path / part / f"subject_{next(numbers)}.pkl").touch()
    (tmp_path / "atlas.pkl").touch()
    found = find_brains(tmp_path)
    assert {part: len(brains) for part, brains in found.items()} == COUNTS | {"atlas": 1}
    assert [brain.name for brain in found["training"][9:12]] == ["subject_9", "subject_10", "subject_11"]


def test_the_datalist_keeps_its_contract(prepared):
    header = read_header(str(prepared))
    assert (header["name"], header["orientation"], header["spacing_mm"]) == ("ixi", "LIA", [1, 1, 1])
    assert sorted(header["labels"]) == list(SCORED) and len(header["all_labels"]) == 45
    assert header["atlas"] == "images/atlas.nii.gz" and "CC BY-SA" in header["licence"]
    names = [item["image"].split("/")[-1] for item in read_datalist(str(prepared), "training", check_files=True)]
    assert names == ["atlas.nii.gz", "subject_0.nii.gz", "subject_4.nii.gz", "subject_10.nii.gz"]


def test_every_pair_is_a_subject_and_the_atlas_that_moves(prepared):
    for section, numbers in (("validation", (2,)), ("testing", (1, 3))):
        pairs = read_datalist(str(prepared), section)
        check_datalist(pairs)
        assert [pair["fixed"] for pair in pairs] == [str(prepared / f"images/subject_{n}.nii.gz") for n in numbers]
        assert {pair["moving_label"] for pair in pairs} == {str(prepared / "labels/atlas.nii.gz")}


def test_voxels_are_the_files_own_and_labels_renumbered(prepared, raw):
    with open(raw / "IXI_data/Test/subject_3.pkl", "rb") as file:
        image, labels = pickle.load(file)
    found, values = (nib.load(prepared / f"{kind}/subject_3.nii.gz") for kind in ("images", "labels"))
    np.testing.assert_array_equal(found.get_fdata(dtype=np.float32), image)
    assert values.get_data_dtype() == np.uint8
    values = np.asarray(values.dataobj)
    assert set(np.unique(values)) == set(range(46))
    np.testing.assert_array_equal(np.array(NUMBERS)[values], labels)


def test_the_affine_is_freesurfers_for_a_centered_volume(prepared):
    image = nib.load(prepared / "images/atlas.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "I", "A")
    expected = [[-1, 0, 0, SIZE[0] / 2], [0, 0, 1, -SIZE[2] / 2], [0, -1, 0, SIZE[1] / 2], [0, 0, 0, 1]]
    np.testing.assert_array_equal(image.affine, expected)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("codes", ["RAS", "RIA", "ASL"])
def test_scans_that_lie_otherwise_come_out_the_same(prepared, tmp_path, codes):
    """Mirrored and turned arrays: their labels tell, and the report says it."""
    out = prepare(release(tmp_path / "raw", codes), tmp_path / "out").parent
    for kind in ("images", "labels"):
        assert contents(out / kind) == contents(prepared / kind)
    assert {row["orientation"] for row in csv.DictReader(open(out / "report.csv"))} == {codes}


def test_a_second_run_writes_the_same_bytes_in_place_and_anew(prepared, raw, tmp_path, monkeypatch):
    before = contents(prepared)
    prepare(raw, prepared)
    prepare(raw, tmp_path)
    assert contents(prepared) == before == contents(tmp_path)


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_stopped_goes_on(copy, tmp_path, monkeypatch):
    from tools.data import transmorph

    save, done = transmorph.save_nifti, []

    def stop(voxels, affine, path):
        if path.name == "subject_4.nii.gz":
            raise KeyboardInterrupt
        save(voxels, affine, path)

    monkeypatch.setattr(transmorph, "save_nifti", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(copy, tmp_path / "out")
    assert not (tmp_path / "out/datalist.json").exists()
    monkeypatch.setattr(transmorph, "save_nifti", lambda v, a, path: (done.append(path.name), save(v, a, path)))
    prepare(copy, tmp_path / "out")
    assert "atlas.nii.gz" not in done and done.count("subject_4.nii.gz") == 2


@pytest.mark.usefixtures("quick")
def test_the_report_has_a_line_a_scan_and_names_lost_labels(copy, tmp_path):
    path = copy / "IXI_data/Val/subject_2.pkl"
    image, labels = pickle.loads(path.read_bytes())
    labels[labels == 24] = 0
    write(path, image, labels)
    out = prepare(copy, tmp_path / "out").parent
    rows = {row["id"]: row for row in csv.DictReader(open(out / "report.csv"))}
    assert len(rows) == 7 and rows["atlas"]["labels_missing"] == ""
    assert (rows["subject_2"]["labels_found"], rows["subject_2"]["labels_missing"]) == ("29", "16")
    assert rows["subject_2"]["file"] == "Val/subject_2.pkl"


def test_every_bad_file_is_named_at_once_before_any_work(copy, tmp_path):
    folder = copy / "IXI_data"
    image, labels = brain(ASEG, ASEG_NAMES)
    write(folder / "Train/subject_0.pkl", image * 255, labels)
    write(folder / "Train/subject_4.pkl", image, labels + 1)
    write(folder / "Train/subject_10.pkl", image[1:], labels[1:])
    write(folder / "Val/subject_2.pkl", image, labels / 2)
    write(folder / "Test/subject_1.pkl", image, np.where(labels == 16, 2, labels))
    (folder / "Test/subject_3.pkl").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    with pytest.raises(RegInputError) as caught:
        prepare(copy, tmp_path / "out")
    for text in (
        *("6 findings", "intensities from 0 to", "has the labels [1, 6", "has (19, 24, 28) voxels"),
        *("fractional labels", "lacks labels that tell left from right", "it asks for os.system"),
    ):
        assert text in str(caught.value)
    assert not (tmp_path / "out").exists()


def lose_atlas(folder):
    (folder / "atlas.pkl").unlink()


def add_stranger(folder):
    shutil.copy(folder / "atlas.pkl", folder / "brain.pkl")


def add_twin(folder):
    shutil.copy(folder / "Val/subject_2.pkl", folder / "Test/subject_2.pkl")


def lose_all(folder):
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lose_atlas, "has 0 files atlas.pkl, expected one"),
        (add_stranger, "brain.pkl is in no part of the release"),
        (add_twin, "subject_2.pkl is there as .*subject_2.pkl too"),
        (lose_all, "no subject found under .*expected atlas.pkl and, in Train, Val and Test"),
    ],
)
def test_another_layout_is_refused(copy, tmp_path, spoil, text):
    spoil(copy / "IXI_data")
    with pytest.raises(RegInputError, match=text):
        prepare(copy, tmp_path / "out")


def test_an_incomplete_release_is_refused_unless_asked_for(raw, tmp_path):
    with pytest.raises(RegInputError, match=r"3 findings.*3 scans for training, expected 403.*--partial"):
        prepare(raw, tmp_path / "out", partial=False)


def test_the_command_asks_for_the_whole_release(raw, tmp_path):
    result = CliRunner().invoke(app, ["data", "prepare", "ixi", "--raw", str(raw), "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, RegInputError) and "expected 403" in str(result.exception)


@pytest.mark.slow
def test_the_command_prepares_brains_of_the_published_size(raw, tmp_path):
    for path in raw.rglob("*.pkl"):
        image, labels = (np.kron(array, np.ones((8, 8, 8), array.dtype)) for array in pickle.loads(path.read_bytes()))
        write(tmp_path / "raw" / path.relative_to(raw), image, labels)
    command = ["data", "prepare", "ixi", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--partial"]
    result = CliRunner().invoke(app, [*command, "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert nib.load(tmp_path / "out/images/subject_4.nii.gz").shape == (160, 192, 224)


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="REGBUNDLES_TEST_DATA names no folder of scans")
def test_real_brains_of_freesurfer_get_the_affine_that_their_own_files_have(tmp_path):
    """Two 160 x 192 x 224 brains with these 46 labels, as NIfTI files with a header: the header is found again."""
    images = sorted(Path(DATA, "brain_pair").glob("*_img.nii.gz"))
    assert len(images) == 2
    for path, place in zip(images, ("atlas", "Test/subject_1"), strict=True):
        labels = nib.load(str(path).replace("_img", "_seg"))
        voxels = np.asarray(nib.load(path).dataobj) / np.float32(255)
        write(tmp_path / "raw" / f"{place}.pkl", voxels, np.asarray(labels.dataobj))
    ixi.prepare(str(tmp_path / "raw"), str(tmp_path / "out"), partial=True, workers=1)
    for path, name in zip(images, ("atlas", "subject_1"), strict=True):
        found, given = nib.load(tmp_path / f"out/images/{name}.nii.gz"), nib.load(path)
        np.testing.assert_array_equal(found.affine, given.affine)
        np.testing.assert_allclose(found.get_fdata() * 255, given.get_fdata(), atol=1e-4)
    for row in csv.DictReader(open(tmp_path / "out/report.csv")):
        assert (row["orientation"], row["labels_found"], row["labels_missing"]) == ("LIA", "30", "")


@pytest.mark.parametrize(
    "bundle",
    ["voxelmorph", *(pytest.param(name, marks=pytest.mark.slow) for name in ("lku_net", "symnet", "transmorph"))],
)
def test_the_overlay_trains_on_it(prepared, tmp_path, bundle):
    """Of the atlas onto each of the three training subjects, scored on the validation pair."""
    copy = copy_of_bundle(bundle, tmp_path)
    workflow = run(copy, prepared, "train", "ixi", steps_per_epoch=3)
    assert workflow.parser.get_parsed_content("train::dataset").__len__() == 3
    weights = torch.load(copy / "models/model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    assert json.loads((copy / "models/grid.json").read_text())["orientation"] == "LIA"
