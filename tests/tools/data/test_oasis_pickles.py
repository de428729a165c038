"""A tiny copy of TransMorph's release of OASIS goes the whole way."""

import pickle
import shutil

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.datalist import check_datalist, read_datalist, read_header
from common.errors import RegInputError
from tests.tools.data.brain_labels import SIZE, brain
from tools.__main__ import app
from tools.data import oasis_pickles
from tools.data.label_orientation import SEG35
from tools.data.oasis_layout import SEG35_NAMES


def write(path, *arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(arrays, protocol=4))


def scan(number):
    return brain(SEG35, SEG35_NAMES, seed=number)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Three subjects and two pairs: moving image, fixed image, moving labels, fixed labels."""
    folder = tmp_path_factory.mktemp("raw")
    for number in (1, 2, 10):
        write(folder / "OASIS_L2R_2021_task03" / "All" / f"p_{number:04}.pkl", *scan(number))
    for fixed in (438, 439):
        arrays = zip(scan(fixed + 1), scan(fixed), strict=True)
        write(folder / f"OASIS_L2R_2021_task03/Test/p_0{fixed}_0{fixed + 1}.pkl", *(a for both in arrays for a in both))
    return folder


def prepare(raw, out, **options):
    return oasis_pickles.prepare(str(raw), str(out), **{"partial": True, "workers": 1, "size": SIZE} | options)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory):
    return prepare(raw, tmp_path_factory.mktemp("prepared")).parent


def test_the_datalist_keeps_its_contract(prepared):
    assert read_header(str(prepared))["labels"] == SEG35_NAMES
    training = read_datalist(str(prepared), "training", check_files=True)
    assert [item["image"][-13:] for item in training] == ["p_0001.nii.gz", "p_0002.nii.gz", "p_0010.nii.gz"]
    pairs = read_datalist(str(prepared), "validation")
    check_datalist(pairs)
    assert len(pairs) == 2


def test_the_first_array_of_a_pair_moves_and_the_second_is_fixed(prepared):
    pair = read_datalist(str(prepared), "validation")[0]
    for role, number in (("fixed", 438), ("moving", 439)):
        image, labels = scan(number)
        np.testing.assert_array_equal(nib.load(pair[role]).get_fdata(dtype=np.float32), image)
        np.testing.assert_array_equal(np.asarray(nib.load(pair[f"{role}_label"]).dataobj), labels)


def test_a_second_run_writes_the_same_bytes_in_place_and_anew(prepared, raw, tmp_path):
    before = contents(prepared)
    prepare(raw, prepared)
    prepare(raw, tmp_path)
    assert contents(prepared) == before == contents(tmp_path)


def test_every_bad_file_is_named_at_once(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "copy") / "OASIS_L2R_2021_task03"
    write(folder / "Test/p_0438_0439.pkl", *scan(1))
    (folder / "All/p_0002.pkl").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    with pytest.raises(
        RegInputError, match=r"3 findings.*os.system.*p_0438_0439.pkl holds \[3, 3\], expected 4 arrays"
    ):
        prepare(tmp_path / "copy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_layout_is_refused(raw, tmp_path):
    folder = shutil.copytree(raw, tmp_path / "copy") / "OASIS_L2R_2021_task03"
    shutil.copy(folder / "All/p_0001.pkl", folder / "Test/p_0001.pkl")
    shutil.copy(folder / "All/p_0001.pkl", folder / "loose.pkl")
    with pytest.raises(RegInputError, match=r"2 findings.*is in no part of the release.*is there as"):
        prepare(tmp_path / "copy", tmp_path / "out")
    with pytest.raises(RegInputError, match="no pickle found under"):
        prepare(tmp_path / "out", tmp_path / "out")


def test_the_command_asks_for_394_subjects_and_19_pairs(raw, tmp_path):
    command = ["data", "prepare", "oasis-transmorph", "--raw", str(raw), "--out", str(tmp_path / "out")]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, RegInputError)
    assert "3 files for training, expected 394" in str(error) and "2 files for validation, expected 19" in str(error)
