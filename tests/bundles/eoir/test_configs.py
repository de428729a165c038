"""The bundle as its users run it, on phantoms of 32 voxels a side."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from common.errors import sentence_of
from common.losses import LandmarkLoss
from common.phantom import write_phantom
from tests.bundles.pairwise import RESULTS, written
from tests.bundles.trained import ids

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "bundles" / "eoir" / "configs"
OVERLAYS = [
    "abdomen_ct",
    "acdc",
    "evaluate",
    "half_resolution",
    "keypoints",
    "lumir",
    "malc",
    "multi_gpu_train",
    "oasis",
]
OVERLAYS += ["semi_supervised"]
SHORT = {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1, "channels": 4, "kernel_sizes": [5, 3, 3, 3, 3]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom"), subjects=3, size=(32, 32, 32)).parent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, dataset) -> Path:
    """A copy of the bundle, trained for two steps."""
    copy = tmp_path_factory.mktemp("copy") / "eoir"
    shutil.copytree(ROOT / "bundles" / "eoir", copy, ignore=shutil.ignore_patterns("eval", "models", "__pycache__"))
    run(copy, dataset, "train", **SHORT)
    return copy


def run(bundle: Path, dataset: Path, *files: str, kind: str = "train", **overrides) -> ConfigWorkflow:
    paths = [str(next((bundle / "configs").glob(f"{name}.*"))) for name in files]
    settings = {"bundle_root": str(bundle), "dataset_dir": str(dataset), "device": "$torch.device('cpu')", **overrides}
    workflow = ConfigWorkflow(
        paths, workflow_type=kind, meta_file=str(bundle / "configs" / "metadata.json"), **settings
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


@pytest.mark.parametrize("name", ["abdomen_ct", "acdc"])
def test_data_sets_of_given_pairs_are_shuffled_anew_in_every_epoch(dataset, name):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"{name}.json")])
    parser.update({"bundle_root": str(ROOT / "bundles" / "eoir"), "dataset_dir": str(dataset)})
    if parser.get_parsed_content("train::dataset::pairing") == "given":
        parser.update({"train::dataset::data": "@validate::dataset::data"})  # the phantom trains on subjects
    sampler = parser.get_parsed_content("train::dataloader").sampler  # torch refuses to shuffle beside one
    assert sampler.shuffle and len(sampler) == len(parser.get_parsed_content("train::dataset"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_changes_what_it_names_and_nothing_else(name):
    """By merged ids: a plain dictionary in an overlay would silently replace a whole section."""
    train, overlay = (json.loads((CONFIGS / f"{n}.json").read_text()) for n in ("train", name))
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"{name}.json")])
    before, after = ids(train), ids(parser.get())
    named = [key.removeprefix("+") for key in overlay]
    for key, value in before.items():
        if not any(key == n or key.startswith(f"{n}::") for n in named):
            assert after[key] == value, key
    lost = [key for key in before if key not in after]
    allowed = [key for key in lost if any(key == n or key.startswith(f"{n}::") for n in named)]
    assert lost == allowed
    for key, value in ids({k: v for k, v in overlay.items() if not k.startswith("+")}).items():
        assert after[key] == value, key


def test_every_config_says_how_it_is_started():
    for path in CONFIGS.glob("*.json"):
        if path.name != "metadata.json":
            text = " ".join(json.loads(path.read_text())["_desc_"])
            assert "-m monai.bundle run" in text or path.name == "half_resolution.json", path


@pytest.mark.parametrize(
    ("name", "exact", "weight", "double"), [("acdc", False, 0.01, False), ("acdc", True, 0.0001, True)]
)
def test_nominal_and_repository_exact_weights_are_told_apart(name, exact, weight, double):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / f"{name}.json")])
    parser["repository_exact"] = exact
    assert parser.get_parsed_content("smooth_weight") == pytest.approx(weight)
    assert parser.get_parsed_content("network_def").ddf_factor[2] == (2.0 if double else 1.0)


def test_training_leaves_weights_that_load_safely(bundle):
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(isinstance(v, torch.Tensor) and v.isfinite().all() for v in weights.values())
    left = {"model.pt", "model.safetensors", "last.pt", "grid.json", "checkpoints"}
    assert {path.name for path in (bundle / "models").iterdir()} == left


def test_training_writes_a_tensorboard_curve_and_picture(bundle):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(bundle / "eval" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert "train_loss" in tags["scalars"] and {"val_dice", "val_sdlogj", "val_ndv"} <= set(tags["scalars"])
    assert "validation" in tags["images"]
    assert "moving image onto fixed image</title>" in (bundle / "eval" / "validation.html").read_text()


def test_the_same_seed_and_data_give_the_same_weights(bundle, dataset, tmp_path):
    copy = tmp_path / "eoir"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("eval", "models"))
    run(copy, dataset, "train", **SHORT)
    first, second = (torch.load(b / "models" / "model.pt", weights_only=True) for b in (bundle, copy))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def with_keypoints(tmp_path_factory, dataset) -> Path:
    """The data set, each subject with the centers of the first nine structures as landmarks."""
    copy = tmp_path_factory.mktemp("keypoints") / "data"
    shutil.copytree(dataset, copy)
    content = json.loads((copy / "datalist.json").read_text())
    (copy / "keypoints").mkdir()
    for item in content["training"]:
        item["keypoints"] = write_centers(copy, item["label"])
    for pair in content["validation"]:
        for role in ("fixed", "moving"):
            pair[f"{role}_keypoints"] = write_centers(copy, pair[f"{role}_label"])
    (copy / "datalist.json").write_text(json.dumps(content))
    return copy


def write_centers(folder: Path, label: str) -> str:
    """Write the landmarks of a label map; the file's name in the datalist."""
    values = nib.load(folder / label).get_fdata()
    centers = [np.argwhere(values == value).mean(axis=0) for value in range(1, 10)]
    name = label.replace("labels", "keypoints").replace(".nii.gz", ".csv")
    np.savetxt(folder / name, centers, delimiter=",")
    return name


