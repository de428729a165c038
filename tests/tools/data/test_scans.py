from pathlib import Path

import pytest

from tools.data.scans import Scan, named, subject_in


def names(*images):
    return [scan.name for scan in named(Scan(Path(image)) for image in images)]


def test_a_scan_is_called_as_its_file_without_the_ending():
    assert names("/a/one.nii.gz", "/a/two.mha") == ["one", "two"]


def test_folders_tell_scans_of_one_name_apart_in_capitals_or_not():
    assert names("/a/s1/T1.nii.gz", "/a/s2/t1.nii.gz", "/a/s1/T2.nii") == ["s1_T1", "s2_t1", "T2"]


def test_the_same_file_has_the_same_name():
    assert names("/a/one.nii.gz", "/a/../a/one.nii.gz") == ["one", "one"]


@pytest.mark.parametrize(
    ("name", "subject"),
    [("sub-01_ses-2_T1w", "sub-01"), ("patient3_baseline", "patient3_baseline"), ("tpl-x_T1w", "tpl-x_T1w")],
)
def test_a_bids_name_states_its_subject(name, subject):
    assert subject_in(name) == subject


def test_a_subject_that_the_user_names_stays():
    assert named([Scan(Path("/a/sub-01_T1w.nii.gz"), subject="Ann")])[0].subject == "Ann"
