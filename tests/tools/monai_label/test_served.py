import json
import shutil

import pytest

from common.errors import RegInputError
from common.phantom import LABELS
from tools.monai_label.served import all_bundles, serve_bundles
from tools.repository import REPOSITORY


def copy(name: str, folder):
    """A bundle's folder without what runs left there."""
    shutil.copytree(REPOSITORY / "bundles" / name, folder, ignore=shutil.ignore_patterns("eval", "models", "docs"))
    return folder


def test_a_bundle_tells_its_labels_by_name_and_whether_it_needs_weights(tmp_path):
    eoir = copy("eoir", tmp_path / "eoir")
    (eoir / "models").mkdir()
    (eoir / "models" / "model.pt").touch()
    first, second = serve_bundles([str(eoir), "svf"])
    assert (first.name, first.package, first.weights) == ("eoir", "eoir_bundle", eoir / "models" / "model.pt")
    assert (second.name, second.package, second.weights) == ("svf", "svf_bundle", None)
    assert first.labels == second.labels == {name: value for value, name in LABELS.items() if value}


def test_the_same_name_twice_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="have the same name 'svf', expected each once"):
        serve_bundles(["svf", str(copy("svf", tmp_path / "svf"))])


def test_the_same_package_under_two_names_is_refused(tmp_path):
    with pytest.raises(RegInputError, match="have the same package 'svf_bundle'"):
        serve_bundles(["svf", str(copy("svf", tmp_path / "svf_2"))])


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(RegInputError, match=r"eoir/models/model.pt is missing, expected trained weights"):
        serve_bundles([str(copy("eoir", tmp_path / "eoir"))])


def test_an_unknown_bundle_is_refused():
    with pytest.raises(RegInputError, match="expected one of eoir"):
        serve_bundles(["unet"])


def test_metadata_without_label_names_is_refused(tmp_path):
    folder = copy("svf", tmp_path / "svf")
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["network_data_format"]["post_processed_outputs"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(RegInputError, match=r"cannot be served .*post_processed_outputs.*label names"):
        serve_bundles([str(folder)])


def test_by_default_every_bundle_is_served_that_can_register():
    names = [bundle.name for bundle in all_bundles()]
    assert {"ncf", "svf"} <= set(names)
    assert all(bundle.ready for bundle in all_bundles())
