"""A live server over HTTP: what a viewer asks, and what it gets."""

import threading
import time

import nibabel as nib
import numpy as np
import pytest
import torch

from common.metrics import dice
from common.phantom import LABELS

pytest.importorskip("monailabel", reason="MONAI Label is in the environment of `make test-label`")

pytestmark = [pytest.mark.label, pytest.mark.slow]

NEW = "phantom_005"
LABELLED = [f"phantom_{k:03d}" for k in range(5)]
QUARTER = {"max_epochs": 1, "val_split": 0.4}


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def mean_dice(label: np.ndarray, truth: np.ndarray) -> float:
    label, truth = (torch.from_numpy(a.astype(np.int64))[None, None] for a in (label, truth))
    return float(dice(label, truth, [k for k in LABELS if k]).nanmean())


def result(response, tmp_path) -> nib.Nifti1Image:
    """The label map of a reply with output=image."""
    assert response.status_code == 200, response.text
    path = tmp_path / "label.nii.gz"
    path.write_bytes(response.content)
    return nib.load(path)


def test_info_offers_both_bundles_their_label_names_and_the_labelled_studies(server):
    info = server.ask("GET", "/info/").json()
    assert list(info["models"]) == ["eoir", "svf"]
    for model in info["models"].values():
        assert model["labels"] == {name: value for value, name in LABELS.items() if value}
        assert model["config"]["moving"] == ["most similar", *LABELLED]
    assert list(info["trainers"]) == ["eoir"]  # svf has nothing to train
    assert info["datastore"]["total"] == 6


def test_a_study_gets_the_label_of_the_named_one_on_its_own_grid(server, tmp_path):
    """The named one is the least like it."""
    fixed, truth = nib.load(server.studies / f"{NEW}.nii.gz"), voxels(server.root / "truth" / f"{NEW}.nii.gz")
    final = server.studies / "labels" / "final"
    before = {name: mean_dice(voxels(final / f"{name}.nii.gz"), truth) for name in LABELLED}
    moving = min(before, key=before.get)
    label = result(server.infer("svf", NEW, "image", moving=moving), tmp_path)
    assert label.shape == fixed.shape and label.get_data_dtype() == np.uint8
    np.testing.assert_allclose(label.affine, fixed.affine, atol=1e-4)
    assert mean_dice(np.asarray(label.dataobj), truth) > before[moving] + 0.1


def test_the_packed_bundle_runs_its_own_common_and_the_other_one_the_repositorys(server):
    for model in ("svf", "eoir"):
        server.infer(model, NEW, moving="phantom_001")
    assert " svf_bundle.common.outputs: " in server.log
    assert " common.outputs: " in server.log


def test_an_uploaded_image_gets_the_uploaded_label_and_nothing_stays(server, tmp_path):
    before = sorted(server.studies.rglob("*"))
    scan, known = (nib.load(server.studies / part) for part in (f"{NEW}.nii.gz", "labels/final/phantom_002.nii.gz"))
    nib.save(nib.Nifti1Image(np.uint8(77) * (np.asarray(known.dataobj) > 0), known.affine), tmp_path / "map.nii.gz")
    files = {"file": ("scan.nii.gz", (server.studies / f"{NEW}.nii.gz").read_bytes())}
    files["label"] = ("map.nii.gz", (tmp_path / "map.nii.gz").read_bytes())
    answer = result(server.infer("eoir", output="image", files=files, moving="phantom_002"), tmp_path)
    assert set(np.unique(answer.dataobj)) == {0, 77}
    np.testing.assert_allclose(answer.affine, scan.affine, atol=1e-4)
    assert sorted(server.studies.rglob("*")) == before
    assert not server.unfinished


def test_viewers_client_gets_the_map_and_is_told_of_the_registration(server):
    """3D Slicer's module has a copy of this client."""
    from monailabel.client import MONAILabelClient

    asked = {"moving": "phantom_003", "affine": ["rigid"], "result_extension": ".nrrd", "label_info": [{"name": "a"}]}
    file, told = MONAILabelClient(server.url).infer("eoir", NEW, asked)
    assert told["moving"] == ["phantom_003"]
    assert told["registrations"][0]["verdict"] in ("ok", "check", "failed")
    assert file.endswith(".nrrd")


