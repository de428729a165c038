import pytest

from common.errors import RegInputError
from tools.data.scan_tables import read_pair_table, read_scan_table


def table(path, text):
    path.write_text(text)
    return path


def test_a_row_is_a_scan_with_paths_relative_to_the_table(tmp_path):
    text = "﻿image,subject,label,keypoints,section\na.nii.gz,Ann,seg/a.nii.gz,,training\n/data/b.mha,,,b.vtk,testing\n"
    ann, other = read_scan_table(table(tmp_path / "scans.csv", text))
    assert (ann.image, ann.label, ann.landmarks) == (tmp_path / "a.nii.gz", tmp_path / "seg/a.nii.gz", None)
    assert (ann.subject, ann.section, ann.name) == ("Ann", "training", "a")
    assert (str(other.image), other.landmarks, other.subject) == ("/data/b.mha", tmp_path / "b.vtk", "b")


def test_tabs_part_the_cells_of_a_tsv(tmp_path):
    assert read_scan_table(table(tmp_path / "scans.tsv", "image\tmask\na.nii\tm.nii\n"))[0].mask == tmp_path / "m.nii"


def test_a_row_is_a_pair_and_a_scan_may_be_in_several(tmp_path):
    text = "fixed,moving,fixed_mask,subject,moving_subject\nf.mha,m.mha,k.mha,Ann,\nf.mha,n.mha,k.mha,Ann,Bob\n"
    first, second = read_pair_table(table(tmp_path / "pairs.csv", text))
    assert first.fixed == second.fixed and first.fixed.mask == tmp_path / "k.mha"
    assert [(p.fixed.subject, p.moving.subject) for p in (first, second)] == [("Ann", "Ann"), ("Ann", "Bob")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no column 'image'"]),
        ("image\n", ["has no row"]),
        ("image,lable\na,b\n", ["column 'lable' 1 times"]),
        ("image,image\na,b\n", ["column 'image' 2 times"]),
        ("image,label\n,b\na,b,c\n", ["line 2 has no image", "line 3 has more cells"]),
        ("image,section\na,train\na,training\n", ["line 2 has the section 'train'", "line 3 has the image"]),
        ("image,landmarks,keypoints\na,b,c\n", ["keep one"]),
    ],
)
def test_every_fault_of_a_table_of_scans_is_told(tmp_path, text, words):
    with pytest.raises(RegInputError) as error:
        read_scan_table(table(tmp_path / "scans.csv", text))
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fixed\na\n", ["no column 'moving'"]),
        ("fixed,moving\na,a\n", ["as fixed and moving"]),
        ("fixed,moving\na,b\na,b\n", ["lines 2 and 3 hold the same pair"]),
        ("fixed,moving,fixed_label\na,b,l\na,c,k\n", ["lines 2 and 3 give"]),
        ("fixed,moving,fixed_subject\na,b,Ann\na,c,Bob\n", ["another subject"]),
    ],
)
def test_every_fault_of_a_table_of_pairs_is_told(tmp_path, text, words):
    with pytest.raises(RegInputError) as error:
        read_pair_table(table(tmp_path / "pairs.csv", text))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="is no table"):
        read_pair_table(tmp_path / "none.csv")
