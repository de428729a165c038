"""The comparison with classical tools: what is measured, what is refused, and that a stopped run goes on."""

import csv
import shutil
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.errors import RegInputError
from common.phantom import phantom_subject
from common.transform_files import write_displacement
from tools.benchmark import pairs as pairs


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Two phantoms under the names of the first two subjects."""
    folder = tmp_path_factory.mktemp("malc")
    for name, seed in (("1000", 1), ("1001", 2)):
        subject = phantom_subject(seed, (32, 32, 32))
        for suffix, voxels in (("SS", subject.image), ("glm", subject.label)):
            array = np.asarray(voxels).reshape(32, 32, 32).astype(np.float32 if suffix == "SS" else np.int16)
            nib.save(nib.Nifti1Image(array, np.asarray(subject.affine)), folder / f"{name}_{suffix}.nii.gz")
    return folder


@pytest.fixture
def identity(monkeypatch):
    """No greedy: an affine that is the identity, and a method that writes no displacement; counts its calls."""
    calls = []

    def register(fixed, moving, affine, out):
        calls.append(fixed.name)
        time.sleep(0.05)
        write_displacement(out, torch.zeros(1, 3, *nib.load(fixed).shape), nib.load(fixed).affine)

    monkeypatch.setattr(pairs, "LABELS", range(1, 21))
    monkeypatch.setattr(
        pairs, "load_greedy", lambda: lambda command: np.savetxt(command.split("-o ")[1].split()[0], np.eye(4))
    )
    monkeypatch.setattr(pairs, "points_of", lambda method, threads: [pairs.Point(method, "one", register)])
    monkeypatch.setattr(pairs, "warm_up", lambda points, pair: None)
    return calls


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_field_of_nothing_scores_as_the_affine_does(scans, tmp_path, identity):
    affine, point = rows_of(pairs.benchmark_pairs(scans, tmp_path, ["svf"], threads=1, limit=1))
    assert (affine["method"], point["method"]) == ("affine", "svf") and point["dice"] == affine["dice"]
    assert 0.3 < float(point["dice"]) < 0.9
    assert float(point["sdlogj"]) == float(point["ndv_percent"]) == 0
    assert float(point["seconds"]) >= 0.05  # that the method slept


def test_a_run_that_goes_on_repeats_nothing_and_keeps_the_affine(scans, tmp_path, identity):
    path = pairs.benchmark_pairs(scans, tmp_path, ["svf"], threads=1, limit=1)
    pairs.benchmark_pairs(scans, tmp_path, ["svf"], threads=1, limit=1)
    assert len(identity) == 1 and len(rows_of(path)) == 2
    pairs.benchmark_pairs(scans, tmp_path, ["svf", "syn"], threads=1, limit=1)
    assert [row["method"] for row in rows_of(path)] == ["affine", "svf", "syn"]


def test_svf_registers_through_its_bundle(scans, tmp_path):
    np.savetxt(tmp_path / "affine.mat", np.eye(4))
    files = [scans / f"{name}_SS.nii.gz" for name in ("1000", "1001")]
    point = pairs.Point("svf", "short", pairs.svf({"levels": [[4, 4, 10], [2, 2, 10]]}))
    row = pairs.measure(point, *files, tmp_path / "affine.mat", tmp_path)
    assert float(row["sdlogj"]) > 0.01 and row["ndv_percent"] == 0


def test_missing_scans_and_strange_methods_are_refused(scans, tmp_path):
    with pytest.raises(RegInputError, match="1002"):
        pairs.benchmark_pairs(scans, tmp_path, ["svf"])
    with pytest.raises(RegInputError, match="expected svf, greedy or syn"):
        list(pairs.points_of("demons", 1))
    assert not list(tmp_path.iterdir())


def test_the_pairs_share_two_fixed_brains_and_no_brain_that_was_tuned_on():
    assert len(set(pairs.PAIRS)) == 10 and len({fixed for fixed, _ in pairs.PAIRS}) == 2
    assert not {"1013", "1014", "1015"} & {subject for pair in pairs.PAIRS for subject in pair}


@pytest.mark.reference
def test_greedy_writes_a_field_that_is_read_right(scans, tmp_path):
    pytest.importorskip("picsl_greedy")
    files = [shutil.copy(scans / f"{name}_SS.nii.gz", tmp_path) for name in ("1000", "1001")]
    np.savetxt(tmp_path / "affine.mat", np.eye(4))
    greedy = pairs.load_greedy()
    register = pairs.greedy_with(greedy, "-sv -n 20x20 -m NCC 2x2x2 -wp 0 -threads 1")
    register(*map(Path, files), tmp_path / "affine.mat", tmp_path / "field.nii.gz")
    assert nib.load(tmp_path / "field.nii.gz").shape[:3] == (32, 32, 32)