def test_the_result_is_kept_beside_the_transform_where_the_viewer_says_so(server):
    asked = {"moving": "phantom_001", "save_label": True, "store": True}
    assert server.infer("eoir", NEW, **asked).status_code == 200
    original = server.studies / "labels" / "original"
    assert voxels(original / f"{NEW}.nii.gz").shape == voxels(server.studies / f"{NEW}.nii.gz").shape
    kept = {path.name for path in (original / f"{NEW}__phantom_001").iterdir()}
    assert {"transform.h5", "displacement.nii.gz", "warped.nii.gz", "report.html", "metrics.json"} <= kept
    tags = server.ask("GET", "/datastore/", params={"output": "all"}).json()["objects"][NEW]["labels"]
    assert list(tags) == ["original"]


def test_an_approved_label_is_saved_and_offered(server):
    from monailabel.client import MONAILabelClient

    truth = server.root / "truth" / f"{NEW}.nii.gz"
    client = MONAILabelClient(server.url)
    client.save_label(NEW, str(truth), tag="final")
    try:
        np.testing.assert_array_equal(voxels(server.studies / "labels" / "final" / f"{NEW}.nii.gz"), voxels(truth))
        assert NEW in client.info()["models"]["svf"]["config"]["moving"]
    finally:
        assert server.ask("DELETE", "/datastore/label", params={"id": NEW, "tag": "final"}).status_code == 200
    assert NEW not in client.info()["models"]["svf"]["config"]["moving"]


def test_with_moving_unset_the_most_similar_study_is_taken_and_named(server, tmp_path):
    """The uploaded image is one of the studies with its axes flipped and noise on it."""
    scan = nib.load(server.studies / "phantom_003.nii.gz")
    noise = np.random.default_rng(0).normal(0, 15, scan.shape)
    noisy = nib.Nifti1Image((np.asarray(scan.dataobj) + noise).astype(np.float32), scan.affine)
    nib.save(noisy.as_reoriented(nib.orientations.axcodes2ornt("RAS")), tmp_path / "noisy.nii.gz")
    files = {"file": ("noisy.nii.gz", (tmp_path / "noisy.nii.gz").read_bytes())}
    assert server.infer("eoir", files=files).json()["moving"] == ["phantom_003"]


def test_several_atlases_are_named_and_fused(server):
    told = server.infer("eoir", NEW, moving="most similar", atlases=3).json()
    assert len(set(told["moving"])) == len(told["registrations"]) == 3
    assert NEW not in told["moving"]


def test_two_bundles_at_once_answer_as_they_do_alone(server):
    alone = {model: server.infer(model, NEW, "image", moving="phantom_000").content for model in ("eoir", "svf")}
    found = []

    def ask(model: str) -> None:
        found.append((model, server.infer(model, NEW, "image", moving="phantom_000").content))

    threads = [threading.Thread(target=ask, args=(model,)) for model in ("svf", "eoir", "svf", "eoir")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(content == alone[model] for model, content in found)
    assert alone["eoir"] != alone["svf"]


def test_a_training_replaces_the_weights_and_keeps_the_ones_before(server):
    models = server.bundles[0] / "models"
    before = (models / "model.pt").read_bytes()
    started = server.ask("POST", "/train/eoir", json=QUARTER)
    assert started.status_code == 200, started.text
    assert server.ask("POST", "/train/eoir", json=QUARTER).status_code == 429  # one at a time
    while (task := server.ask("GET", "/train/").json())["status"] in ("SUBMITTED", "RUNNING"):
        time.sleep(1)
    assert task["status"] == "DONE", task
    assert (models / "model.pt").read_bytes() != before
    assert (models / "model_previous.pt").read_bytes() == before
    assert server.infer("eoir", NEW, moving="phantom_000").status_code == 200
