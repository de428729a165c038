import os

import pytest

from common.errors import RegEnvError, RegInputError
from common.files import save_atomically, whole_folder


def test_the_file_appears_whole_in_a_new_folder(tmp_path):
    save_atomically(lambda path: path.write_text("all"), tmp_path / "a" / "b.txt")
    assert (tmp_path / "a" / "b.txt").read_text() == "all"


@pytest.mark.parametrize(
    ("failure", "raised"), [(OSError("disk full"), RegEnvError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, failure, raised):
    target = tmp_path / "b.txt"
    target.write_text("old")

    def write(path):
        path.write_text("ha")
        raise failure

    with pytest.raises(raised):
        save_atomically(write, target)
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"] and target.read_text() == "old"


def test_the_temporary_name_keeps_the_suffix(tmp_path):
    names = []
    save_atomically(lambda path: (names.append(path.name), path.touch()), tmp_path / "image.nii.gz")
    assert names[0].endswith(".nii.gz") and names[0] != "image.nii.gz"


def test_a_folder_that_cannot_be_made_is_an_environment_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegEnvError, match="could not be written"):
        save_atomically(lambda path: path.touch(), tmp_path / "file" / "b.txt")


def filled(folder, *names):
    """A folder with files that hold their names."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    return folder


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    target = filled(tmp_path / "out", "old")
    with whole_folder(target) as folder:
        (folder / "new").write_text("new")
        assert content(target) == {"old": "old"}
    assert content(target) == {"new": "new"} and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (OSError("disk full"), RegEnvError),
        (RegInputError("bad"), RegInputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failure_leaves_the_old_folder_and_no_other(tmp_path, failure, raised):
    target = filled(tmp_path / "out", "old")
    with pytest.raises(raised), whole_folder(target) as folder:
        (folder / "new").write_text("ha")
        raise failure
    assert content(target) == {"old": "old"} and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_replacement_that_fails_halfway_is_undone(tmp_path, monkeypatch):
    target = filled(tmp_path / "out", "old")
    rename = os.replace

    def fail_second(source, destination):
        if ".new." in str(source):
            raise OSError("gone")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", fail_second)
    with pytest.raises(RegEnvError, match="could not be replaced"), whole_folder(target):
        pass
    assert content(target) == {"old": "old"}


def test_what_a_killed_process_had_moved_away_comes_back(tmp_path):
    filled(tmp_path / ".999999999.old.out", "old")
    filled(tmp_path / ".999999999.new.out", "half")
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert content(tmp_path / "out") == {"old": "old"} and [path.name for path in tmp_path.iterdir()] == ["out"]
