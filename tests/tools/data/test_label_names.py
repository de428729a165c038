import pytest

from common.errors import RegInputError
from tools.data.label_names import read_label_names

NAMES = {3: "left cortex", 7: "right, cortex"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.json", '{"0": "air", "3": "left cortex", "7": "right, cortex"}'),
        ("dseg.tsv", "index\tname\tabbreviation\n3\tleft cortex\tL\n7\tright, cortex\tR\n"),
        ("names.csv", '﻿name,color,Label\nleft  cortex,red,3\n"right, cortex",blue,7\n'),
        ("bare.csv", '3,left cortex\n7,"right, cortex"\n'),
        ("itk.csv", 'number of it,what\n3,left cortex\n7,"right, cortex"\n'),
    ],
)
def test_values_and_names_are_read(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert read_label_names(tmp_path / file) == NAMES


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.json", "[1, 2]"),
        ("a.json", "{"),
        ("a.csv", ""),
        ("a.csv", "index,name\n3\n"),
        ("a.csv", "index,name\nx,y\n"),
        ("a.csv", "index,name\n3,a\n3,b\n"),
        ("a.csv", "index,name\n-3,a\n"),
        ("a.csv", "index,name\n"),
    ],
)
def test_what_names_no_labels_is_refused(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(RegInputError, match="expected"):
        read_label_names(tmp_path / file)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="does not name labels"):
        read_label_names(tmp_path / "none.csv")
