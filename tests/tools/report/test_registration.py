import math
import os

import pytest

from tools.report.pair import Gathered
from tools.report.registration import add_registration, files_of, numbers_of

from .folders import write_pair


def read(folder, name="metrics.json"):
    found = Gathered()
    add_registration(folder / name, folder.name, os.listdir(folder), found)
    return found


def test_a_pair_is_all_that_its_folder_says(tmp_path):
    content = {"dice": 0.7, "verdict": "check", "reasons": ["a < b", "c"], "settings": {"bundle": "svf"}}
    files = ("report.html", "thumbnail.jpg", "registration.png")
    (pair,) = read(write_pair(tmp_path / "p", files=files, **content)).pairs
    assert (pair.name, pair.folder, pair.fixed, pair.moving) == ("p", "p", "fixed.nii.gz", "moving.nii.gz")
    assert (pair.verdict, pair.reasons, pair.method) == ("check", ("a < b", "c"), "svf")
    assert pair.numbers == {"dice": 0.7}
    assert pair.files == {"report": "report.html", "thumbnail": "thumbnail.jpg", "picture": "registration.png"}


def test_bids_names_are_found_by_their_ends():
    start = "sub-02_space-sub01T1w_desc-registration"
    files = [f"{start}_metrics.json", f"{start}_report.html", f"{start}_figure.png", "sub-02_thumbnail.jpg"]
    assert files_of(files) == {
        "report": f"{start}_report.html", "picture": f"{start}_figure.png", "thumbnail": "sub-02_thumbnail.jpg"
    }  # fmt: skip
    assert files_of(["myreport.html", "warped.nii.gz"]) == {}


def test_a_folder_before_the_self_check_has_no_verdict(tmp_path):
    (pair,) = read(write_pair(tmp_path / "p")).pairs
    assert pair.verdict is None and pair.reasons == () and pair.method == "" and pair.files == {}


@pytest.mark.parametrize(
    "content",
    [
        {"verdict": "fine", "reasons": "none", "settings": [], "signals": 3},
        {"verdict": ["ok"], "reasons": [1, None], "settings": {"bundle": 3}, "seconds_by_step": "x"},
    ],
)
def test_values_of_another_kind_are_as_if_missing(tmp_path, content):
    (pair,) = read(write_pair(tmp_path / "p", **content)).pairs
    assert pair.verdict is None and pair.reasons == () and pair.method == "" and pair.numbers == {}


def test_numbers_are_scores_signals_and_the_sum_of_all_steps():
    content = {"dice": 0.7, "seconds": 2, "dice_per_label": {"1": 0.7}, "inverse_residual_mm": None, "sdlogj": math.nan}
    content |= {"signals": {"similarity_gain": 0.2, "unknown": None, "dice": 0.1}, "files": ["a"]}
    content |= {"seconds_by_step": {"read": 0.5, "network": 2.0, "odd": "x"}}
    assert numbers_of(content) == {"dice": 0.7, "seconds": 2.0, "similarity_gain": 0.2, "seconds_total": 2.5}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "could not be read"),
        ("[1, 2]", "nothing of a registration"),
        ('{"accuracy": 1}', "nothing of a registration"),
        ('{"fixed": 1, "moving": "a"}', "nothing of a registration"),
        ("[" * 100000, "could not be read"),
        ("\udcff", "could not be read"),
    ],
)
def test_foreign_and_broken_files_are_left_out_by_name(tmp_path, text, why):
    (tmp_path / "metrics.json").write_bytes(text.encode(errors="surrogateescape"))
    found = read(tmp_path)
    assert not found.pairs and why in found.left_out[0].why
    assert found.left_out[0].path == f"{tmp_path.name}/metrics.json"


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.json")
    assert "ordinary file" in read(tmp_path).left_out[0].why


def test_a_file_larger_than_any_of_ours_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.report.registration.LARGEST", 10)
    assert "at most 10 bytes" in read(write_pair(tmp_path / "p")).left_out[0].why


def test_what_vanishes_meanwhile_is_no_finding(tmp_path):
    (tmp_path / "p").mkdir()
    found = read(tmp_path / "p")
    assert not found.pairs and not found.left_out
