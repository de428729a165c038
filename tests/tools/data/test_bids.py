import pytest

from common.errors import RegInputError
from tools.data.bids import find_bids, is_bids

FMRIPREP = "derivatives/fmriprep"


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


@pytest.fixture
def bids(tmp_path):
    """Two subjects, one of whom came twice, and what fMRIPrep made of them."""
    return touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-01/anat/sub-01_T1w.json",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
        "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii",
        f"{FMRIPREP}/sub-01/anat/sub-01_dseg.nii.gz",
        f"{FMRIPREP}/sub-01/anat/sub-01_space-MNI152_dseg.nii.gz",
        f"{FMRIPREP}/sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        f"{FMRIPREP}/sub-01/anat/sub-01_desc-head_mask.nii.gz",
        f"{FMRIPREP}/sub-02/ses-b/anat/sub-02_ses-b_space-T1w_dseg.nii.gz",
    )


def test_images_are_found_with_what_belongs_to_them(bids):
    scans = find_bids(bids)
    assert [(scan.name, scan.subject) for scan in scans] == [
        ("sub-01_T1w", "sub-01"),
        ("sub-02_ses-a_T1w", "sub-02"),
        ("sub-02_ses-b_T1w", "sub-02"),
    ]
    assert [scan.label and scan.label.name for scan in scans] == [
        "sub-01_dseg.nii.gz",
        None,
        "sub-02_ses-b_space-T1w_dseg.nii.gz",
    ]
    assert [scan.mask and scan.mask.name for scan in scans] == ["sub-01_desc-brain_mask.nii.gz", None, None]


def test_another_suffix_finds_other_images(bids):
    assert [scan.name for scan in find_bids(bids, "T2w")] == ["sub-01_T2w"]


def test_the_file_of_the_run_wins_over_that_of_the_subject(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_run-1_T1w.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_dseg.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_run-1_dseg.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_run-2_dseg.nii.gz",
    )
    assert find_bids(tmp_path)[0].label.name == "sub-01_run-1_dseg.nii.gz"


def test_several_segmentations_are_told_and_chosen_by_desc(tmp_path):
    folder = f"{FMRIPREP}/sub-01/anat"
    files = [f"{folder}/sub-01_desc-{desc}_dseg.nii.gz" for desc in ("aseg", "aparcaseg")]
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", *files)
    with pytest.raises(RegInputError, match=r"has 2 files for its label.*--dseg DESC"):
        find_bids(tmp_path)
    assert find_bids(tmp_path, dseg="aseg")[0].label.name == "sub-01_desc-aseg_dseg.nii.gz"


def test_a_data_set_without_the_images_is_refused(bids):
    assert is_bids(bids) and not is_bids(bids / "sub-01")
    with pytest.raises(RegInputError, match="--suffix"):
        find_bids(bids, "FLAIR")
