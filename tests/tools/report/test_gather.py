import os

import pytest

from common.errors import RegInputError
from tools.report.gather import gather

from .folders import write_pair

BIDS = "sub-02_space-sub01T1w_desc-registration_metrics.json"


def names(root):
    return [pair.name for pair in gather(root).pairs]


def test_pairs_are_found_at_any_depth_in_the_order_of_names(tmp_path):
    write_pair(tmp_path / "b" / "c")
    write_pair(tmp_path / "a", BIDS)
    (tmp_path / "b" / "notes.json").write_text("{}")
    assert names(tmp_path) == ["a", "b/c"]


def test_one_pairs_own_folder_is_called_by_its_name(tmp_path):
    write_pair(tmp_path / "result")
    assert names(tmp_path / "result") == ["result"]


def test_folders_that_are_being_filled_are_passed_over(tmp_path):
    write_pair(tmp_path / "done")
    write_pair(tmp_path / ".123.new.pair")
    assert names(tmp_path) == ["done"]


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path):
    write_pair(tmp_path / "elsewhere" / "x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "b").symlink_to(tmp_path / "elsewhere" / "x")
    (root / "c").symlink_to(root)
    assert names(root) == ["a/x"]


def test_a_folder_without_any_pair_is_one_sentence(tmp_path):
    with pytest.raises(RegInputError, match=r"no registration, expected folders with a metrics\.json"):
        gather(tmp_path)
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(RegInputError, match=r"no registration \(metrics\.json: could not be read") as stop:
        gather(tmp_path)
    assert "\n" not in str(stop.value)


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(RegInputError, match="is no folder"):
        gather(tmp_path / "no")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_locked_folder_is_named(tmp_path):
    write_pair(tmp_path / "open")
    (tmp_path / "locked").mkdir(mode=0)
    found = gather(tmp_path)
    (tmp_path / "locked").chmod(0o700)
    assert len(found.pairs) == 1 and found.left_out[0].path == "locked"


def test_names_that_are_no_utf8_are_found_and_printable(tmp_path):
    write_pair(tmp_path / os.fsdecode(b"bad\xff"))
    (pair,) = gather(tmp_path).pairs
    assert pair.name == "bad?" and os.fsencode(pair.folder) == b"bad\xff"
