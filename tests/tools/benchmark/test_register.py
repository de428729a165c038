import csv

import nibabel as nib
import pytest

from tools.benchmark.register import benchmark_register, write_scans


def test_the_scans_have_the_size_and_show_two_subjects(tmp_path):
    first, second = (nib.load(path) for path in write_scans(tmp_path / "s", (40, 32, 24)))
    assert first.shape == second.shape == (40, 32, 24) and first.header.get_zooms()[0] == pytest.approx(6)
    assert (first.get_fdata() != second.get_fdata())[first.get_fdata() > 0].mean() > 0.3


@pytest.mark.slow
def test_a_row_has_what_the_command_took(tmp_path):
    path = benchmark_register(tmp_path / "results", [(32, 32, 32)], threads=1, say=lambda line: None)
    (row,) = csv.DictReader(path.open())
    assert row["size"] == "32x32x32" and row["bundle"] == "svf"
    assert 0 < float(row["cpu_seconds"]) and 0.2 < float(row["peak_gib"]) < 4  # torch, ITK and MONAI are about one
