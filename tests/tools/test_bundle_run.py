import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from common.errors import RegInputError
from common.phantom import write_phantom
from tools.bundle_run import BundleRun
from tools.evaluate import evaluate

ROOT = Path(__file__).parents[2]
IDS = {"bundle_root": ".", "dataset_dir": "", "section": "testing", "output_dir": "out"}


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle that has configs and weights, and nothing that runs."""
    configs = tmp_path / "toy" / "configs"
    configs.mkdir(parents=True)
    weights = {"imports": ["$import os"], "ckpt_path": "$os.path.join(@bundle_root, 'model.pt')"}
    (configs / "inference.json").write_text(json.dumps(IDS | weights | {"network_def": {}}))
    (configs / "half.json").write_text("{}")
    (configs.parent / "model.pt").write_bytes(b"weights")
    return configs.parent


def test_a_sound_bundle_passes_and_its_command_names_everything(bundle, tmp_path):
    run = BundleRun(bundle, ("half.json", str(bundle / "configs" / "half.json")), {"network_def::channels": "16"})
    run.check()
    words = run.command("data", "validation", tmp_path / "out")
    assert words[:4] == [sys.executable, "-m", "monai.bundle", "run"]
    assert words[5].count("half.json") == 2 and words[5].count(str(bundle / "configs" / "half.json")) == 2
    assert {"--network_def::channels=16", "--section=validation", f"--output_dir={tmp_path / 'out'}"} <= set(words)
    assert f"--dataset_dir={Path('data').absolute()}" in words and f"--bundle_root={bundle}" in words


@pytest.mark.parametrize(
    ("overlays", "overrides", "words"),
    [
        (["no.json"], {}, r"no\.json is missing"),
        ([], {"section": "training"}, "evaluate itself sets"),
        ([], {"ckpt_pth": "model.pt"}, "has no 'ckpt_pth'"),
        ([], {"netwrk::channels": "3"}, "has no 'netwrk'"),
        ([], {"network_def::chan#nels": "3"}, r"network_def::chan#nels cannot be used .* correct them"),
        ([], {"ckpt_path": "$1 / 0"}, "the overrides of ckpt_path cannot be used"),
        ([], {"ckpt_path": "/nowhere/model.pt"}, r"/nowhere/model\.pt is missing, expected the weights"),
    ],
)
def test_what_cannot_run_is_refused_before_it_does(bundle, overlays, overrides, words):
    with pytest.raises(RegInputError, match=words):
        BundleRun(bundle, overlays, overrides).check()


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_an_overlay_that_is_no_config_is_refused(bundle, content):
    (bundle / "configs" / "half.json").write_bytes(content)
    with pytest.raises(RegInputError, match=r"half\.json is no config"):
        BundleRun(bundle, ["half.json"]).check()


def test_weights_of_the_bundle_itself_are_looked_for_in_its_folder(bundle):
    (bundle / "model.pt").unlink()
    with pytest.raises(RegInputError, match=str(bundle / "model.pt")):
        BundleRun(bundle).check()


def test_a_bundle_of_another_collection_is_told_what_it_lacks(bundle):
    (bundle / "configs" / "inference.json").write_text(json.dumps({"bundle_root": ".", "output_dir": "x"}))
    with pytest.raises(RegInputError, match="has no dataset_dir, section"):
        BundleRun(bundle).check()


def test_the_device_is_the_configs_with_the_overrides(bundle):
    config = bundle / "configs" / "inference.json"
    assert BundleRun(bundle).device_type == ""
    content = json.loads(config.read_text()) | {"device": "$torch.device('cuda')"}
    config.write_text(json.dumps(content))
    assert [BundleRun(bundle, (), override).device_type for override in (None, {"device": "cpu"})] == ["cuda", "cpu"]


def test_a_bundle_that_fails_ends_with_its_last_line(bundle, tmp_path, monkeypatch, capfd):
    program = "import sys; print('working', file=sys.stderr); sys.exit('found this, expected that.\\n')"
    monkeypatch.setattr(BundleRun, "command", lambda *_: [sys.executable, "-c", program])
    with pytest.raises(RegInputError, match=r"toy failed with status 1: found this, expected that\."):
        BundleRun(bundle).run("data", "testing", tmp_path / "out")
    assert "working" in capfd.readouterr().err


@pytest.mark.slow
def test_a_bundle_is_run_and_scores_what_its_own_table_says(tmp_path):
    """EOIR with its weights as they were drawn: some smooth field or other."""
    sys.path.insert(0, str(ROOT / "bundles" / "eoir"))
    from eoir_bundle.network import EOIR

    copy = tmp_path / "eoir"
    shutil.copytree(ROOT / "bundles" / "eoir", copy, ignore=shutil.ignore_patterns("eval", "models", "__pycache__"))
    torch.manual_seed(0)
    torch.save(EOIR(channels=8).state_dict(), tmp_path / "drawn.pt")
    data = write_phantom(tmp_path / "phantom", subjects=2, size=(32, 32, 32)).parent
    methods, weights = [f"eoir={copy}", "affine=none"], [f"eoir:ckpt_path={tmp_path / 'drawn.pt'}"]
    evaluate(str(data), "testing", methods, str(tmp_path / "out"), overrides=weights)
    tables = [(tmp_path / "out" / name).read_text() for name in ("pairs.csv", "predictions/eoir/metrics.csv")]
    rows = [list(csv.DictReader(table.splitlines())) for table in tables]
    for mine, its in zip(rows[0][:2], rows[1][:2], strict=True):
        assert (mine["fixed"], mine["moving"]) == (its["fixed"], its["moving"])
        assert float(mine["dice"]) == pytest.approx(float(its["dice"]), abs=2e-3)  # halves are rounded otherwise
        assert float(mine["sdlogj"]) == pytest.approx(float(its["sdlogj"]), abs=1e-4)
        assert float(mine["seconds"]) == pytest.approx(float(its["seconds"])) and float(mine["seconds"]) > 0
    assert rows[0][2]["seconds"] == ""
