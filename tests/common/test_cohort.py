"""Many pairs in one run: those that are finished, those that fail, and the table."""

import csv
import json
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, LoadImaged
from torch import nn

from common.cohort import PairEvaluator, PreparePairs, SummarizeRegistrations
from common.errors import RegInputError, RegNumericsError
from common.inference import PairInferer
from common.outputs import SaveRegistrationd
from common.transforms import StackPaird, ToNetworkGridd


class Shift(nn.Module):
    """Answers a constant; counts the pairs; loses its numbers on images whose mean says so."""

    def __init__(self, voxels: float = 1.0) -> None:
        super().__init__()
        self.voxels = nn.Parameter(torch.tensor(voxels))
        self._asked: list[float] = []

    def forward(self, image):
        self._asked.append(float(image[:, 0].mean()))
        if self._asked[-1] > 100:
            raise RegNumericsError("the loss is nan, expected a number; check the image.")
        return self.voxels.expand(len(image), image.ndim - 2, *image.shape[2:])


@pytest.fixture
def pairs(tmp_path) -> list[dict]:
    """Three pairs; of the second the moving file is no image, of the third it is too bright."""
    rng = np.random.default_rng(0)
    pairs = []
    for k, scale in enumerate((1, 1, 1000)):
        pair = {role: str(tmp_path / f"{role}{k}.nii.gz") for role in ("fixed", "moving")}
        for role, path in pair.items():
            image = rng.random((8, 9, 10), dtype=np.float32) * (scale if role == "moving" else 1)
            nib.save(nib.Nifti1Image(image, np.eye(4)), path)
        pairs.append(pair)
    Path(pairs[1]["moving"]).write_text("no image")
    return pairs


def run(pairs: list[dict], out: Path, network: nn.Module, inferer: PairInferer | None = None, **settings):
    """What the bundles' inference.json do; the evaluator."""
    steps = [LoadImaged(["fixed", "moving"], ensure_channel_first=True), ToNetworkGridd(None, None), StackPaird()]
    save = SaveRegistrationd(str(out), picture=False, report=False, **settings)
    data = Dataset(pairs, PreparePairs(Compose(steps), save, [network]))
    evaluator = PairEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=1),
        network=network,
        inferer=inferer or PairInferer(),
        postprocessing=Compose([save]),
        val_handlers=[SummarizeRegistrations(save)],
    )
    evaluator.run()
    return evaluator


def test_a_pair_that_fails_is_told_at_the_end_and_the_others_are_done(pairs, tmp_path):
    out, network = tmp_path / "out", Shift()
    with pytest.raises(RegInputError) as caught:
        run(pairs, out, network)
    text = str(caught.value)
    assert text.startswith("2 of 3 pairs failed") and "moving1.nii.gz" in text and "the loss is nan" in text
    assert "\n" not in text and len(network._asked) == 2
    assert {path.name for path in out.iterdir()} == {"fixed0__moving0", "metrics.csv", "failures.csv"}


