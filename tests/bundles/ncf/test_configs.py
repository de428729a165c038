"""What is this bundle's own; what it shares with others of its kind is in ``tests/bundles/test_pairwise.py``."""

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.errors import sentence_of
from tests.bundles.pairwise import configs, copy_of_bundle, run


@pytest.fixture
def bundle(tmp_path) -> Path:
    return copy_of_bundle("ncf", tmp_path)


def test_an_image_too_small_for_the_window_ends_with_its_sentence(bundle, dataset):
    with pytest.raises(RuntimeError) as error:
        run(bundle, dataset, "inference", kind="infer", **{"network_def::ssim_kernel_size": 21})
    assert sentence_of(error.value).startswith("NCF got images of size (32, 32, 32), optimised at (16, 16, 16) first")


@pytest.mark.parametrize("name", ["evaluate", "full_resolution"])
def test_an_overlay_names_what_is_there(name):
    """A misspelled id would silently add an entry that nothing reads."""
    parser = ConfigParser()
    parser.read_config(str(configs("ncf") / "train.json"))
    text = (configs("ncf") / f"{name}.json").read_text()
    overlay = json.loads(text)
    assert [key for key in overlay if key not in parser and f'"@{key}"' not in text] == []


def test_inference_and_training_build_the_same_network():
    inference, train = (json.loads((configs("ncf") / f"{name}.json").read_text()) for name in ("inference", "train"))
    same = ["bundle_root", "dataset_dir", "section", "network_def", "iterations", "half_resolution_steps", "seed"]
    assert {key: inference[key] for key in same} == {key: train[key] for key in same}
    assert inference["preprocessing"] == train["train"]["preprocessing"]
