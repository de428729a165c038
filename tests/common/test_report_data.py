import base64

import numpy as np
import pytest
import torch

from common import report_data
from common.errors import RegInputError
from common.mosaic import Mosaic
from common.regularity import folds
from common.report_data import PairView, page_data
from common.spatial import identity_grid
from tests.common.test_mosaic import decoded

SIZE, SPACING = (12, 10, 9), (1.0, 1.5, 2.5)


def view(size=SIZE, spacing=SPACING, ddf=None, **parts) -> PairView:
    """Three images of noise and a still field."""
    images = torch.rand(3, 1, 1, *size, generator=torch.Generator().manual_seed(0))
    return PairView(*images, torch.zeros(1, len(size), *size) if ddf is None else ddf, spacing, **parts)


def volume_in(entry: dict) -> np.ndarray:
    return decoded(Mosaic(*(entry[name] for name in Mosaic._fields)))


def lattice_in(data: dict) -> np.ndarray:
    """(N, *nodes) in mm."""
    packed = data["displacement"]
    codes = np.frombuffer(base64.b64decode(packed["src"]), "<i2").reshape(len(packed["size"]), *packed["size"])
    return codes / 32767 * packed["extent"]


def test_displacements_are_in_mm_at_the_nodes_from_corner_to_corner(monkeypatch):
    """u = (2 x, 0, -z) voxels on a lattice of fewer nodes: linear, so the nodes hit it exactly."""
    monkeypatch.setattr(report_data, "LATTICE_NODES", 60)
    grid = identity_grid(SIZE, torch.zeros(1))
    ddf = torch.stack([0.02 * grid[0, 0], torch.zeros(SIZE), -0.01 * grid[0, 2]])[None]
    found = lattice_in(page_data(view(ddf=ddf)))
    assert found[0].size <= 60
    nodes = [np.linspace(0, n - 1, m) for n, m in zip(SIZE, found.shape[1:], strict=True)]
    x, _, z = np.meshgrid(*nodes, indexing="ij")
    np.testing.assert_allclose(found, [0.02 * x * 1.0, 0 * x, -0.01 * z * 2.5], atol=1e-4)


def test_every_voxel_that_folds_is_marked_and_counted():
    ddf = 3 * torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    data = page_data(view(ddf=ddf))
    marked = volume_in(data["folds"]) > 0
    assert data["folds"]["count"] == marked.sum() == int(folds(ddf).count)
    for axis, most in enumerate(data["folds"]["most"]):
        counts = marked.sum(tuple(k for k in range(3) if k != axis))
        assert counts[most] == counts.max()


def test_a_single_fold_stays_visible_where_the_grid_is_thinned_out(monkeypatch):
    monkeypatch.setattr(report_data, "IMAGE_VOXELS", 200)
    determinant = torch.ones(SIZE)
    determinant[7, 2, 5] = -1
    data = page_data(view(determinant=determinant))
    marked = volume_in(data["folds"]) > 0
    assert marked.size <= 200 and marked.any() and data["folds"]["count"] == 1
    cell = [int((k + 0.5) * m / n) for k, m, n in zip((7, 2, 5), marked.shape, SIZE, strict=True)]
    assert marked[tuple(cell)]


def test_a_map_without_folds_marks_none():
    assert page_data(view())["folds"] is None


def test_log_jacobians_are_gray_around_their_zero():
    """Doubling volume is as far from the middle as halving it."""
    determinant = torch.ones(SIZE)
    determinant[:4], determinant[8:] = 2.0, 0.5
    data = page_data(view(determinant=determinant))
    extent, gray = data["jacobian"]["extent"], volume_in(data["jacobian"]).astype(float)
    assert extent == 0.75  # the next quarter above log 2 = 0.69
    log = (gray / 127.5 - 1) * extent
    for part, expected in ((log[1:3], np.log(2)), (log[5:7], 0), (log[9:11], -np.log(2))):
        np.testing.assert_allclose(part, expected, atol=0.03)


def test_labels_keep_their_outlines_and_share_their_numbers(monkeypatch):
    """Values 7 and 300 are 1 and 2 in both maps; a thinned map has the label of a voxel that each new one covers."""
    fixed, warped = torch.zeros(2, 1, 1, *SIZE, dtype=torch.int32)
    fixed[..., 2:8, 2:6, 2:6], warped[..., 3:9, 2:6, 2:6] = 300, 300
    fixed[..., 9:, :, :] = 7
    data = page_data(view(fixed_label=fixed, warped_label=warped))
    assert np.array_equal(volume_in(data["labels"]["fixed"]), np.select([fixed[0, 0] == 7, fixed[0, 0] == 300], [1, 2]))
    assert np.array_equal(volume_in(data["labels"]["warped"]), 2 * (warped[0, 0] == 300))
    monkeypatch.setattr(report_data, "LABEL_VOXELS", 1080 // 8 + 20)
    thin = volume_in(page_data(view(spacing=(1, 1, 1), fixed_label=fixed))["labels"]["fixed"])
    assert set(np.unique(thin)) == {0, 1, 2} and abs((thin == 2).mean() - 96 / 1080) < 0.06


def test_a_pair_without_labels_has_none():
    assert page_data(view())["labels"] == {}


@pytest.mark.parametrize("limit", [10**7, 300])
def test_images_keep_their_mean_grays_on_any_grid(monkeypatch, limit):
    monkeypatch.setattr(report_data, "IMAGE_VOXELS", limit)
    shown = view()
    data = page_data(shown)
    fixed = shown.fixed[0, 0].numpy()
    low, high = np.percentile(fixed, (1, 99))
    expected = np.clip((fixed - low) / (high - low), 0, 1).mean()
    found = volume_in(data["images"]["fixed"])
    assert found.size <= limit and abs(found.mean() / 255 - expected) < 0.01


def test_flat_images_and_two_axes_can_be_shown():
    flat = torch.zeros(1, 1, 20, 16)
    data = page_data(PairView(flat, flat, flat, torch.zeros(1, 2, 20, 16), (1.0, 2.0)))
    assert [plane["axis"] for plane in data["planes"]] == [None] and data["center"] == [10, 8]
    assert data["difference"] > 0 and data["displacement"]["extent"] > 0


def test_a_view_that_fits_no_image_is_refused():
    with pytest.raises(RegInputError, match="spacing_mm"):
        page_data(view(spacing=(1, 1)))


def test_the_map_of_the_error_is_there_in_mm_where_it_is_known():
    error_mm = torch.linspace(0.5, 4.5, SIZE[0]).view(-1, 1, 1).expand(SIZE)
    found = page_data(view(error_mm=error_mm))["error"]
    assert found["most"] == pytest.approx(4.5)
    np.testing.assert_allclose(volume_in(found) / 255 * found["most"], error_mm, atol=0.1)
    assert page_data(view())["error"] is None
