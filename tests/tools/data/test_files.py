import gzip
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from tools.data.files import remove_leftovers, save_json, save_nifti, sha256


def test_a_nifti_file_holds_the_same_bytes_whenever_and_whatever_it_is_called(tmp_path, monkeypatch):
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    save_nifti(voxels, np.eye(4), tmp_path / "one.nii.gz")
    monkeypatch.setattr("time.time", lambda: 1e9)
    save_nifti(voxels, np.eye(4), tmp_path / "deeper" / "two.nii.gz")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "deeper" / "two.nii.gz").read_bytes()


def test_a_nifti_file_states_its_position_twice_and_its_unit(tmp_path):
    affine = np.array([[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
    save_nifti(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), affine, tmp_path / "a.nii.gz")
    image = nib.load(tmp_path / "a.nii.gz")
    for stored, code in (image.header.get_sform(coded=True), image.header.get_qform(coded=True)):
        np.testing.assert_allclose(stored, affine, atol=1e-5)
        assert code == 2
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.arange(24).reshape(2, 3, 4))
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[:4] == b"\x5c\x01\0\0"


def test_json_is_readable_and_refuses_what_json_lacks(tmp_path):
    save_json({"name": "Müller", "values": [1, 2.5]}, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"name": "Müller", "values": [1, 2.5]}
    assert "Müller" in text and text.endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        save_json(float("nan"), tmp_path / "b.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json"]


def test_sha256_is_that_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_only_the_leftovers_of_dead_processes_are_removed(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    names = [f".{int(ended.stdout)}.a.nii.gz", f".{os.getpid()}.b.nii.gz", ".hidden.txt", "c.nii.gz"]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
