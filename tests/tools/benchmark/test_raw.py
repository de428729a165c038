import csv

import nibabel as nib
import pytest

from common.errors import RegInputError
from tools.benchmark import raw as benchmark
from tools.benchmark.raw import benchmark_raw
from tools.benchmark.raw_cases import Case
from tools.benchmark.thick_phantom import deformed_pair, errors_mm, write_cubes


def test_results_of_another_run_are_not_measured_again(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegInputError, match="has content"):
        benchmark_raw(tmp_path, tmp_path / "out", ["lung"], work=tmp_path)
    assert not (tmp_path / "out").exists()


def test_missing_scans_are_told_before_any_work(tmp_path):
    with pytest.raises(RegInputError, match="missing"):
        benchmark_raw(tmp_path / "data", tmp_path / "out", ["icbm152", "lung"], work=tmp_path / "work")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_row_has_the_scores_of_the_command(tmp_path, monkeypatch):
    """Two pairs of small phantoms: one with labels, one with a known deformation."""
    pair = deformed_pair((40, 40, 50), 4.0)
    images = [write_cubes(scan, tmp_path / f"{k}.nii.gz") for k, scan in enumerate(pair)]
    masks = [
        write_cubes(scan._replace(image=scan.body.float()), tmp_path / f"m{k}.nii.gz") for k, scan in enumerate(pair)
    ]
    cases = {
        "labels": Case(*images, ("--fixed-label", str(masks[0]), "--moving-label", str(masks[1]))),
        "truth": Case(*images, errors=lambda field: errors_mm(pair[0], field)),
    }
    monkeypatch.setattr(benchmark, "find_cases", lambda data, work, names: {name: cases[name] for name in names})
    said, work = [], tmp_path / "work"
    path = benchmark_raw(tmp_path, tmp_path / "out", list(cases), threads=1, work=work, command="c", say=said.append)
    labels, truth = csv.DictReader(path.open())
    assert float(labels["dice_before"]) < float(labels["dice"]) and labels["error_mm"] == ""
    assert float(truth["error_mm"]) < 0.7 * float(truth["error_mm_before"]) and truth["dice"] == ""
    assert float(truth["seconds"]) > 0 and 0.2 < float(truth["peak_gib"]) < 4 and truth["command"] == "c"
    assert len(said) == 2 and (work / "labels" / "registration.png").is_file()
    assert nib.load(work / "truth" / "warped.nii.gz").shape == nib.load(images[0]).shape
