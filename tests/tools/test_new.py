"""`regbundles new`: what it writes is sound before anybody has changed a line, and stays what the other bundles are.

``tests/test_contributing.py`` runs it as a newcomer does.
"""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from common.errors import RegInputError
from tests.bundles.trained import ids
from tools.new import SETTINGS, class_name, new, with_package
from tools.repository import REPOSITORY
from tools.verify import CHECKS, finding_of
from tools.verify_case import Case

NAMES = ["aa", "toy_net", "z" * 40]  # imports are sorted, and lines end, elsewhere with each
OURS = 'lint.isort.known-first-party=["common", "tests"]'  # which the linter would see in a whole checkout
TAKES_LONG = ("alone", "outside", "packed", "export", "in and out", "ONNX", "TorchScript")


def make_checkout(folder: Path) -> Path:
    """As much of one as a new bundle is made from."""
    source = folder / "bundles" / "voxelmorph"
    shutil.copytree(REPOSITORY / "bundles" / "voxelmorph", source, ignore=shutil.ignore_patterns("eval", "models"))
    shutil.copyfile(REPOSITORY / "pyproject.toml", folder / "pyproject.toml")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A checkout with one new bundle, ``toy``."""
    root = make_checkout(tmp_path_factory.mktemp("made"))
    shutil.copyfile(root / "pyproject.toml", root / "before.toml")
    assert new("toy", root) == [root / "bundles" / "toy", root / "tests" / "bundles" / "toy", root / "pyproject.toml"]
    return root


@pytest.mark.parametrize(
    "title", [title for title in CHECKS if title != "weights" and not any(word in title for word in TAKES_LONG)]
)
def test_verify_finds_nothing(title, made, tmp_path):
    assert finding_of(CHECKS[title], Case(made / "bundles" / "toy", tmp_path)) is None


def read(root: Path, bundle: str, config: str) -> dict[str, object]:
    """Every value of a config by id, the bundle's names blanked."""
    text = (root / "bundles" / bundle / "configs" / f"{config}.json").read_text()
    return ids(json.loads(text.replace(bundle, "NAME").replace("VoxelMorph-1", "CLASS").replace("ToyNet", "CLASS")))


@pytest.mark.parametrize("config", ["train", "inference", "evaluate", "multi_gpu_train"])
def test_configs_differ_from_another_bundles_by_the_network_alone(config, made):
    ours, theirs = read(made, "toy", config), read(made, "voxelmorph", config)
    free = {str(v)[1:] for config in (ours, theirs) for k, v in config.items() if k.startswith("network_def::")}

    def rest(values: dict[str, object]) -> dict[str, object]:
        return {k: v for k, v in values.items() if k.partition("::")[0] not in {"network_def", *free}}

    assert rest(ours) == rest(theirs)
    for setting in SETTINGS if config in ("train", "inference") else ():
        assert ours[f"network_def::{setting}"] == f"@{setting}"


def test_nothing_of_the_other_bundle_is_left(made):
    for path in [*(made / "bundles" / "toy").rglob("*"), *(made / "tests").rglob("*.py")]:
        assert not path.is_file() or "voxelmorph" not in path.read_text().lower(), path


def test_its_package_is_entered_beside_the_others(made):
    before, after = (tomllib.loads((made / name).read_text()) for name in ("before.toml", "pyproject.toml"))
    settings = [content["tool"].pop("setuptools") for content in (before, after)]
    assert before == after
    assert settings[1]["packages"] == [*settings[0]["packages"], "toy_bundle"]
    added = {"toy_bundle": "bundles/toy/toy_bundle"}
    assert settings[1]["package-dir"] == settings[0]["package-dir"] | added
    assert list(settings[1]["package-dir"]) == sorted(settings[1]["package-dir"])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_passes_the_linter_under_any_name(name, tmp_path):
    new(name, make_checkout(tmp_path))
    for words in (["check", "--config", OURS], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "bundles", "tests"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "small letters"),
        ("Toy", "small letters"),
        ("3d", "small letters"),
        ("toy-net", "small letters"),
        ("toy__net", "small letters"),
        ("_toy", "small letters"),
        ("../toy", "small letters"),
        ("toy\n", "small letters"),
        ("tøy", "small letters"),
        ("z" * 41, "at most 40"),
        ("class", "word of Python"),
        ("syn", "read otherwise"),
        ("template", "read otherwise"),
        ("brain_segmentation", "MONAI Label"),
        ("voxelmorph", "exists already"),
    ],
)
def test_an_odd_or_taken_name_is_refused_and_nothing_is_written(name, words, tmp_path):
    root = make_checkout(tmp_path)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(RegInputError, match=words) as error:
        new(name, root)
    assert "\n" not in str(error.value).replace(name, "")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_project_file_of_another_form_is_refused_and_nothing_is_written(tmp_path):
    root = make_checkout(tmp_path)
    (root / "pyproject.toml").write_text('[tool.setuptools]\npackages = ["common"]\npackage-dir = {}\n')
    with pytest.raises(RegInputError, match=r"add 'toy_bundle' to packages"):
        new("toy", root)
    assert not (root / "bundles" / "toy").exists() and not (root / "tests" / "bundles").exists()


def test_a_package_is_entered_once():
    text = with_package((REPOSITORY / "pyproject.toml").read_text(), "toy")
    assert with_package(text, "toy") == text


@pytest.mark.parametrize(
    ("name", "called"), [("toy", "ToyNet"), ("lku_net", "LkuNet"), ("tensor", "TensorNet"), ("u_net_2", "UNet2Net")]
)
def test_the_network_is_called_like_the_bundle(name, called):
    assert class_name(name) == called
