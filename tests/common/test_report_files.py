"""The report beside a registration's other files."""

import json

import pytest
import torch

from common.metrics import hd95_mm
from common.outputs import SaveRegistrationd, read_volume
from tests.common.scan_pair import write_pair
from tests.common.test_outputs import answered


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> dict[str, str]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def folder(pair, tmp_path_factory):
    """What a registration leaves with its report."""
    out = tmp_path_factory.mktemp("out")
    save = SaveRegistrationd(str(out), picture=False, about={"bundle": "toy"}, label_names={1: "blob"})
    save.seconds = 2.5
    save(answered(pair) | {"seconds_by_step": {"read": torch.tensor(1.5), "align": 0.5}})
    return out / "fixed__moving"


def test_a_report_and_a_thumbnail_lie_beside_the_results(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"report.html", "thumbnail.jpg"} <= {path.name for path in folder.iterdir()} == set(metrics["files"])
    assert metrics["settings"] == {"bundle": "toy"}
    assert "1 blob" in (folder / "report.html").read_text()


def test_seconds_are_told_by_step(folder):
    """What was measured before comes first, as numbers; writing the report is among them though it cannot show it."""
    seconds = json.loads((folder / "metrics.json").read_text())["seconds_by_step"]
    assert list(seconds)[:3] == ["read", "align", "network"]
    assert (seconds["read"], seconds["align"], seconds["network"]) == (1.5, 0.5, 2.5)
    assert {"fields", "warp", "scores", "write", "report"} <= set(seconds) and all(v >= 0 for v in seconds.values())


def test_surface_distances_are_in_mm_of_the_fixed_grid(pair, folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    labels = [read_volume(path, 3)[0].int() for path in (folder / "warped_label.nii.gz", pair["fixed_label"])]
    expected = float(hd95_mm(*labels, [1], [1.4, 1.6, 3.0])[0, 0])
    assert metrics["hd95_mm"] == metrics["hd95_mm_per_label"]["1"] == pytest.approx(expected, rel=1e-5)
    assert metrics["hd95_mm_before"] > metrics["hd95_mm"] and metrics["dice_per_label_before"]["1"] < metrics["dice"]


def test_a_report_that_fails_leaves_the_registration_whole(pair, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("no picture")

    monkeypatch.setattr("common.report_files.save_page", fail)
    SaveRegistrationd(str(tmp_path), picture=False)(answered(pair))
    folder = tmp_path / "fixed__moving"
    assert (folder / "warped.nii.gz").is_file() and not (folder / "report.html").exists()
    assert (
        "no picture" in caplog.text and "report.html" not in json.loads((folder / "metrics.json").read_text())["files"]
    )


def test_a_report_can_be_left_out(pair, tmp_path):
    SaveRegistrationd(str(tmp_path), picture=False, report=False)(answered(pair))
    metrics = json.loads((tmp_path / "fixed__moving" / "metrics.json").read_text())
    assert not {"report.html", "thumbnail.jpg"} & set(metrics["files"]) and "hd95_mm" not in metrics
