import os

import pytest

from common.errors import RegEnvError, RegInputError
from common.files import remove_leftovers, require_writable, save_atomically, temporary_folder, whole_folder


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


@pytest.mark.parametrize("other", ["later", "out"])
def test_what_a_killed_process_had_moved_away_comes_back_whatever_is_written_next(tmp_path, other):
    filled(tmp_path / ".999999999.old.out", "old")
    with whole_folder(tmp_path / other) as folder:
        assert content(tmp_path / "out") == {"old": "old"}
        (folder / "new").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"out", other}


def test_a_file_that_a_killed_process_left_does_not_come_back(tmp_path):
    (tmp_path / ".999999999.old.csv").write_text("half a table")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_puts_there_in_between_is_replaced_too(tmp_path, monkeypatch):
    target, rename, times = tmp_path / "out", os.replace, []

    def be_overtaken(source, destination):
        if destination == target and len(times) < 2:
            times.append(filled(target, f"theirs{len(times)}"))
        rename(source, destination)

    monkeypatch.setattr(os, "replace", be_overtaken)
    with whole_folder(target) as folder:
        (folder / "new").write_text("new")
    assert len(times) == 2 and content(target) == {"new": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_temporary_folder_goes_and_says_where_there_was_no_room(tmp_path):
    with temporary_folder(tmp_path / "out") as folder:
        filled(folder / "part", "a")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RegEnvError, match=r"out could not be written"), temporary_folder(tmp_path / "out"):
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_could_be_written_is_not_made(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "file/far/below"])
def test_a_folder_in_the_place_of_a_file_is_refused_by_its_whole_path(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(RegEnvError, match=rf"{name} cannot be written to"):
        require_writable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
