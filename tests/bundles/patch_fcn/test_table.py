import torch
from patch_fcn_bundle.table import DiceBefore, FoldedVoxels, PaperTable

from common.scoring import MeanDice


def folded_field() -> torch.Tensor:
    """One plane of neighbors exchanged along the first axis."""
    ddf = torch.zeros(1, 3, 6, 4, 5)
    ddf[:, 0, 2], ddf[:, 0, 3] = 2.0, -2.0
    return ddf


def test_folds_are_counted_over_the_whole_grid():
    """Central differences: u' = (u[i + 1] - u[i - 1]) / 2 is -1 or less where the planes 2 and 3 are passed."""
    count, percent = (FoldedVoxels(percent).of_pair(folded_field(), {}) for percent in (False, True))
    assert count == 2 * 20 and percent == 100 * 40 / 120


def test_overlap_before_ignores_the_field():
    label = torch.zeros(1, 1, 6, 4, 5, dtype=torch.int64)
    label[:, :, 2:4] = 1
    pair = {"fixed_label": label, "moving_label": label}
    assert DiceBefore().of_pair(folded_field(), pair) == 1 > MeanDice().of_pair(folded_field(), pair)


def test_means_and_deviations_stand_below_the_published_rows(tmp_path):
    values = {"before": [0.4, 0.6], "dice": [0.5, 0.7, float("nan")], "count": [10, 30], "percent": [1e-4, 3e-4]}
    metrics = {}
    for name, found in values.items():
        metrics[name] = FoldedVoxels()
        metrics[name].values = found
    PaperTable(str(tmp_path / "t.md"), "Set", [["SyN", "0.5 (0.1)", "7 (1)", "1e-3 (1e-4)"]], metrics)(None)
    rows = (tmp_path / "t.md").read_text().splitlines()
    assert rows[0].startswith("Set: mean") and rows[4] == "| paper: SyN | 0.5 (0.1) | 7 (1) | 1e-3 (1e-4) |"
    assert rows[5] == "| here, 3 pairs: as prepared | 0.500 (0.141) |  |  |"
    assert rows[6] == "| here, 3 pairs: Patch FCN | 0.600 (0.141) | 20.0 (14.14) | 2.00e-04 (1.41e-04) |"
