import nibabel as nib
import numpy as np
import pytest

from common.errors import RegEnvError, RegInputError

pytest.importorskip("monailabel", reason="MONAI Label is in the environment of `make test-label`")

from tools.monai_label.fine_tune import alignment_of, can_train, check_trainable, run, sections_of
from tools.monai_label.served import read_bundle
from tools.repository import REPOSITORY

pytestmark = pytest.mark.label


@pytest.mark.parametrize(("name", "trains"), [("eoir", True), ("svf", False), ("ncf", False), ("patch_fcn", False)])
def test_a_bundle_is_trained_if_it_has_weights_and_takes_any_number_of_epochs(name, trains):
    assert can_train(read_bundle(REPOSITORY / "bundles" / name)) is trains


@pytest.mark.parametrize(("count", "share", "validating"), [(4, 0.25, 2), (5, 0.5, 2), (12, 0.25, 3), (4, 0.5, 2)])
def test_the_last_studies_validate_and_both_sides_can_make_a_pair(count, share, validating):
    names = [f"s{k:02d}" for k in range(count)]
    sections = list(sections_of(names, share).values())
    assert sections == ["training"] * (count - validating) + ["validation"] * validating


class Labelled:
    """Studies of which so many have a label."""

    def __init__(self, count: int) -> None:
        self.count = count

    def labelled(self) -> list[str]:
        return [f"s{k}" for k in range(self.count)]


def test_three_labelled_studies_are_too_few(tmp_path):
    bundle = read_bundle(REPOSITORY / "bundles" / "eoir")
    check_trainable(bundle, Labelled(4))
    with pytest.raises(RegInputError, match=r"3 studies have a label .* expected at least 4"):
        check_trainable(bundle, Labelled(3))


def test_weights_whose_hash_is_stated_stay(tmp_path):
    (tmp_path / "large_files.yml").write_text("large_files:\n- {path: models/model.pt, hash_val: '00'}\n")
    bundle = read_bundle(REPOSITORY / "bundles" / "eoir")
    with pytest.raises(RegInputError, match=r"large_files.yml states its weights"):
        check_trainable(type(bundle)(tmp_path, *list(vars(bundle).values())[1:]), Labelled(4))


def test_studies_on_one_grid_are_left_there_and_others_aligned_to_the_first(tmp_path):
    paths = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    for path, spacing in zip(paths, (2.0, 2.0, 3.0), strict=True):
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([spacing, 2, 2, 1])), path)
    assert alignment_of(paths[:2]) == {}
    assert alignment_of(paths) == {"template": paths[0], "align": "affine"}


def test_a_training_that_fails_is_told_by_its_last_line():
    run(["true"])
    with pytest.raises(RegEnvError, match=r"status 3 \(the sentence\.\); the weights are as they were"):
        run(["sh", "-c", "echo traceback; echo 'the sentence.' >&2; exit 3"])