def failed(folder: Path) -> list[dict[str, str]]:
    """The rows of the table of failures."""
    with (folder / "failures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_pairs_that_fail_stand_in_a_table_until_they_succeed(pairs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RegInputError):
        run(pairs, out, Shift())
    refused, lost = failed(out)
    assert (refused["pair"], refused["fixed"], refused["moving"]) == (
        "fixed1__moving1",
        "fixed1.nii.gz",
        "moving1.nii.gz",
    )
    assert "moving1.nii.gz" in refused["sentence"] and lost["sentence"].startswith("the loss is nan")
    shutil.copy(pairs[0]["moving"], pairs[1]["moving"])
    with pytest.raises(RegNumericsError):
        run(pairs, out, Shift())
    assert [row["pair"] for row in failed(out)] == ["fixed2__moving2"]
    run(pairs[:2], out, Shift())
    assert not (out / "failures.csv").exists()


def test_a_table_of_failures_that_cannot_be_written_hides_no_sentence(pairs, tmp_path, caplog):
    out = tmp_path / "out"
    (out / "failures.csv").mkdir(parents=True)
    with pytest.raises(RegInputError, match="2 of 3 pairs failed"):
        run(pairs, out, Shift())
    assert "failures.csv could not be written" in caplog.text


def test_a_pair_alone_fails_with_its_own_error(pairs, tmp_path):
    with pytest.raises(RegNumericsError, match=r"^the loss is nan"):
        run(pairs[2:], tmp_path / "out", Shift(), own_folder=True)
    assert not (tmp_path / "out").exists()


def test_a_sheared_fixed_image_is_refused_by_its_name_before_any_work(pairs, tmp_path):
    sheared, network = np.eye(4), Shift()
    sheared[0, 1] = 0.2
    nib.save(nib.Nifti1Image(nib.load(pairs[0]["fixed"]).get_fdata(), sheared), pairs[0]["fixed"])
    with pytest.raises(RegInputError, match=r"fixed0.nii.gz cannot be the fixed image: the grid is sheared"):
        run(pairs[:1], tmp_path / "out", network)
    assert not network._asked


def test_what_is_finished_is_not_done_again(pairs, tmp_path):
    out, first, second = tmp_path / "out", Shift(), Shift()
    run(pairs[:1], out, first)
    folder = out / "fixed0__moving0"
    before = (folder / "displacement.nii.gz").stat().st_mtime_ns
    table = (out / "metrics.csv").read_text()
    run(pairs[:1], out, second)
    assert second._asked == [] and (folder / "displacement.nii.gz").stat().st_mtime_ns == before
    assert (out / "metrics.csv").read_text() == table


@pytest.mark.parametrize("what", ["weights", "image", "settings"])
def test_what_depends_on_something_else_is_refused_or_replaced_by_force(pairs, tmp_path, what):
    out = tmp_path / "out"
    run(pairs[:1], out, Shift())
    network, settings = Shift(2.0 if what == "weights" else 1.0), {"inverse": False} if what == "settings" else {}
    if what == "image":
        shutil.copy(pairs[0]["fixed"], pairs[0]["moving"])
    with pytest.raises(RegInputError, match="other images, weights or settings"):
        run(pairs[:1], out, network, **settings)
    old = json.loads((out / "fixed0__moving0" / "metrics.json").read_text())["fingerprint"]
    run(pairs[:1], out, network, force=True, **settings)
    assert json.loads((out / "fixed0__moving0" / "metrics.json").read_text())["fingerprint"] != old


def test_each_step_of_the_way_is_timed(pairs, tmp_path):
    run(pairs[:1], tmp_path / "out", Shift())
    content = json.loads((tmp_path / "out" / "fixed0__moving0" / "metrics.json").read_text())
    seconds = content["seconds_by_step"]
    assert {"read", "prepare", "network", "fields", "write"} <= set(seconds)
    assert seconds["network"] == content["seconds"] and 0 < seconds["read"] < 60


def test_an_interrupted_run_goes_on(pairs, tmp_path):
    """The pair whose folder is not whole is done again, the finished one is not."""
    good = [pairs[0], pairs[0] | {"fixed": pairs[2]["fixed"]}]
    out, network = tmp_path / "out", Shift()
    run(good, out, network)
    shutil.rmtree(out / "fixed2__moving0")
    (out / ".999999999.new.fixed2__moving0").mkdir()  # what a killed process leaves
    run(good, out, network)
    assert len(network._asked) == 3
    assert {path.name for path in out.iterdir()} == {"fixed0__moving0", "fixed2__moving0", "metrics.csv"}


@pytest.mark.parametrize("own_folder", [False, True])
def test_what_killed_runs_left_goes_though_all_is_finished(pairs, tmp_path, own_folder):
    out = tmp_path / "results" / "out"
    run(pairs[:1], out, Shift(), own_folder=own_folder)
    expected = {path.name for path in (out.parent if own_folder else out).iterdir()}
    ((out.parent if own_folder else out) / ".999999999.metrics.csv").touch()
    run(pairs[:1], out, Shift(), own_folder=own_folder)
    assert {path.name for path in (out.parent if own_folder else out).iterdir()} == expected


def test_the_table_has_a_row_a_pair_and_the_means(pairs, tmp_path, caplog):
    caplog.set_level("INFO", logger="common.cohort")
    good = [pairs[0], pairs[0] | {"fixed": pairs[2]["fixed"]}]
    run(good, tmp_path / "out", Shift())
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert [row["fixed"] for row in rows] == ["fixed0.nii.gz", "fixed2.nii.gz", "mean"]
    seconds = [float(row["seconds"]) for row in rows]
    assert 0 < seconds[2] == pytest.approx((seconds[0] + seconds[1]) / 2) and "files" not in rows[0]
    states = [row["verdict"] for row in rows[:2]]  # of noise that is shifted
    assert "ok" not in states and "contrast" in rows[0]["reasons"] and rows[2]["verdict"] == ""
    assert f"2 pairs: {states.count('check') or states.count('failed')} {states[0]}" in caplog.text


def test_seconds_are_the_registrations_alone_and_starts_are_told_apart(pairs, tmp_path):
    class Slow(Shift):
        def forward(self, image):
            time.sleep(0.2)
            return super().forward(image)

    run(pairs[:1], tmp_path / "out", Slow(), inferer=PairInferer(check_starts=2))
    row = json.loads((tmp_path / "out" / "fixed0__moving0" / "metrics.json").read_text())
    assert 0.2 <= row["seconds"] == row["seconds_by_step"]["network"] < 0.4 <= row["seconds_by_step"]["starts"]