def losses_of(monkeypatch) -> list[float]:
    """Every value that the landmark loss will give."""
    seen, forward = [], LandmarkLoss.forward
    monkeypatch.setattr(LandmarkLoss, "forward", lambda *a: seen.append(forward(*a)) or seen[-1])
    return seen


@pytest.mark.parametrize("batch_size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_landmarks_of_a_datalist_train(bundle, with_keypoints, tmp_path, monkeypatch, batch_size):
    """Six steps on nothing but the landmarks bring them nearer."""
    copy, seen = tmp_path / "eoir", losses_of(monkeypatch)
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("eval", "models"))
    alone = {"similarity_weight": 0.0, "smooth_weight": 0.0, "learning_rate": 0.01, "kernel_sizes": None}
    size = {"batch_size": batch_size, "steps_per_epoch": 6 * batch_size}
    workflow = run(copy, with_keypoints, "train", "keypoints", **SHORT | alone | size)
    metrics = workflow.parser.get_parsed_content("validate::evaluator").state.metrics
    assert (
        metrics["val_tre_mm"] > 0
        and workflow.parser.get_parsed_content("validate::best").best == -metrics["val_tre_mm"]
    )
    values = [float(v.detach()) for v in seen]
    assert len(values) == 6 and all(v > 0 for v in values) and sum(values[-2:]) < sum(values[:2])


@pytest.mark.slow
def test_labels_of_a_datalist_train(bundle, dataset, tmp_path):
    copy = tmp_path / "eoir"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("eval", "models"))
    workflow = run(copy, dataset, "train", "semi_supervised", **SHORT | {"steps_per_epoch": 1})
    loss = workflow.parser.get_parsed_content("loss")
    assert loss.num_labels == 21 and loss.dice_weight == 1 and (copy / "models" / "model.pt").is_file()


def test_evaluation_writes_a_row_a_pair(bundle, dataset):
    run(bundle, dataset, "train", "evaluate", **SHORT)
    lines = (bundle / "eval" / "metrics.csv").read_text().splitlines()
    assert lines[0] == "fixed,moving,dice,sdlogj,ndv" and len(lines) == 1 + 2 + 1
    assert 0.3 < float(lines[-1].split(",")[2]) < 1


