import json
import tomllib
from pathlib import Path

import torch

import common
from common.provenance import settings_of

ROOT = Path(__file__).parents[2]


def bundle(folder: Path) -> str:
    (folder / "configs").mkdir()
    (folder / "toy_bundle").mkdir()
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": "A toy", "version": "0.7.0"}))
    return str(folder)


def test_settings_name_the_bundle_and_the_versions(tmp_path):
    told = settings_of(bundle(tmp_path), affine="auto", levels=[[8, 2.5], None])
    assert list(told) == ["bundle", "bundle_version", "affine", "levels", "versions"]
    assert (told["bundle"], told["bundle_version"], told["affine"]) == ("toy", "0.7.0", "auto")
    assert told["levels"] == [[8, 2.5], None] and told["versions"]["torch"] == torch.__version__
    assert json.loads(json.dumps(told)) == told


def test_where_files_lie_is_not_told(tmp_path):
    told = settings_of(bundle(tmp_path), weights="/home/ann/models/best.pt", template=Path("/data/head.nii.gz"))
    assert (told["weights"], told["template"]) == ("best.pt", "head.nii.gz")
    assert settings_of(str(tmp_path), device=torch.device("cpu"))["device"] == "cpu"


def test_common_has_the_version_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert common.__version__ == project["version"]
