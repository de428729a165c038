"""The bundle as its users run it, on phantoms of 32 voxels a side."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from common.errors import sentence_of
from common.phantom import write_phantom
from tools.verify import WITHOUT_WEIGHTS, verify

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "bundles" / "svf" / "configs"
SHORT = {"levels": [[4, 4, 5], [2, 1, 2]]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    return write_phantom(folder, subjects=2, size=(32, 32, 32), validation_pairs=1, testing_pairs=2).parent


@pytest.fixture
def bundle(tmp_path) -> Path:
    return copy_of_bundle(tmp_path)


def copy_of_bundle(folder: Path) -> Path:
    copy = folder / "svf"
    shutil.copytree(ROOT / "bundles" / "svf", copy, ignore=shutil.ignore_patterns("eval", "__pycache__"))
    return copy


def run(bundle: Path, dataset: Path, *files: str, kind: str = "train", **overrides) -> ConfigWorkflow:
    settings = {"bundle_root": str(bundle), "dataset_dir": str(dataset), "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(
        [str(bundle / "configs" / f"{name}.json") for name in files],
        workflow_type=kind,
        meta_file=str(bundle / "configs" / "metadata.json"),
        **settings | SHORT | overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


RESULTS = {"displacement.nii.gz", "warped.nii.gz", "warped_label.nii.gz", "registration.png", "metrics.json"}


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory) -> dict[str, tuple[Path, list[str]]]:
    """By config, the copy of the bundle in which it ran and the properties that MONAI misses."""
    found = {}
    for config, kind in (("inference", "infer"), ("train", "train")):
        copy = copy_of_bundle(tmp_path_factory.mktemp(config))
        found[config] = copy, run(copy, dataset, config, kind=kind).check_properties()
    return found


@pytest.mark.parametrize("config", ["inference", "train"])
def test_both_names_register_every_pair_of_a_section(runs, config):
    bundle, missing = runs[config]
    assert missing == []
    folder = bundle / "eval" / "registrations"
    pairs = [path for path in folder.iterdir() if path.is_dir()]
    assert len(pairs) == 2 and all(written(pair) == RESULTS for pair in pairs)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + 2 + 1
    assert not (bundle / "models").exists()


def test_both_names_give_the_same_field(runs):
    files = [sorted(bundle.glob("eval/registrations/*/displacement.nii.gz")) for bundle, _ in runs.values()]
    assert [len(paths) for paths in files] == [2, 2]
    for pair in zip(*files, strict=True):
        fields = [nib.load(path).get_fdata() for path in pair]
        assert np.array_equal(*fields) and fields[0].any()


def test_evaluation_writes_a_row_a_pair(bundle, dataset):
    run(bundle, dataset, "train", "evaluate")
    lines = (bundle / "eval" / "metrics.csv").read_text().splitlines()
    assert lines[0] == "fixed,moving,dice,sdlogj,ndv" and len(lines) == 1 + 2 + 1
    assert 0.3 < float(lines[-1].split(",")[2]) < 1
    assert written(bundle / "eval") == {"metrics.csv"}


def test_two_files_are_registered_on_the_fixed_files_own_grid(bundle, dataset, tmp_path):
    """Other sizes and spacings, one axis turned: nothing of the phantom's grid is left."""
    names = ("phantom_002", "phantom_003")
    fixed, moving = (nib.load(dataset / "images" / f"{name}.nii.gz") for name in names)
    affine = fixed.affine @ np.diag([-1, 1, 1, 1])
    affine[:3, 3] = fixed.affine[:3, 3] + 31 * fixed.affine[:3, 0]
    turned = nib.Nifti1Image(np.asarray(fixed.dataobj)[::-1][:, :-3], affine)
    paths = {"fixed": tmp_path / "f.nii.gz", "moving": tmp_path / "m.nii.gz"}
    nib.save(turned, paths["fixed"])
    nib.save(moving, paths["moving"])
    run(bundle, dataset, "inference", kind="infer", **{key: str(path) for key, path in paths.items()})
    field = nib.load(bundle / "eval" / "registrations" / "f__m" / "displacement.nii.gz")
    assert field.shape == (32, 29, 32, 1, 3) and np.allclose(field.affine, affine, atol=1e-4)


def test_slices_are_registered_as_volumes_are(bundle, tmp_path):
    data = write_phantom(tmp_path / "slices", subjects=2, size=(40, 36), validation_pairs=1, testing_pairs=1).parent
    run(bundle, data, "inference", kind="infer")
    (pair,) = (path for path in (bundle / "eval" / "registrations").iterdir() if path.is_dir())
    assert written(pair) == RESULTS and nib.load(pair / "warped.nii.gz").shape == (40, 36)


def test_a_window_larger_than_the_coarsest_grid_ends_with_its_sentence(bundle, dataset):
    with pytest.raises(RuntimeError) as error:
        run(bundle, dataset, "inference", kind="infer", kernel_size=15)
    assert sentence_of(error.value).startswith("lncc got kernel_size 15 for size (8, 8, 8)")


