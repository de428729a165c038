"""The table of lung-mask Dice, from pairs whose scores are known and from a whole small evaluation."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import RegInputError
from tools.__main__ import app
from tools.benchmark.report_lung import report_lung
from tools.data.lung_ct import prepare

from ..data.test_lung_ct import learn2reg


def write_pairs(folder, rows):
    """``pairs.csv`` with what is read of it; rows of method, fixed, moving, Dice."""
    with (folder / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["method", "pair", "fixed", "moving", "dice"])
        table.writerows([m, "p", f"LungCT_{f}.nii.gz", f"LungCT_{v}.nii.gz", d] for m, f, v, d in rows)


@pytest.fixture
def scores(tmp_path):
    """Two methods on one pair of a patient and three of two patients."""
    cases = [("0001", "0001_0001"), ("0001", "0002_0000"), ("0002", "0001_0000"), ("0003", "0001_0000")]
    pairs = [(f"{fixed}_0000", moving) for fixed, moving in cases]
    dice = {"initial": (0.8, 0.5, 0.6, 0.7), "ncf": (0.95, 0.9, 0.9, 0.9)}
    write_pairs(tmp_path, [(name, *pair, d) for name in dice for pair, d in zip(pairs, dice[name], strict=True)])
    return tmp_path


@pytest.fixture
def bundle(tmp_path):
    """A config whose network has 3 * 2 + 2 parameters."""
    (tmp_path / "toy" / "configs").mkdir(parents=True)
    config = {"network_def": {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}}
    (tmp_path / "toy" / "configs" / "inference.json").write_text(json.dumps(config))
    return tmp_path / "toy"


def test_groups_are_told_by_the_patients(scores, bundle):
    path, text = report_lung(scores, {"ncf": bundle})
    initial, ncf = csv.DictReader(path.open())
    assert [initial[f"{group}_n"] for group in ("inter", "intra", "pooled")] == ["3", "1", "4"]
    found = [float(initial[f"{group}_dice"]) for group in ("inter", "intra", "pooled")]
    assert found == pytest.approx([0.6, 0.8, 0.65])
    assert float(initial["inter_std"]) == pytest.approx(0.1) and initial["intra_std"] == ""
    assert (initial["parameters"], ncf["parameters"]) == ("", "8")
    assert text.splitlines()[2].split() == "method inter (3) intra (1) pooled (4) parameters (M)".split()
    assert text.splitlines()[3].split() == "initial 0.600 +- 0.100 0.800 0.650 +- 0.129".split()


def test_the_way_from_the_archive_to_the_table(tmp_path):
    """Fields that are the identity score what the headers do: the initial Dice, which is computed here again."""
    cases = ("0001", "0002", "0003")
    prepare(str(learn2reg(tmp_path / "raw", cases)), str(tmp_path / "data"), workers=1, cases=cases)
    runner = CliRunner()

    def run(*words):
        result = runner.invoke(app, list(map(str, words)))
        assert result.exit_code == 0, result.output
        return result.output

    data = ("--dataset-dir", tmp_path / "data", "--section", "testing", "--sdlogj-in-mask")
    run("evaluate", *data, "--method", "initial=none", "--out", tmp_path / "scores")
    text = run("benchmark", "report", "lung", "--scores", tmp_path / "scores")
    assert "inter (6)" in text and "intra (3)" in text and "pooled (9)" in text
    row = next(csv.DictReader((tmp_path / "scores" / "lung.csv").open()))
    masks = {
        (case, phase): np.asarray(nib.load(tmp_path / "raw" / "masksTr" / f"LungCT_{case}_000{phase}.nii.gz").dataobj)
        > 0
        for case in cases
        for phase in (0, 1)
    }
    both = [(masks[case, 0], masks[case, 1]) for case in cases]
    dice = [2 * (fixed & moving).sum() / (fixed.sum() + moving.sum()) for fixed, moving in both]
    assert float(row["intra_dice"]) == pytest.approx(np.mean(dice), abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "1_0", "1_1", 0.5)], "expected Dice of LungCT images"),
        ([("a", "0001_0000", "0001_0001", "")], "with the Dice ''"),
    ],
)
def test_scores_of_something_else_are_refused(tmp_path, rows, message):
    write_pairs(tmp_path, rows)
    with pytest.raises(RegInputError, match=message):
        report_lung(tmp_path)
    assert not (tmp_path / "lung.csv").exists()


def test_what_is_missing_is_named(scores, bundle, tmp_path):
    with pytest.raises(RegInputError, match=r"pairs\.csv is missing"):
        report_lung(tmp_path / "nowhere")
    with pytest.raises(RegInputError, match=r"given for \['svf'\]"):
        report_lung(scores, {"svf": bundle})
    with pytest.raises(RegInputError, match=r"inference\.json is missing"):
        report_lung(scores, {"ncf": tmp_path})
    (bundle / "configs" / "inference.json").write_text("{}")
    with pytest.raises(RegInputError, match="no network_def"):
        report_lung(scores, {"ncf": bundle})
