"""Pages that evaluations and validations leave."""

import json
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from common.pair_reports import WorstPairs, WriteReports, images_in, view_in
from common.scoring import MeanDice, MeanTRE

HEADER = {"spacing_mm": [1.0, 1.5, 2.0], "orientation": "LIA", "labels": {2: "cube"}}


def item(shift: int, points: bool = False) -> dict:
    """A cube of label 2 that lies one voxel off, and a field that moves it by ``shift`` voxels, decollated."""
    fixed, moving = torch.zeros(2, 1, 8, 9, 10, dtype=torch.int32)
    fixed[:, 2:5, 2:5, 2:5], moving[:, 3:6, 2:5, 2:5] = 2, 2
    ddf = torch.zeros(3, 8, 9, 10)
    ddf[0] = shift
    label = {"fixed_label": fixed, "moving_label": moving}
    if points:
        keypoints = torch.tensor([[3.0, 3.0, 3.0], [4.0, 4.0, 4.0]])
        label |= {"fixed_keypoints": keypoints, "moving_keypoints": keypoints + torch.tensor([1.0, 0, 0])}
    return {"image": torch.cat([moving, fixed]).float(), "pred": ddf, "label": label}


def test_the_moving_image_is_the_first_channel_and_is_warped():
    images, ddf, _ = images_in([item(1)])
    assert torch.equal(images.warped, images.fixed) and not torch.equal(images.moving, images.fixed)
    assert torch.equal(images.warped_label, images.fixed_label) and ddf.shape == (1, 3, 8, 9, 10)


def test_a_batch_and_a_list_of_its_pairs_are_the_same():
    one = item(1)
    batch = {key: value[None] for key, value in one.items() if key != "label"}
    batch["label"] = {key: value[None] for key, value in one["label"].items()}
    (first, ddf, _), (second, other, _) = images_in([one]), images_in(batch)
    assert torch.equal(ddf, other) and torch.equal(first.warped_label, second.warped_label)


def test_a_view_lies_on_the_grid_of_the_data_set():
    images, ddf, _ = images_in([item(0)])
    view = view_in(images, ddf, HEADER)
    assert (view.spacing_mm, view.orientation) == ([1.0, 1.5, 2.0], "LIA")
    assert (view_in(images, ddf).spacing_mm, view_in(images, ddf).orientation) == ([1.0] * 3, "RAS")


@pytest.mark.parametrize(("count", "kept"), [(2, "bd"), (-1, "abcde"), (0, ""), (9, "abcde")])
def test_the_worst_are_kept_whatever_the_order(tmp_path, count, kept):
    """NaN is better than any number, and of two that are alike the first stays."""
    worst = WorstPairs(tmp_path, count)
    for name, badness in zip("abcde", (0.1, 0.9, math.nan, 0.5, 0.5), strict=True):
        worst.offer(name, badness, lambda folder, name=name: (folder / "x").write_text(name))
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    assert all((tmp_path / name / "x").read_text() == name for name in kept)


def evaluated(folder, metric, items, **settings) -> None:
    """Run an engine over the items as MONAI's evaluators do: the metric is attached first."""
    pairs = [{"fixed": f"/x/f{k}.nii.gz", "moving": f"/x/m{k}.nii.gz"} for k in range(len(items))]
    engine = Engine(lambda _, batch: [batch])
    engine.data_loader = items
    metric.attach(engine, "score")
    WriteReports(str(folder), pairs, metric, header=HEADER, about={"bundle": "toy"}, **settings).attach(engine)
    engine.run(items)


def test_an_evaluation_leaves_the_folders_of_its_worst_pairs(tmp_path):
    folder = tmp_path / "reports"
    (folder / "old").mkdir(parents=True)
    evaluated(folder, MeanDice([2]), [item(1), item(-2), item(0)], count=2)
    assert {path.name for path in folder.iterdir()} == {"f1__m1", "f2__m2"}
    assert {path.name for path in (folder / "f1__m1").iterdir()} == {"report.html", "thumbnail.jpg", "metrics.json"}
    metrics = json.loads((folder / "f2__m2" / "metrics.json").read_text())
    assert (metrics["fixed"], metrics["moving"], metrics["settings"]) == ("f2.nii.gz", "m2.nii.gz", {"bundle": "toy"})
    assert metrics["dice"] == metrics["dice_before"] == pytest.approx(2 / 3)
    assert metrics["files"] == ["metrics.json", "report.html", "thumbnail.jpg"]
    assert "2 cube" in (folder / "f2__m2" / "report.html").read_text()


def test_landmarks_choose_pairs_and_are_scored_before_and_after(tmp_path):
    items = [item(1, points=True), item(0, points=True), item(3, points=True)]
    evaluated(tmp_path, MeanTRE(HEADER["spacing_mm"]), items, count=1, lower_is_better=True)
    (folder,) = tmp_path.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert folder.name == "f2__m2"
    assert (metrics["tre_mm_before"], metrics["tre_mm"]) == (pytest.approx(1), pytest.approx(2))


def test_a_report_that_fails_ends_nothing(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("no picture")

    monkeypatch.setattr("common.report_files.save_page", fail)
    evaluated(tmp_path, MeanDice([2]), [item(1)])
    assert [path.name for path in (tmp_path / "f0__m0").iterdir()] == ["metrics.json"]
    assert "no picture" in caplog.text
    assert np.isclose(json.loads((tmp_path / "f0__m0" / "metrics.json").read_text())["dice"], 1)
