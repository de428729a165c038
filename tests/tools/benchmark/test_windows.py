"""Memory of whole volumes by windows, on a tiny grid."""

import csv

import pytest

from common.errors import RegInputError
from tools.benchmark.windows import benchmark_windows


@pytest.mark.slow
def test_more_windows_in_flight_take_more_memory(tmp_path):
    sizes, said = [(64, 64, 64), (64, 64, 128)], []
    path = benchmark_windows(tmp_path, sizes, (1, 8), "Patch FCN small", threads=1, command="c", say=said.append)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["size"], row["windows_in_flight"]) for row in rows] == [
        (size, count) for size in ("64x64x64", "64x64x128") for count in "18"
    ]
    one, eight, _, of_longer = (float(row["one_stage_mib"]) for row in rows)
    features = 8 * 48**3 * 4 / 2**20  # MiB of a window's first layer
    assert eight > one + 7 * features
    assert of_longer < 1.5 * eight  # the volume is twice as large, the windows are as many
    assert all(0 < float(row["one_stage_mib"]) <= float(row["peak_memory_mib"]) for row in rows)
    assert float(rows[0]["fields_mib"]) == 3.0 and len(said) == 4 and rows[0]["command"] == "c"


@pytest.mark.parametrize(("network", "count"), [("EOIR 8", 4), ("Patch FCN light", 0), ("VGG", 4)])
def test_a_wrong_request_is_refused(network, count, tmp_path):
    with pytest.raises(RegInputError, match="expected one of the bundle patch_fcn"):
        benchmark_windows(tmp_path, [(32, 32, 32)], (count,), network)
