import pytest

from tools.data.fetch.names import folded, name_finding, path_finding, shown


@pytest.mark.parametrize(
    "name", ["OAS1_0001_MR1", "scan 1 (2).nii.gz", "Müller", "a..b", ".hidden", "console", "x" * 255]
)
def test_names_of_scans_are_fine(name):
    assert name_finding(name) is None
    assert path_finding(f"./data//{name}/") is None


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "CON", "lpt1.nii", "a.", "a\0", "a\x7f", "é" * 128, "\udcff"]
)
def test_names_that_some_system_takes_for_something_else_are_not(name):
    assert name_finding(name) is not None


@pytest.mark.parametrize("name", ["/a", "a/../b", "..", "d:/a", "a\\..\\b", "a/CON/b", "x/" * 600])
def test_paths_that_lead_elsewhere_are_not(name):
    assert path_finding(name) is not None


@pytest.mark.parametrize(
    ("one", "other"), [("Scan", "scan"), ("\u00e9", "e\u0301"), ("\u00c9", "e\u0301"), ("ß", "SS")]
)
def test_names_that_some_file_system_takes_for_one_are_one(one, other):
    assert folded(one) == folded(other)


def test_a_strange_name_is_shown_in_plain_letters():
    assert shown("a\x1b[2J\u202e\n") == r"'a\x1b[2J\u202e\n'"
    assert len(shown("x" * 1000)) < 100
