"""What is this bundle's own; what it shares with others of its kind is in ``tests/bundles/test_pairwise.py``."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from common.errors import sentence_of
from tests.bundles.pairwise import configs, copy_of_bundle, run


@pytest.fixture
def bundle(tmp_path) -> Path:
    return copy_of_bundle("svf", tmp_path)


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
            more = {"affine": "none"} | ({"fixed_mask": str(tmp_path / "mask.nii.gz")} if masked else {})
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
    parser.read_config(str(configs("svf") / ("train.json" if name == "evaluate" else "inference.json")))
    text = (configs("svf") / f"{name}.json").read_text()
    overlay = json.loads(text)
    assert [key for key in overlay if key not in parser and f'"@{key}"' not in text] == []


def test_inference_and_training_build_the_same_network():
    inference, train = (json.loads((configs("svf") / f"{name}.json").read_text()) for name in ("inference", "train"))
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
