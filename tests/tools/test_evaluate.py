import csv
import json
import math
import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from common.errors import RegInputError
from common.metrics import dice
from common.spatial import warp
from common.transform_files import write_displacement
from tools.__main__ import app
from tools.arguments import ranges
from tools.evaluate import evaluate as evaluate_all
from tools.methods import device_type, parse_methods
from tools.repository import commit

from .golden_dataset import CASES, EXPECTED, arrays, landmarks_inside, pair_name, write_golden

LABELS = EXPECTED["labels"]
evaluate = partial(evaluate_all, reports=0)  # pages are tested in test_pair_pages.py


def table(folder: Path, name: str) -> list[dict]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float:
    return float(text) if text else math.nan


@pytest.fixture(scope="module")
def golden(tmp_path_factory) -> Path:
    return write_golden(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def challenge(golden, tmp_path_factory) -> Path:
    """Results in the challenge's form."""
    out = tmp_path_factory.mktemp("challenge")
    methods = [f"given={golden / 'voxels'}", "before=none"]
    evaluate(str(golden), "validation", methods, str(out), layout="learn2reg", ndv_in_moving=True)
    return out


@pytest.fixture(scope="module")
def own(golden, tmp_path_factory) -> Path:
    """Results in our form, of ITK fields."""
    out = tmp_path_factory.mktemp("own")
    evaluate(str(golden), "validation", [f"given={golden / 'itk'}"], str(out), sdlogj_in_mask=True)
    return out


# Equal to the challenges' programs


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("method", "column", "key", "tolerance"),
    [
        ("given", "dice", "dice_per_label", 1e-12),
        ("given", "hd95_mm", "hd95_mm_per_label", 1e-6),
        ("given", "hd95_voxels", "hd95_voxel_per_label", 1e-6),
        ("before", "dice", "dice_before_per_label", 1e-12),
        ("before", "dice_linear", "dice_before_per_label", 1e-12),
        ("before", "hd95_voxels", "hd95_voxel_before_per_label", 1e-6),
    ],
)
def test_labels_equal_the_challenge(challenge, case, method, column, key, tolerance):
    rows = [r for r in table(challenge, "labels.csv") if (r["method"], r["pair"]) == (method, pair_name(case))]
    assert [int(row["label"]) for row in rows] == LABELS
    expected = [float(value) for value in expect(case, key)]
    np.testing.assert_allclose([number(row[column]) for row in rows], expected, rtol=0, atol=tolerance)


def expect(case: str, key: str):
    value = EXPECTED["cases"][case]
    for part in key.split("::"):
        value = value[part]
    return value


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("column", "key", "tolerance"),
    [
        ("dice", "dice_mean", 1e-12),
        ("hd95_voxels", "hd95_voxel_mean", 1e-6),
        ("sdlogj", "sdlogj_textbook", 1e-7),
        ("sdlogj_l2r", "sdlogj_l2r", 1e-7),
        ("ndv_percent", "ndv_lumir_mask::ndv_percent", 1e-9),
        ("folds", "jacobian_npgradient_full::n_nonpositive", 0),
        ("folds_percent", "jacobian_npgradient_full::percent_nonpositive", 1e-9),
    ],
)
def test_pairs_equal_the_challenge(challenge, case, column, key, tolerance):
    row = given_row(challenge, case)
    assert float(row[column]) == pytest.approx(float(expect(case, key)), abs=tolerance, rel=0)