@pytest.mark.parametrize("similarity", ["mi", "mind", "mse"])
def test_every_similarity_can_be_named_on_the_command_line(bundle, dataset, similarity):
    """Each registers a scan to its own deformed copy; between phantoms, intensities differ too much for "mse"."""
    folder = dataset / "images"
    image = nib.load(folder / "phantom_002.nii.gz")
    moved = nib.Nifti1Image(np.roll(image.get_fdata(dtype=np.float32), 1, 0), image.affine)
    paths = {"fixed": str(folder / "phantom_002.nii.gz"), "moving": str(bundle / "moved.nii.gz")}
    nib.save(moved, paths["moving"])
    run(bundle, dataset, "inference", kind="infer", similarity=similarity, levels=[[4, 2, 20], [2, 1, 10]], **paths)
    warped = nib.load(bundle / "eval" / "registrations" / "phantom_002__moved" / "warped.nii.gz").get_fdata()
    errors = [np.abs(other - image.get_fdata()).mean() for other in (moved.get_fdata(), warped)]
    assert errors[1] < 0.5 * errors[0]


def test_a_mask_is_read_and_what_lies_outside_does_not_count(bundle, dataset, tmp_path):
    """The same field with and without a block of another intensity outside of the mask."""
    names = {key: str(dataset / "images" / f"phantom_00{k}.nii.gz") for key, k in (("fixed", 2), ("moving", 3))}
    image = nib.load(names["fixed"])
    mask, spoilt = np.zeros(image.shape, np.uint8), image.get_fdata(dtype=np.float32)
    mask[:12] = 1
    spoilt[20:26, 8:20, 8:20] = 0
    nib.save(nib.Nifti1Image(mask, image.affine), tmp_path / "mask.nii.gz")
    nib.save(nib.Nifti1Image(spoilt, image.affine), tmp_path / "phantom_002.nii.gz")
    pair = "phantom_002__phantom_003"
    fields = {}
    for masked in (False, True):
        for fixed in (names["fixed"], str(tmp_path / "phantom_002.nii.gz")):
            more = {"fixed_mask": str(tmp_path / "mask.nii.gz")} if masked else {}
            run(bundle, dataset, "inference", kind="infer", levels=[[2, 1, 3]], **names | {"fixed": fixed}, **more)
            path = bundle / "eval" / "registrations" / pair / "displacement.nii.gz"
            fields.setdefault(masked, []).append(nib.load(path).get_fdata())
    changes = {masked: np.abs(first - second).max() for masked, (first, second) in fields.items()}
    assert changes[True] < 0.2 * changes[False]  # the intensity range sees the block in both


def test_refinement_steps_follow_the_answer(bundle, dataset):
    scores = []
    for steps in (0, 8):
        run(bundle, dataset, "inference", kind="infer", refine_steps=steps)
        rows = [json.loads(path.read_text()) for path in bundle.glob("eval/registrations/*/metrics.json")]
        scores.append(np.mean([row["dice"] for row in rows]))
        assert all(row["ndv_percent"] == 0 for row in rows)
    assert scores[1] > scores[0] + 0.01


@pytest.mark.parametrize("name", ["evaluate", "liver_mr", "lung_ct"])
def test_an_overlay_names_what_is_there(name):
    """A misspelled id would silently add an entry that nothing reads."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / ("train.json" if name == "evaluate" else "inference.json")))
    overlay = json.loads((CONFIGS / f"{name}.json").read_text())
    assert [key for key in overlay if key not in parser] == []


def test_inference_and_training_build_the_same_network():
    inference, train = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("inference", "train"))
    same = [
        "bundle_root",
        "dataset_dir",
        "section",
        "network_def",
        "similarity",
        "levels",
        "velocity_sigma",
        "use_masks",
    ]
    assert {key: inference[key] for key in same} == {key: train[key] for key in same}
    assert inference["preprocessing"] == train["train"]["preprocessing"]


def test_every_config_says_how_it_is_started():
    for path in CONFIGS.glob("*.json"):
        if path.name != "metadata.json":
            assert "-m monai.bundle run" in " ".join(json.loads(path.read_text())["_desc_"]), path


@pytest.mark.slow
def test_the_commands_run_from_the_bundles_root_and_from_elsewhere(bundle, dataset, tmp_path):
    short = [word for key, value in SHORT.items() for word in (f"--{key}", json.dumps(value))]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for config, cwd, more in (
        ("configs/inference.json", bundle, []),
        (str(bundle / "configs" / "train.json"), elsewhere, ["--bundle_root", str(bundle)]),
    ):
        words = ["run", "--config_file", config, "--dataset_dir", str(dataset), *more, *short]
        done = subprocess.run([sys.executable, "-m", "monai.bundle", *words], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "similarity=" in done.stderr  # the bar
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_the_defaults_register_the_phantom_pair(bundle):
    """As a newcomer runs it; the time that this takes is in docs/README.md."""
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), workflow_type="infer", bundle_root=str(bundle), device="cpu"
    )
    workflow.initialize()
    workflow.run()
    scores = json.loads(next((bundle / "eval" / "registrations").glob("*/metrics.json")).read_text())
    assert scores["dice"] > scores["dice_before"] + 0.08 and scores["ndv_percent"] == 0


@pytest.mark.slow
def test_the_bundle_is_sound_but_for_the_weights_that_it_cannot_have(tmp_path):
    """The packed copy alone trains, evaluates and infers, and everything else that verify looks at."""
    folder = tmp_path / "svf"
    shutil.copytree(ROOT / "bundles" / "svf", folder, ignore=shutil.ignore_patterns("eval", "__pycache__"))
    said: list[str] = []
    assert [check for check in verify("svf", tmp_path, said.append) if check.finding] == []
    assert [line for line in said if not line.startswith("ok")] == [
        f"-     TorchScript equals eager (ckpt_export): left out, because {WITHOUT_WEIGHTS['svf']}"
    ]
