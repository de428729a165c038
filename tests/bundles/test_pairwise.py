"""Bundles that need no training data as their users run them, on phantoms of 32 voxels a side, a few steps a pair."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from common.phantom import write_phantom
from tests.bundles.pairwise import PAGES, RESULTS, SHORT, configs, copy_of_bundle, run, written
from tools.verify import WITHOUT_WEIGHTS, verify


@pytest.fixture(scope="module", params=sorted(SHORT))
def name(request) -> str:
    return request.param


@pytest.fixture
def bundle(name, tmp_path) -> Path:
    return copy_of_bundle(name, tmp_path)


@pytest.fixture(scope="module")
def runs(name, dataset, tmp_path_factory) -> dict[str, tuple[Path, list[str]]]:
    """By config, the copy of the bundle in which it ran and the properties that MONAI misses."""
    found = {}
    for config, kind in (("inference", "infer"), ("train", "train")):
        copy = copy_of_bundle(name, tmp_path_factory.mktemp(config))
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
    assert written(bundle / "models") == {"model.pt"}  # the initial state that the bundle comes with


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
    assert written(bundle / "eval") == {"metrics.csv", "reports"}
    assert [written(folder) for folder in (bundle / "eval" / "reports").iterdir()] == [PAGES] * 2


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


def test_every_config_says_how_it_is_started(name):
    for path in configs(name).glob("*.json"):
        if path.name != "metadata.json":
            assert "-m monai.bundle run" in " ".join(json.loads(path.read_text())["_desc_"]), path


@pytest.mark.slow
def test_the_commands_run_from_the_bundles_root_and_from_elsewhere(bundle, dataset, tmp_path):
    short = [word for key, value in SHORT[bundle.name].items() for word in (f"--{key}", json.dumps(value))]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for config, cwd, more in (
        ("configs/inference.json", bundle, []),
        (str(bundle / "configs" / "train.json"), elsewhere, ["--bundle_root", str(bundle)]),
    ):
        words = ["run", "--config_file", config, "--dataset_dir", str(dataset), *more, *short]
        done = subprocess.run([sys.executable, "-m", "monai.bundle", *words], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert {"ncf": "ssim=", "svf": "similarity="}[bundle.name] in done.stderr  # the bar
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
    assert scores["dice"] > scores["dice_before"] + 0.08 and scores["folded_percent"] < 0.1


@pytest.mark.slow
def test_the_bundle_is_sound_but_for_the_weights_that_it_cannot_have(name, tmp_path):
    """The packed copy alone trains, evaluates and infers, and everything else that verify looks at."""
    copy_of_bundle(name, tmp_path)
    said: list[str] = []
    assert [check for check in verify(name, tmp_path, said.append) if check.finding] == []
    assert [line for line in said if not line.startswith("ok")] == [
        f"-     {check}: left out, because {WITHOUT_WEIGHTS[name]}"
        for check in ("TorchScript equals eager (ckpt_export)", "ONNX equals eager (onnxruntime)")
    ]