def given_row(out: Path, case: str) -> dict:
    return next(r for r in table(out, "pairs.csv") if (r["method"], r["pair"]) == ("given", pair_name(case)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("method", "column", "key"),
    [
        ("given", "tre_l2r_mm", "tre_l2r_per_landmark"),
        ("given", "tre_mm", "tre_linear_per_landmark"),
        ("before", "tre_mm", "tre_before_per_landmark"),
    ],
)
def test_landmark_errors_equal_the_challenge(challenge, case, method, column, key):
    expected = np.array(expect(case, key))[landmarks_inside(case)].mean()
    row = next(r for r in table(challenge, "pairs.csv") if (r["method"], r["pair"]) == (method, pair_name(case)))
    assert float(row[column]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_linear_dice_is_that_of_the_largest_warped_one_hot_map(challenge, case):
    """TransMorph's way with the collection's image warp and numpy; the nearest warp scores otherwise."""
    found = arrays(case)
    ddf = torch.from_numpy(found["disp"].astype(np.float64)).movedim(-1, 0)[None]
    channels = F.one_hot(torch.from_numpy(found["moving_seg"]).long()).movedim(-1, 0)[None].double()
    warped = warp(channels, ddf, padding_mode="zeros")[0].argmax(0).numpy()
    rows = [r for r in table(challenge, "labels.csv") if (r["method"], r["pair"]) == ("given", pair_name(case))]
    for row in rows:
        ours, theirs = ((x == int(row["label"])) for x in (warped, found["fixed_seg"]))
        if row["dice_linear"]:
            expected = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
            assert float(row["dice_linear"]) == pytest.approx(expected, abs=2e-3)  # exact halves: float ties
    assert any(row["dice_linear"] != row["dice"] for row in rows)


@pytest.mark.parametrize("case", CASES)
def test_a_fixed_mask_restricts_sdlogj_and_all_voxels_count_for_ndv(own, case):
    row = given_row(own, case)
    assert float(row["sdlogj_l2r"]) == pytest.approx(expect(case, "sdlogj_l2r_fixed_mask"), abs=1e-6)
    assert float(row["ndv_percent"]) == pytest.approx(expect(case, "ndv_full_grid::ndv_percent"), rel=1e-5)


@pytest.mark.parametrize("case", [c for c in CASES if EXPECTED["cases"][c]["spacing"] == [1, 1, 1]])
def test_itk_fields_score_as_the_voxel_fields_that_they_are(own, case):
    """At 1 mm no rounding to float32 mm comes between."""
    rows = [row for row in table(own, "labels.csv") if row["pair"] == pair_name(case)]
    np.testing.assert_allclose([number(r["dice"]) for r in rows], expect(case, "dice_per_label"), atol=1e-12)


def test_a_lost_label_costs_the_diagonal_in_our_form_and_infinity_in_the_challenges(own, challenge):
    case = "o3_folding_lost_label"
    found = {}
    for out in (own, challenge):
        rows = [r for r in table(out, "labels.csv") if r["pair"] == pair_name(case) and r["method"] == "given"]
        found[out] = float(rows[-1]["hd95_mm"]), float(rows[-1]["dice"])
        assert given_row(out, case)["n_lost"] == "1"
    assert found == {own: (math.hypot(32, 40, 36), 0), challenge: (math.inf, 0)}


def test_a_missing_label_is_blank_and_counted(challenge):
    case = "o2_missing_in_fixed"
    rows = [r for r in table(challenge, "labels.csv") if r["pair"] == pair_name(case)]
    assert [r["dice"] == "" for r in rows] == [label == 4 for label in LABELS] * 2
    assert given_row(challenge, case)["n_missing"] == "1" and given_row(challenge, case)["n_labels"] == "4"


def test_labels_have_the_datalists_names(challenge):
    assert {(r["label"], r["name"]) for r in table(challenge, "labels.csv")} == {
        (str(k), f"structure {k}") for k in LABELS
    }


def test_the_submission_holds_the_fields_as_they_were_given(challenge, golden):
    assert sorted(p.name for p in (challenge / "learn2reg").iterdir()) == ["before", "given"]
    for path in (golden / "voxels").iterdir():
        written = nib.load(challenge / "learn2reg" / "given" / path.name)
        assert written.get_data_dtype() == np.float32
        assert np.array_equal(written.get_fdata(), nib.load(path).get_fdata())
        assert not nib.load(challenge / "learn2reg" / "before" / path.name).get_fdata().any()


def test_nothing_but_the_results_lies_in_the_folder(challenge, own):
    tables = {"labels.csv", "pairs.csv", "summary.csv", "dice.png"}
    assert {path.name for path in own.iterdir()} == tables
    assert {path.name for path in challenge.iterdir()} == tables | {"comparison.csv", "learn2reg"}


def test_a_pairs_row_says_what_wrote_it(golden, own, tmp_path, monkeypatch):
    words = ["evaluate", "--dataset-dir", str(golden), "--method", f"given={golden / 'itk'}", "--reports", "0"]
    monkeypatch.setattr("sys.argv", ["regbundles", *words, "--out", str(tmp_path / "out")])
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    for row in table(tmp_path / "out", "pairs.csv"):
        written = f"regbundles evaluate --dataset-dir {golden.name} --method given=itk --reports 0 --out out"
        assert (row["command"], row["torch"], row["commit"]) == (written, torch.__version__, commit())
        assert row["device"] == ""  # that of a stored field is not known
    assert {row["command"] for row in table(own, "pairs.csv")} == {""}


# Two grids


@pytest.fixture
def shifted(tmp_path) -> Path:
    """The moving subject is the fixed one on an oblique grid with more voxels on the low side of each axis."""
    rng = np.random.default_rng(0)
    affine = np.array([[0, 1.2, 0.5, 10], [-2, 0, 0, 20], [0, -0.5, 1.2, -5], [0, 0, 0, 1.0]])
    label = np.zeros((9, 8, 10), np.uint8)
    label[2:6, 2:5, 3:8], label[6:8, 3:7, 2:5] = 1, 2
    points = rng.uniform(2, 6, (4, 3))
    more = np.array([3, 2, 1])
    moving_affine = affine.copy()
    moving_affine[:3, 3] -= affine[:3, :3] @ more
    subjects = {
        "fixed_0001": (affine, label, points),
        "moving_0002": (moving_affine, np.pad(label, [(k, 0) for k in more]), points + more),
    }
    for name, (grid, voxels, landmarks) in subjects.items():
        for kind, values in (("image", rng.random(voxels.shape).astype(np.float32)), ("label", voxels)):
            nib.save(nib.Nifti1Image(values, grid), tmp_path / f"{name}_{kind}.nii.gz")
        np.savetxt(tmp_path / f"{name}.csv", landmarks, delimiter=",", fmt="%.17g")
    item = {}
    for role, name in (("fixed", "fixed_0001"), ("moving", "moving_0002")):
        item |= {
            role: f"{name}_image.nii.gz",
            f"{role}_label": f"{name}_label.nii.gz",
            f"{role}_keypoints": f"{name}.csv",
        }
    header = {"name": "shifted", "orientation": "PLS", "spacing_mm": [2, 1.3, 1.3]}
    (tmp_path / "datalist.json").write_text(json.dumps({**header, "testing": [item]}))
    return tmp_path


def field_of(dataset: Path, voxels: tuple, out: Path) -> None:
    """A constant field, given in voxels of the fixed grid, as ITK reads it."""
    grid = nib.load(dataset / "fixed_0001_image.nii.gz")
    ddf_mm = torch.tensor(grid.affine[:3, :3] @ voxels, dtype=torch.float32).view(1, 3, 1, 1, 1)
    name = "fixed_0001_image__moving_0002_image"
    write_displacement(out / name / "displacement.nii.gz", ddf_mm.expand(1, 3, *grid.shape), grid.affine)


def test_the_headers_alone_align_what_they_say_is_aligned(shifted, tmp_path):
    evaluate(str(shifted), "testing", ["headers=none"], str(tmp_path / "out"))
    row = table(tmp_path / "out", "pairs.csv")[0]
    assert float(row["dice"]) == float(row["dice_linear"]) == 1 and float(row["hd95_mm"]) == 0
    assert float(row["tre_mm"]) == pytest.approx(0, abs=1e-5) and float(row["folds"]) == 0


@pytest.mark.parametrize("axis", range(3))
def test_a_field_displaces_by_its_own_voxels_whatever_the_moving_grid(shifted, tmp_path, axis):
    step = np.eye(3)[axis]
    field_of(shifted, step, tmp_path / "fields")
    evaluate(str(shifted), "testing", [f"moved={tmp_path / 'fields'}"], str(tmp_path / "out"), labels=[1])
    label = torch.from_numpy(np.asarray(nib.load(shifted / "fixed_0001_label.nii.gz").dataobj))[None, None].int()
    expected = float(dice(torch.roll(label, -1, axis + 2), label, [1]))
    row = table(tmp_path / "out", "pairs.csv")[0]
    assert float(row["dice"]) == pytest.approx(expected, abs=1e-12)
    spacing = np.linalg.norm(nib.load(shifted / "fixed_0001_image.nii.gz").affine[:3, axis])
    assert float(row["tre_mm"]) == pytest.approx(spacing, abs=1e-5)


def test_a_submission_of_two_grids_holds_differences_of_indices(shifted, tmp_path):
    evaluate(str(shifted), "testing", ["headers=none"], str(tmp_path / "out"), layout="learn2reg")
    values = nib.load(tmp_path / "out" / "learn2reg" / "headers" / "disp_0001_0002.nii.gz").get_fdata()
    np.testing.assert_allclose(values, np.broadcast_to([3, 2, 1], values.shape), atol=1e-6)


# Refusals


def run(golden, out, *words) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["evaluate", "--dataset-dir", str(golden), "--out", str(out), *words])
    error = result.exception
    return result.exit_code if error is None else getattr(error, "exit_status", result.exit_code), str(error)


def without(folder: Path) -> None:
    next(folder.glob("disp_0002*")).unlink()


def twice(folder: Path) -> None:
    shutil.copy(folder / "disp_0002_0002.nii.gz", folder / f"{pair_name(CASES[1])}.nii.gz")


def smaller(folder: Path) -> None:
    path = folder / "disp_0003_0003.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3, 3), np.float32), np.eye(4)), path)


def itk_named_as_voxels(folder: Path) -> None:
    write_displacement(folder / "disp_0003_0003.nii.gz", torch.zeros(1, 3, 32, 40, 36), np.eye(4))


def not_finite(folder: Path) -> None:
    path = folder / "disp_0001_0001.nii.gz"
    values = np.full((*EXPECTED["cases"][CASES[0]]["shape"], 3), np.nan, np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def damaged(folder: Path) -> None:
    (folder / "disp_0001_0001.nii.gz").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without, r"no prediction for 1 of 4 pairs, the first golden_0002"),
        (twice, "expected one file"),
        (smaller, r"disp_0003_0003.nii.gz has shape \(3, 3, 3, 3\), expected \(32, 40, 36, 3\)"),
        (itk_named_as_voxels, r"has shape \(32, 40, 36, 1, 3\)"),
        (not_finite, "NaN or infinite"),
        (damaged, "cannot be read"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(golden, tmp_path, spoil, words):
    folder = Path(shutil.copytree(golden / "voxels", tmp_path / "fields"))
    spoil(folder)
    with pytest.raises(RegInputError, match=words):
        evaluate(str(golden), "validation", [f"given={folder}"], str(tmp_path / "out"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and folder not in path.parents]


def test_a_field_on_another_grid_is_refused(golden, tmp_path):
    folder = Path(shutil.copytree(golden / "itk", tmp_path / "fields"))
    path = folder / pair_name(CASES[0]) / "displacement.nii.gz"
    write_displacement(path, torch.zeros(1, 3, *EXPECTED["cases"][CASES[0]]["shape"]), np.eye(4))
    with pytest.raises(RegInputError, match="has the affine"):
        evaluate(str(golden), "validation", [f"given={folder}"], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "a=none", "--section", "testing"], "expected 'testing'"),
        (["--method", "a=none", "--section", "training"], "expected validation or testing"),
        (["--method", "a=none", "--method", "a=none"], "none twice"),
        (["--method", "a=nowhere"], "no folder 'nowhere'"),
        (["--method", "none"], "expected --method NAME=SOURCE"),
        (["--method", "a/b=none"], "'a/b'"),
        (["--method", "a=none", "--overlay", "a=x.json"], "expected names of methods that are bundles"),
        (["--method", "a=none", "--override", "a:x"], "expected --override"),
        (["--method", "a=none", "--labels", "0,1"], "above 0"),
        (["--method", "a=none", "--labels", "1,1"], "distinct"),
        (["--method", "a=none", "--labels", "1-2-3"], "ranges such as"),
        (["--method", "a=none", "--format", "other"], "expected own or learn2reg"),
    ],
)
def test_requests_that_make_no_sense_end_with_status_2_and_no_file(golden, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, sentence = run(golden, tmp_path / "out", *arguments)
    assert status == 2 and words in sentence and not list(tmp_path.iterdir())


def edited(golden: Path, folder: Path, edit) -> Path:
    """The data set with another datalist."""
    shutil.copytree(golden, folder, dirs_exist_ok=True)
    content = json.loads((folder / "datalist.json").read_text())
    edit(content)
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


def test_pairs_without_labels_and_keypoints_are_refused(golden, tmp_path):
    def edit(content):
        del content["validation"][2]["moving_label"], content["validation"][2]["fixed_keypoints"]

    with pytest.raises(RegInputError, match="golden_0003_0000__golden_0003_0001 has no labels and no keypoints"):
        evaluate(str(edited(golden, tmp_path / "data", edit)), "validation", ["a=none"], str(tmp_path / "out"))


def test_keypoints_alone_are_scored_and_leave_no_label_tables(golden, tmp_path):
    def edit(content):
        content["validation"] = [{k: v for k, v in content["validation"][0].items() if not k.endswith("label")}]
        content["labels"] = {}

    said = []
    data, out = edited(golden, tmp_path / "data", edit), tmp_path / "out"
    evaluate(str(data), "validation", ["a=none"], str(out), say=said.append)
    assert sorted(path.name for path in out.iterdir()) == ["pairs.csv", "summary.csv"]
    assert table(out, "pairs.csv")[0]["dice"] == "" and "TRE mm" in said[0] and "Dice" not in said[0]


def test_names_without_ids_have_no_submission(golden, tmp_path):
    def edit(content):
        (tmp_path / "data" / "plain.nii.gz").write_bytes(
            (tmp_path / "data" / content["validation"][0]["fixed"]).read_bytes()
        )
        content["validation"][0]["fixed"] = "plain.nii.gz"

    data = edited(golden, tmp_path / "data", edit)
    with pytest.raises(RegInputError, match="hold no four-digit ids"):
        evaluate(str(data), "validation", ["a=none"], str(tmp_path / "out"), layout="learn2reg")


def test_without_names_every_label_of_the_fixed_maps_is_scored(golden, tmp_path):
    data = edited(golden, tmp_path / "data", lambda content: content.pop("labels"))
    evaluate(str(data), "validation", ["a=none"], str(tmp_path / "out"))
    assert {row["label"] for row in table(tmp_path / "out", "labels.csv")} == {str(k) for k in LABELS}


# Words


def test_ranges_are_written_out():
    assert ranges("1,5-7,3", "--labels") == [1, 5, 6, 7, 3]


def test_the_table_names_methods_counts_and_the_comparison(golden, tmp_path):
    said = []
    methods = ["before=none", f"given={golden / 'voxels'}"]
    evaluate(str(golden), "validation", methods, str(tmp_path), labels=[1, 4, 5], say=said.append)
    lines = [line.split() for line in said[0].splitlines()]
    assert lines[2][-2:] == ["missing", "lost"] and lines[3][-2:] == ["1", "0"] and lines[4][-2:] == ["1", "1"]
    assert lines[3][0] == "before" and ["before", "-", "given", "Dice"] in [line[:4] for line in lines]
    assert "several pairs" not in said[0]


def test_a_bundles_folder_is_known_by_its_configs(tmp_path):
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    sources = parse_methods(
        [f"a={tmp_path / 'bundle'}", f"b={tmp_path}", "c=none", "d=syn"], ["a=x.json"], ["a:k::l=1"]
    )
    assert [type(source).__name__ for source in sources.values()] == ["BundleRun", "Folder", "Identity", "SyN"]
    assert sources["a"].overlays == ("x.json",) and sources["a"].overrides == {"k::l": "1"}
    assert [device_type(sources[name]) for name in "bcd"] == ["", "", "cpu"]
