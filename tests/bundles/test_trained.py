"""Bundles whose networks are trained as their users run them, on phantoms of 32 voxels a side, for two steps."""

import json
from itertools import combinations
from pathlib import Path

import nibabel as nib
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from common.data import PairDataset
from common.errors import sentence_of
from tests.bundles.pairwise import BUNDLES, PAGES, RESULTS, configs, copy_of_bundle, written
from tests.bundles.trained import ids, overlays, run, trained_bundles
from tools.verify import verify
from tools.weights import make_weights

NAMES = trained_bundles()
OVERLAYS = [(name, overlay) for name in NAMES for overlay in overlays(name)]


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(name, dataset, tmp_path_factory) -> Path:
    """A copy of the bundle, trained for two steps."""
    copy = copy_of_bundle(name, tmp_path_factory.mktemp("trained"))
    assert run(copy, dataset, "train").check_properties() == []
    return copy


def test_training_leaves_weights_that_load_safely(bundle):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(isinstance(v, torch.Tensor) and v.isfinite().all() for v in weights.values())
    assert written(bundle / "models") == {"model.pt", "model.safetensors", "last.pt", "grid.json", "checkpoints"}


def test_evaluation_writes_a_row_a_pair(bundle, dataset):
    run(bundle, dataset, "train", "evaluate", reports=1)
    lines = (bundle / "eval" / "metrics.csv").read_text().splitlines()
    assert lines[0] == "fixed,moving,dice,sdlogj,ndv" and len(lines) == 1 + 2 + 1
    assert 0.3 < float(lines[-1].split(",")[2]) < 1
    assert [written(folder) for folder in (bundle / "eval" / "reports").iterdir()] == [PAGES]


def test_inference_writes_transform_image_label_and_picture(bundle, dataset, tmp_path):
    workflow = run(bundle, dataset, "inference", kind="infer", section="validation", output_dir=str(tmp_path))
    assert workflow.check_properties() == []
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert written(folder) == RESULTS
    fixed = nib.load(dataset / "images" / f"{folder.name.split('__')[0]}.nii.gz")
    for image in (nib.load(folder / f"{what}.nii.gz") for what in ("warped", "warped_label")):
        assert image.shape == fixed.shape and abs(image.affine - fixed.affine).max() < 1e-4


def test_missing_weights_name_the_command_that_makes_them(name, bundle, dataset, tmp_path):
    with pytest.raises(RuntimeError) as error:
        run(bundle, dataset, "inference", kind="infer", ckpt_path=str(tmp_path / "no.pt"))
    assert f"bundles/{name}/configs/train.json" in sentence_of(error.value)


def test_inference_builds_the_network_of_training(name):
    """Its settings too: weights that the default training wrote load without a word."""
    train, inference = (json.loads((configs(name) / f"{file}.json").read_text()) for file in ("train", "inference"))
    assert train["network_def"] == inference["network_def"]
    settings = {str(value)[1:] for value in ids(train["network_def"]).values() if str(value).startswith("@")}
    assert settings and all(train[key] == inference[key] for key in settings)


@pytest.mark.parametrize(("name", "overlay"), OVERLAYS)
def test_an_overlay_changes_what_it_names_and_nothing_else(name, overlay):
    """By merged ids: a plain dictionary in an overlay would silently replace a whole section."""
    paths = [configs(name) / f"{file}.json" for file in ("train", overlay)]
    parser = ConfigParser()
    parser.read_config([str(path) for path in paths])
    train, change = (json.loads(path.read_text()) for path in paths)
    before, after = ids(train), ids(parser.get())

    def is_named(key: str) -> bool:
        return any(key == n or key.startswith(f"{n}::") for n in (k.removeprefix("+") for k in change))

    assert {key: after.get(key) for key in before if not is_named(key)} == {
        key: value for key, value in before.items() if not is_named(key)
    }
    told = ids({key: value for key, value in change.items() if not key.startswith("+")})
    assert {key: after.get(key) for key in told} == told


def test_every_config_says_how_it_is_started(name):
    for path in configs(name).glob("*.json"):
        if path.name != "metadata.json":
            text = " ".join(json.loads(path.read_text())["_desc_"])
            assert "-m monai.bundle run --config_file" in text and f"bundles/{name}/configs/{path.name}" in text, path


def training_data(name: str, dataset: Path, *files: str, **overrides) -> PairDataset:
    """The pairs that some of a bundle's configs train on."""
    parser = ConfigParser()
    parser.read_config([str(configs(name) / f"{file}.json") for file in files])
    parser.update({"bundle_root": str(BUNDLES / name), "dataset_dir": str(dataset)} | overrides)
    return parser.get_parsed_content("train::dataset")


@pytest.mark.parametrize("name", [name for name, overlay in OVERLAYS if overlay == "ixi"])
def test_ixi_moves_the_atlas_to_the_others_and_flips_both_together(name, dataset):
    plain = {"train::dataset::pairing": "consecutive", "train::dataset::pair_transform": None}
    (unflipped,) = training_data(name, dataset, "train", "ixi", **plain)
    atlas, subject = unflipped["fixed"], unflipped["moving"]  # of the data set's two subjects the first is the atlas
    pairs, seen = training_data(name, dataset, "train", "ixi"), set()
    for epoch in range(6):
        pairs.set_epoch(epoch)
        (pair,) = pairs
        flips = [axes for count in range(4) for axes in combinations((1, 2, 3), count)]
        found = [f for f in flips if torch.equal(pair["moving"], atlas.flip(f))]
        assert len(found) == 1 and torch.equal(pair["fixed"], subject.flip(found[0]))
        seen |= set(found)
    assert len(seen) > 2


@pytest.mark.slow
def test_the_defaults_raise_the_overlap_of_phantoms(tmp_path):
    """As a newcomer runs them: trained on the phantom's own subjects, then two pairs that training never saw."""
    copy = copy_of_bundle("voxelmorph", tmp_path)  # each of the others takes minutes more
    make_weights("voxelmorph", tmp_path, say=lambda line: None)
    workflow = ConfigWorkflow(
        str(copy / "configs" / "inference.json"), workflow_type="infer", bundle_root=str(copy), device="cpu"
    )
    workflow.initialize()
    workflow.run()
    rows = [json.loads(path.read_text()) for path in (copy / "eval" / "registrations").glob("*/metrics.json")]
    assert rows and all(row["dice"] > row["dice_before"] + 0.01 for row in rows)


@pytest.mark.slow
def test_the_bundle_is_sound(name, tmp_path):
    """The packed copy alone trains, evaluates and infers, and everything else that verify looks at."""
    copy_of_bundle(name, tmp_path)
    assert [check for check in verify(name, tmp_path, lambda line: None) if check.finding] == []