def test_inference_writes_transform_image_label_and_picture(bundle, dataset, tmp_path):
    workflow = run(bundle, dataset, "inference", kind="infer", channels=4, output_dir=str(tmp_path))
    assert workflow.check_properties() == []
    folders = [p for p in tmp_path.iterdir() if p.is_dir()]
    assert len(folders) == 2 and (tmp_path / "metrics.csv").is_file()
    for folder in folders:
        assert written(folder) == RESULTS
        fixed = nib.load(dataset / "images" / f"{folder.name.split('__')[0]}.nii.gz")
        for name in ("warped.nii.gz", "warped_label.nii.gz"):
            image = nib.load(folder / name)
            assert image.shape == fixed.shape and (abs(image.affine - fixed.affine) < 1e-4).all()
            assert image.get_data_dtype().kind in "iu"


def test_refinement_improves_what_the_network_said_without_folds(bundle, dataset, tmp_path):
    dice = []
    for steps in (0, 8):
        run(bundle, dataset, "inference", kind="infer", channels=4, output_dir=str(tmp_path), refine_steps=steps)
        rows = [json.loads(path.read_text()) for path in tmp_path.glob("*/metrics.json")]
        dice.append(np.mean([row["dice"] for row in rows]))
        assert len(rows) == 2 and all(row["ndv_percent"] < 0.01 for row in rows)
    assert dice[1] > dice[0] + 0.02


def test_train_has_every_property_that_monai_requires(bundle, dataset):
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"),
        workflow_type="train",
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(dataset),
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_a_yaml_config_runs_as_well(bundle, dataset, tmp_path):
    copy = tmp_path / "eoir"
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("eval", "models"))
    train = copy / "configs" / "train.json"
    (copy / "configs" / "train.yaml").write_text(yaml.safe_dump(json.loads(train.read_text()), sort_keys=False))
    train.unlink()
    run(copy, dataset, "train", **SHORT | {"steps_per_epoch": 1})
    assert (copy / "models" / "model.pt").is_file()


def bundle_run(words: list[str], cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "monai.bundle", "run", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def short_words(dataset: Path) -> list[str]:
    return [word for key, value in SHORT.items() for word in (f"--{key}", str(value))] + ["--dataset_dir", str(dataset)]


def test_the_command_runs_from_the_bundles_root(bundle, dataset):
    weights = bundle / "models" / "last.pt"
    before = weights.stat().st_mtime_ns
    done = bundle_run(["--config_file", "configs/train.json", *short_words(dataset)], bundle)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights.stat().st_mtime_ns > before


def test_the_command_runs_from_elsewhere_with_bundle_root(bundle, dataset, tmp_path):
    files = str([str(bundle / "configs" / f"{name}.json") for name in ("train", "evaluate")])
    words = ["--config_file", files, "--bundle_root", str(bundle), *short_words(dataset)]
    done = bundle_run(words, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


def test_bad_data_ends_with_its_sentence_before_anything_is_written(bundle, dataset, tmp_path):
    """Under monai.bundle the last line is the sentence; three files are wrong and all three are named."""
    bad, root = tmp_path / "data", tmp_path / "eoir"
    shutil.copytree(dataset, bad)
    shutil.copytree(bundle, root, ignore=shutil.ignore_patterns("eval", "models"))
    image = bad / "images" / "phantom_000.nii.gz"
    image.write_bytes(image.read_bytes()[:-100])
    label = bad / "labels" / "phantom_001.nii.gz"
    nib.save(nib.Nifti1Image(nib.load(label).get_fdata()[1:], nib.load(label).affine), label)
    (bad / "images" / "phantom_002.nii.gz").write_text("<html>log in</html>")
    done = bundle_run(["--config_file", "configs/train.json", *short_words(bad)], root)
    last = done.stderr.splitlines()[-1]
    assert done.returncode != 0 and all(f"phantom_00{k}" in last for k in range(3)), last
    assert not (root / "models").exists()


def test_leaked_subjects_are_refused(bundle, dataset, tmp_path):
    bad = tmp_path / "data"
    shutil.copytree(dataset, bad)
    content = json.loads((bad / "datalist.json").read_text())
    content["testing"][0]["fixed"] = content["training"][0]["image"]
    (bad / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(RuntimeError) as error:
        run(bundle, bad, "train", **SHORT)
    assert "phantom_000" in sentence_of(error.value) and "training" in sentence_of(error.value)


def test_missing_weights_name_the_command_that_makes_them(bundle, dataset, tmp_path):
    with pytest.raises(RuntimeError) as error:
        run(bundle, dataset, "inference", kind="infer", channels=4, ckpt_path=str(tmp_path / "no.pt"))
    assert "train.json" in sentence_of(error.value)
