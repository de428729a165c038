"""Names of outputs: plain or BIDS, never one for two, nothing in them that a file system refuses."""

import re
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RegInputError
from common.naming import Names, output_names, stem, unique_names

FORBIDDEN = set('<>:"/\\|?*') | {chr(k) for k in range(32)}
DEVICES = {"con", "prn", "aux", "nul", *(f"{n}{k}" for n, k in product(("com", "lpt"), range(10)))}
# the order of the specification's schema, objects/entities by their short names; from, to, mode as fMRIPrep has them
ORDER = ["sub", "ses", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run"]
ORDER += ["mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas"]
ORDER += ["seg", "scale", "res", "den", "label", "desc", "from", "to", "mode"]


@pytest.mark.parametrize(
    "path, expected",
    [
        ("a/fixed.nii.gz", "fixed"),
        ("fixed.NII.GZ", "fixed"),
        ("scan.mha", "scan"),
        ("scan.nrrd", "scan"),
        ("scan.v2.nii", "scan.v2"),
        ("dose_0.5.nii.gz", "dose_0.5"),
        ("dose_0.5", "dose_0.5"),
        ("no_ending", "no_ending"),
        ("a:b?.nii", "a_b_"),
        ("tail. .nii", "tail"),
        (".nii.gz", "_"),
        ("-rf.nii.gz", "_-rf"),
        (".hidden.nii", "_.hidden"),
        ("nul.nii.gz", "_nul"),
        ("CON.1.nii", "_CON.1"),
        ("concord.nii", "concord"),
        ("Ko\u0308rper.nii", "K\u00f6rper"),
    ],
)
def test_stems(path, expected):
    assert stem(path) == expected


def test_a_folder_keeps_its_own_name(tmp_path):
    (tmp_path / "ct.v1").mkdir()
    assert stem(tmp_path / "ct.v1") == "ct.v1"
    assert stem(f"{tmp_path}/ct.v1#1.2.840") == "ct.v1#1.2.840"
    assert stem("ct.v1") == "ct"
    assert stem("ct#1.v1") == "ct#1"


def test_plain_names():
    names = output_names("a/fixed.nii.gz", "b/moving.mha")
    assert names == Names("fixed__moving")
    assert names.warped == "warped.nii.gz"
    assert names.transform == "transform.h5"


def test_names_of_bids_images():
    names = output_names("sub-01_ses-1_T1w.nii.gz", "sub-02_ses-1_T1w.nii.gz")
    assert names == Names(
        folder="sub-01_ses-1_T1w__sub-02_ses-1_T1w",
        warped="sub-02_ses-1_space-sub01ses1T1w_desc-warped_T1w.nii.gz",
        warped_label="sub-02_ses-1_space-sub01ses1T1w_desc-warped_dseg.nii.gz",
        transform="sub-02_ses-1_from-T1w_to-sub01ses1T1w_mode-image_xfm.h5",
        displacement="sub-02_ses-1_from-T1w_to-sub01ses1T1w_mode-image_xfm.nii.gz",
        inverse_displacement="sub-02_ses-1_from-sub01ses1T1w_to-T1w_mode-image_xfm.nii.gz",
        jacobian="sub-02_ses-1_space-sub01ses1T1w_jacobian.nii.gz",
        error="sub-02_ses-1_space-sub01ses1T1w_error.nii.gz",
        points="sub-02_ses-1_desc-warped_points.csv",
        metrics="sub-02_ses-1_space-sub01ses1T1w_desc-registration_metrics.json",
        picture="sub-02_ses-1_space-sub01ses1T1w_desc-registration_figure.png",
        report="sub-02_ses-1_space-sub01ses1T1w_desc-registration_report.html",
        thumbnail="sub-02_ses-1_space-sub01ses1T1w_desc-registration_thumbnail.jpg",
    )


def test_a_template_is_a_space():
    names = output_names("tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz", "sub-02_desc-preproc_T1w.nii.gz")
    assert names.warped == "sub-02_space-MNI152NLin2009cAsym_desc-preprocWarped_T1w.nii.gz"
    assert names.transform == "sub-02_desc-preproc_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5"


def test_what_was_said_of_the_old_grid_is_not_said_of_the_new():
    names = output_names("sub-01_T2w.nii.gz", "sub-02_space-T1w_res-2_label-L_T1w.nii.gz")
    assert names.warped == "sub-02_space-sub01T2w_label-L_desc-warped_T1w.nii.gz"
    assert names.points == "sub-02_space-T1w_res-2_label-L_desc-warped_points.csv"


@pytest.mark.parametrize(
    "moving",
    [
        "sub-02_ses-1_task-rest_acq-fast_ce-none_rec-a_dir-AP_run-1_echo-2_part-mag_bold.nii.gz",
        "sub-02_run-1_split-2_chunk-1_seg-x_desc-b_dseg.nii",
    ],
)
def test_entities_stand_in_the_order_of_the_specification(moving):
    for name in list(vars(output_names("sub-01_ses-2_T1w.nii.gz", moving)).values())[1:]:
        keys = [part.partition("-")[0] for part in name.partition(".")[0].split("_")[:-1]]
        assert keys == sorted(set(keys), key=ORDER.index)
        assert re.fullmatch(r"(?:[a-z]+-[0-9A-Za-z+]+_)+[0-9A-Za-z]+\.(?:nii\.gz|h5|csv|json|png|html|jpg)", name)


@pytest.mark.parametrize(
    "fixed, moving",
    [
        ("sub-01_T1w.nii.gz", "moving.nii.gz"),
        ("fixed.nii.gz", "sub-01_T1w.nii.gz"),
        ("sub-01_T1w.nii.gz", "tpl-MNI_T1w.nii.gz"),  # a template's derivative would be a subject's
        ("sub-01_T1w.nii.gz", "sub-02_final_T1w.nii.gz"),
        ("sub-01_T1w.nii.gz", "sub-02_run-1_run-2_T1w.nii.gz"),
        ("sub-01_T1w.nii.gz", "ses-1_T1w.nii.gz"),
        ("sub-01_T1w.nii.gz", "sub-02.nii.gz"),
        ("sub-01_T1w.nii.gz", "sub-02_desc-" + "x" * 180 + "_T1w.nii.gz"),
    ],
)
def test_what_is_not_bids_gets_plain_names(fixed, moving):
    names = output_names(fixed, moving)
    assert names == Names(names.folder)


def test_one_file_name_in_many_folders():
    pairs = [("s1/t1.nii.gz", "s2/t1.nii.gz"), ("s1/t1.nii.gz", "s3/t1.nii.gz"), ("s1/t1.nii.gz", "s3/t2.nii.gz")]
    assert [names.folder for names in unique_names(pairs)] == ["s1_t1__s2_t1", "s1_t1__s3_t1", "t1__t2"]


def test_names_from_further_up_where_it_takes_them():
    pairs = [(f"/data/{site}/s1/t1.nii", f"/data/{site}/s2/t1.nii") for site in ("a", "b")]
    assert [names.folder for names in unique_names(pairs)] == ["a_s1_t1__a_s2_t1", "b_s1_t1__b_s2_t1"]


def test_no_two_pairs_share_a_folder():
    names = ["t1.nii.gz", "T1.nii.gz", "t1.mha", "a_b/t1.nii", "a/b_t1.nii", "a/b/t1.nii", "t1:.nii", "t1?.nii"]
    names += ["sub-01_T1w.nii.gz", "sub-1/sub-01_T1w.nii.gz", "x" * 240 + ".nii", "y" + "x" * 239 + ".nii"]
    pairs = list(product(names, names))
    folders = [found.folder.casefold() for found in unique_names(pairs)]
    assert len(set(folders)) == len(pairs)


def test_paths_that_read_alike_are_told_apart():
    """Joined with _ they are one text however far one goes up."""
    folders = [names.folder for names in unique_names([("/a_b/c.nii", "/m.nii"), ("/a/b_c.nii", "/m.nii")])]
    assert len(set(folders)) == 2


def test_a_pair_that_is_there_twice_is_refused():
    with pytest.raises(RegInputError, match=r"m\.nii onto .*f\.nii is listed 2 times, expected once; .*\.$"):
        unique_names([("f.nii", "m.nii"), ("x/../f.nii", "./m.nii")])


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..") and "/" not in text and "\0" not in text))
def test_any_name_becomes_one_for_every_file_system(name):
    found = stem(Path("scans") / name, 1)
    for text in (found, stem(name), output_names(name, name).folder):
        assert text and not FORBIDDEN & set(text)
        assert text == text.rstrip(". ") and text[0] not in ".-"
        assert text.partition(".")[0].casefold() not in DEVICES
        assert len(text.encode()) <= 255 - 20  # a prefix of a temporary name must fit too
