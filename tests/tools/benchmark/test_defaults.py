"""What the default trainings on the phantom take and give, of a small one."""

import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.defaults import benchmark_defaults

TINY = {
    "dataset_dir::size": [32, 32, 32],
    "dataset_dir::subjects": 2,
    "max_epochs": 1,
    "steps_per_epoch": 2,
    "val_interval": 1,
}


@pytest.mark.slow
def test_a_row_tells_the_time_and_dice_before_and_after(tmp_path):
    said = []
    options = {"work": tmp_path / "work", "settings": TINY, "threads": 1, "command": "command", "say": said.append}
    with benchmark_defaults(tmp_path / "results", ["voxelmorph"], **options).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["bundle"] == "voxelmorph" and row["command"] == "command" and row["threads"] == "1" and row["commit"]
    assert float(row["training_s"]) > 0 and len(said) == 1
    for section in ("validation", "testing"):
        before, after = (float(row[f"{section}_dice_{when}"]) for when in ("before", "after"))
        assert 0 < before < 1 and 0 < after < 1
    assert (tmp_path / "work/voxelmorph/models/model.pt").is_file()
    with pytest.raises(RegInputError, match="is there already"):
        benchmark_defaults(tmp_path / "results", ["voxelmorph"], **options)


@pytest.mark.parametrize(
    ("bundles", "device", "message"),
    [
        ([], "cpu", "no bundle"),
        (["vgg"], "cpu", "no bundle 'vgg'"),
        (["svf"], "cpu", "nothing to train"),
        (["eoir"], "tpu", "tpu"),
    ],
)
def test_a_wrong_request_is_refused_before_any_run(bundles, device, message, tmp_path):
    with pytest.raises(RegInputError, match=message):
        benchmark_defaults(tmp_path / "results", bundles, work=tmp_path / "work", device=device)
    assert not list(tmp_path.iterdir())
