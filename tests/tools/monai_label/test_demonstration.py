import nibabel as nib
import pytest

from common.errors import RegInputError
from tools.monai_label.demonstration import write_demonstration


def test_some_studies_have_labels_and_the_truth_of_the_others_is_apart(tmp_path):
    studies = write_demonstration(tmp_path / "demo", labelled=2, unlabelled=1, size=(16, 16, 20))
    names = [f"phantom_{k:03d}.nii.gz" for k in range(3)]
    assert sorted(path.name for path in studies.glob("*.nii.gz")) == names
    assert sorted(path.name for path in (studies / "labels" / "final").iterdir()) == names[:2]
    assert [path.name for path in (tmp_path / "demo" / "truth").iterdir()] == names[2:]
    assert nib.load(studies / names[0]).shape == (16, 16, 20)


def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    assert write_demonstration(tmp_path) == studies
    assert not list(studies.iterdir())


def test_another_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RegInputError, match="holds something else"):
        write_demonstration(tmp_path)
