import json

import pytest

from common.errors import RegInputError
from tools.lint import lint_config, lint_configs, read_config

SOUND = {
    "_desc_": ["python -m monai.bundle run --config_file bundles/toy/configs/train.json [--dataset_dir DIR]"],
    "imports": ["$import os"],
    "bundle_root": "$next((p for p in ('.', 'bundles/toy') if os.path.isdir(p)), '.')",
    "ratio": "$@a /2 + @b/@c",
    "source": "see https://example.org/paper and and/or ./relative/path",
    "net": {"_target_": "toy_bundle.network.Net"},
    "loss": {"_target_": "common.losses.LNCCLoss"},
    "sgd": {"_target_": "torch.optim.SGD"},
    "load": {"_target_": "LoadImaged"},
    "initialize": ["$monai.utils.set_determinism(@seed)"],
    "run": [{"_target_": "common.errors.print_sentence_last"}, "$@train::trainer.run()"],
}

WRONG = [
    ({"a": "/data/oasis"}, "a has the path '/data/oasis'"),
    ({"a": {"b": ["~/data"]}}, "a::b::0 has the path '~/'"),
    ({"a": "C:\\data"}, "a has the path 'C:\\'"),
    ({"a": "$os.path.join('/scratch/me', 'x')"}, "a has the path '/scratch/me'"),
    ({"_desc_": ["run --dataset_dir /home/me/oasis"]}, "_desc_::0 has the path '/home/me/oasis'"),
    ({"a": "$os.path.expanduser(@b)"}, "a has 'os.path.expanduser', which is not allowed"),
    ({"a": "$pathlib.Path.home()"}, "a has 'pathlib.Path.home', which is not allowed"),
    ({"x": {"_target_": "os.system"}}, "x::_target_ is 'os.system'"),
    ({"x": {"_target_": "monailabel.Thing"}}, "x::_target_ is 'monailabel.Thing'"),
    ({"x": {"_target_": "other_bundle.network.Net"}}, "x::_target_ is 'other_bundle.network.Net'"),
    ({"chosen": "os.mkdir", "x": {"_target_": "@chosen"}}, "x::_target_ is '@chosen', which is computed"),
    ({"x#_target_": "os.mkdir"}, "x#_target_ is 'os.mkdir'"),
    ({"x": {"_target_": "run_cmd"}}, "x::_target_ is 'run_cmd'"),
    ({"x": {"_target_": "monai.utils.misc.run_cmd"}}, "x::_target_ is 'monai.utils.misc.run_cmd'"),
    ({"x": {"_target_": "common.files.os.mkdir"}}, "x::_target_ is 'common.files.os.mkdir'"),
    ({"x": {"_target_": "toy_bundle.network.os.mkdir"}}, "x::_target_ is 'toy_bundle.network.os.mkdir'"),
    ({"x": {"_target_": "torch.hub.load"}}, "x::_target_ is 'torch.hub.load'"),
    ({"x": {"_target_": "monai.data.utils.pickle_operations"}}, "x::_target_ is 'monai.data.utils.pickle_operations'"),
    ({"x": {"_target_": "toy_bundle.network.Net", "_mode_": "debug"}}, "x::_mode_ is 'debug'"),
    ({"x": "%other.json::run"}, "x is '%other.json::run', which may be out of another file"),
    ({"x": "$os"}, "x has 'os'"),
    ({"x": "$os.environ.update(@a)"}, "x has 'os.environ.update'"),
    ({"x": "$@net.__class__"}, "x has '.__class__'"),
    ({"x": "$().__class__"}, "x has '.__class__'"),
    ({"x": "$open('a', 'w')"}, "x has 'open'"),
    ({"x": "$[y := 1]"}, "x has 'NamedExpr'"),
    ({"imports": ["$import subprocess"]}, "imports::0 imports from subprocess"),
    ({"imports": ["$from os import system"]}, "imports::0 imports from os"),
    ({"imports": ["$import os as path"]}, "imports::0 imports from os"),
    ({"x": {"_target_": "NoSuchTransformd"}}, "MONAI does not know"),
    ({"x": "$map(lambda y: y, @z)"}, "x has a lambda"),
    ({"imports": ["$from common.x import y"]}, "imports::0"),
    ({"initialize": [{"_target_": "toy_bundle.setup.go"}]}, "initialize::0::_target_"),
]


def test_a_sound_config_has_no_finding():
    packed = {"loss": {"_target_": "toy_bundle.common.losses.LNCCLoss"}}
    assert list(lint_config(SOUND, "toy_bundle")) == list(lint_config(packed, "toy_bundle")) == []


@pytest.mark.parametrize(("entry", "finding"), WRONG)
def test_each_fault_is_the_only_finding_and_names_its_place(entry, finding):
    findings = list(lint_config(SOUND | entry, "toy_bundle"))
    assert len(findings) == 1
    assert finding in findings[0]


def test_configs_that_are_not_json_are_told(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("a: 1")
    assert lint_configs(tmp_path) == ["train.yaml: not looked at, expected JSON"]


def test_findings_name_their_file_and_metadata_is_no_config(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"x": "/a path in a text"}))
    (tmp_path / "configs" / "train.json").write_text(json.dumps({"x": "/data/x"}))
    (tmp_path / "configs" / "ok.json").write_text(json.dumps(SOUND | {"net": "none"}))
    assert [finding.split(":")[0] for finding in lint_configs(tmp_path)] == ["train.json"]


def test_a_key_said_twice_is_refused():
    with pytest.raises(RegInputError, match=r"train\.json says 'lr' twice"):
        read_config(b'{"lr": 1, "lr": 2}', "train.json")


def test_broken_json_is_named():
    with pytest.raises(RegInputError, match=r"train\.json is not JSON"):
        read_config(b'{"lr": }', "train.json")


def test_half_a_character_is_no_json():
    """Nothing could write it again: a packed bundle's metadata, for one."""
    with pytest.raises(RegInputError, match=r"metadata\.json is not JSON"):
        read_config(b'{"name": "\\ud800"}', "metadata.json")
