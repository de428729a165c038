import pytest

from common.errors import RegEnvError
from common.files import save_atomically


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
