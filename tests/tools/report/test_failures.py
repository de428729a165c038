from common.cohort import FailedPair, write_failures
from tools.report.gather import gather

from .folders import write_pair

ROW = FailedPair("f__m", "f.nii.gz", "m.nii.gz", "m.nii.gz is constant.")


def test_a_pair_without_a_folder_is_failed_for_its_reason(tmp_path):
    (tmp_path / "run").mkdir()
    write_failures([ROW], tmp_path / "run" / "failures.csv")
    (pair,) = gather(tmp_path).pairs
    assert (pair.name, pair.folder, pair.fixed, pair.moving) == ("run/f__m", None, "f.nii.gz", "m.nii.gz")
    assert (pair.verdict, pair.reasons, pair.numbers) == ("failed", ("m.nii.gz is constant.",), {})


def test_an_older_registration_in_the_pairs_folder_is_called_failed_too(tmp_path):
    write_pair(tmp_path / "f__m", verdict="check", reasons=["look"], dice=0.5)
    write_failures([ROW], tmp_path / "failures.csv")
    (pair,) = gather(tmp_path).pairs
    assert (pair.verdict, pair.reasons, pair.numbers) == ("failed", (ROW.sentence, "look"), {"dice": 0.5})


def test_another_table_of_that_name_is_left_out(tmp_path):
    write_pair(tmp_path / "p")
    (tmp_path / "failures.csv").write_text("disk,date\nsda,1999\n")
    found = gather(tmp_path)
    assert len(found.pairs) == 1 and found.left_out[0].path == "failures.csv"
