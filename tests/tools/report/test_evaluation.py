import pytest

from common.phantom import ensure_phantom
from tools.evaluate import evaluate
from tools.report.gather import gather

from .folders import write_pair

HEADER = "method,pair,fixed,moving,dice,hd95_mm,folds_percent,n_labels,seconds\n"


def test_what_evaluate_writes_is_read(tmp_path):
    data = ensure_phantom(tmp_path / "data", subjects=2, size=(16, 16, 16), validation_pairs=2, testing_pairs=1)
    evaluate(data, "validation", ["before=none"], str(tmp_path / "out"), say=lambda text: None)
    found = gather(tmp_path / "out")
    assert len(found.pairs) == 2 and not found.left_out
    for pair in found.pairs:  # tools/evaluate.py has left their reports
        names = "__".join(name.removesuffix(".nii.gz") for name in (pair.fixed, pair.moving))
        assert pair.method == "before" and pair.folder == f"reports/before/{names}" and "report" in pair.files
    assert all(0 < pair.numbers["dice"] < 1 and pair.numbers["folded_percent"] == 0 for pair in found.pairs)


def test_rows_join_the_folders_of_their_method_and_pair(tmp_path):
    write_pair(
        tmp_path / "predictions" / "svf" / "f__m", dice=0.1, dice_before=0.3, verdict="ok", files=("report.html",)
    )
    write_pair(tmp_path / "predictions" / "eoir" / "f__m", dice=0.2)
    (tmp_path / "pairs.csv").write_text(f"{HEADER}svf,f__m,f.nii.gz,m.nii.gz,0.7,1.5,0.25,3,\n")
    svf, eoir = sorted(gather(tmp_path).pairs, key=lambda pair: pair.name, reverse=True)
    assert svf.numbers == {"dice_before": 0.3, "dice": 0.7, "hd95_mm": 1.5, "folded_percent": 0.25}
    assert (svf.method, svf.verdict, svf.files) == ("svf", "ok", {"report": "report.html"})
    assert eoir.numbers == {"dice": 0.2} and eoir.method == ""


def test_a_prediction_and_its_report_are_one_pair(tmp_path):
    write_pair(tmp_path / "predictions" / "svf" / "f__m", dice_before=0.3, verdict="check", reasons=["Look."])
    seen = ("report.html", "thumbnail.jpg")
    write_pair(tmp_path / "reports" / "svf" / "f__m", dice_before=0.4, inverse_residual_mm=0.1, files=seen)
    write_pair(tmp_path / "reports" / "svf" / "f__n", files=seen)
    (tmp_path / "pairs.csv").write_text(f"{HEADER}svf,f__m,f.nii.gz,m.nii.gz,0.7,,,,\n")
    first, second = gather(tmp_path).pairs
    assert (first.folder, first.verdict, first.reasons) == ("reports/svf/f__m", "check", ("Look.",))
    assert first.numbers == {"dice_before": 0.4, "inverse_residual_mm": 0.1, "dice": 0.7}
    assert second.folder == "reports/svf/f__n"


def test_rows_without_a_folder_are_pairs_of_their_own(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pairs.csv").write_text(f"{HEADER}none,f__m,f.nii.gz,m.nii.gz,0.5,inf,0,3,\n")
    (pair,) = gather(tmp_path).pairs
    assert (pair.name, pair.folder, pair.fixed, pair.moving) == ("run/none/f__m", None, "f.nii.gz", "m.nii.gz")
    assert pair.numbers == {"dice": 0.5, "hd95_mm": float("inf"), "folded_percent": 0.0}


def test_a_table_does_not_reach_folders_that_are_not_below_it(tmp_path):
    write_pair(tmp_path / "other" / "svf" / "f__m", dice=0.1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pairs.csv").write_text(f"{HEADER}svf,f__m,f.nii.gz,m.nii.gz,0.7,,,,\n")
    assert {pair.name: pair.numbers["dice"] for pair in gather(tmp_path).pairs} == {
        "other/svf/f__m": 0.1, "run/svf/f__m": 0.7
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", HEADER, "method,pair\nx,y\n", "\x00\xff"])
def test_a_foreign_table_is_left_out_by_name(tmp_path, text):
    write_pair(tmp_path / "p")
    (tmp_path / "pairs.csv").write_text(text, encoding="latin-1")
    found = gather(tmp_path)
    assert len(found.pairs) == 1 and found.left_out[0].path == "pairs.csv"


def test_a_row_cut_short_counts_as_far_as_it_goes(tmp_path):
    (tmp_path / "pairs.csv").write_text(f"{HEADER}svf,f__m,f.nii.gz,m.nii.gz,0.7\nsvf\n")
    (pair,) = gather(tmp_path).pairs
    assert pair.numbers == {"dice": 0.7}
