import nibabel as nib
import numpy as np
import pytest

from common.errors import RegInputError

pytest.importorskip("monailabel", reason="MONAI Label is in the environment of `make test-label`")

from tools.monai_label.studies import Studies, UnknownStudyError

pytestmark = pytest.mark.label


def write(path, values, affine=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)


@pytest.fixture
def folder(tmp_path):
    """Study a with a label, b without; and what lies outside of the studies folder."""
    image = np.arange(512, dtype=np.int16).reshape(8, 8, 8)
    for path in ("studies/a.nii.gz", "studies/b.nii.gz", "outside.nii.gz"):
        write(tmp_path / path, image)
    write(tmp_path / "studies/labels/final/a.nii.gz", (image > 200).astype(np.uint8))
    return tmp_path / "studies"


def test_a_study_is_found_by_its_id(folder):
    studies = Studies(str(folder))
    assert studies.image_path("a") == folder / "a.nii.gz"
    assert studies.final_label("a") == folder / "labels" / "final" / "a.nii.gz"
    assert studies.labelled() == ["a"]
    with pytest.raises(UnknownStudyError, match="'b' has no label"):
        studies.final_label("b")


def test_a_link_to_a_file_outside_of_the_folder_is_no_study(folder):
    (folder / "link.nii.gz").symlink_to(folder.parent / "outside.nii.gz")
    studies = Studies(str(folder))
    assert "link" in studies.list_images()
    with pytest.raises(UnknownStudyError, match="image is 'link'"):
        studies.image_path("link")


def test_a_study_whose_label_is_a_link_outside_is_not_offered(folder):
    (folder / "labels" / "final" / "b.nii.gz").symlink_to(folder.parent / "outside.nii.gz")
    studies = Studies(str(folder))
    assert studies.labelled() == ["a"]
    with pytest.raises(UnknownStudyError):
        studies.final_label("b")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", ".x", ""])
def test_nothing_is_taken_in_under_a_path(folder, name):
    before = sorted(folder.parent.rglob("*"))
    studies = Studies(str(folder))
    with pytest.raises(RegInputError, match="it is no path"):
        studies.add_image(name, str(folder.parent / "outside.nii.gz"), {})
    with pytest.raises(RegInputError, match="it is no path"):
        studies.save_label("b", str(folder / "labels" / "final" / "a.nii.gz"), name, {})
    ours = {folder / name for name in (".lock", "datastore_v2.json", "labels/original")}
    assert set(folder.parent.rglob("*")) - set(before) <= ours


def test_a_label_on_another_grid_is_refused(folder, tmp_path):
    write(tmp_path / "moved.nii.gz", np.ones((8, 8, 8), np.uint8), np.diag([2.0, 2, 3, 1]))
    with pytest.raises(RegInputError, match="expected that of"):
        Studies(str(folder)).save_label("b", str(tmp_path / "moved.nii.gz"), "final", {})
    assert not (folder / "labels" / "final" / "b.nii.gz").exists()


def test_an_image_that_is_taken_in_is_a_study_and_a_second_one_of_its_name_is_refused(folder):
    studies = Studies(str(folder))
    studies.add_image("c", str(folder.parent / "outside.nii.gz"), {})
    assert studies.image_path("c").read_bytes() == (folder.parent / "outside.nii.gz").read_bytes()
    with pytest.raises(RegInputError, match="there is a study 'c'"):
        studies.add_image("c", str(folder.parent / "outside.nii.gz"), {})


def test_a_label_is_removed_and_no_longer_known(folder):
    studies = Studies(str(folder))
    studies.remove_label("a", "final")
    assert studies.labelled() == []
    with pytest.raises(UnknownStudyError):
        studies.remove_label("a", "final")
