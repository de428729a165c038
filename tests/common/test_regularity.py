import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common import regularity
from common.errors import RegInputError
from common.regularity import folds, ndv, non_diffeomorphic, sdlogj, sdlogj_l2r
from common.spatial import identity_grid, jacobian_determinant
from tests.common.test_metrics import CASES, EXPECTED, GOLDEN, Case

SIZE = (20, 22, 24)
FEW = settings(max_examples=25, derandomize=True, deadline=None)


class Masks:
    def __init__(self, name):
        arrays = np.load(GOLDEN / "metrics.npz")
        self.fixed = torch.from_numpy(arrays[f"{name}/fixed_mask"] == 1)[None, None]
        self.moving = torch.from_numpy(arrays[f"{name}/moving_image"] > 0)[None, None]


def analytic(name):
    ddf = torch.zeros(1, 3, *SIZE, dtype=torch.float64)
    i, j, k = identity_grid(SIZE, ddf)[0].double()
    ddf[0, 0] = {
        "identity": 0 * i,
        "reflect_axis0": -2 * i,
        "collapse_axis0": -i,
        "checkerboard_axis0_0.6": 0.6 * (-1) ** (i + j + k),
        "alternating_axis0_0.6": 0.6 * (-1) ** i,
    }[name]
    return ddf


def affine_field(matrix, size=(6, 7, 8)):
    grid = identity_grid(size, torch.zeros(1)).double()
    return torch.einsum("ij,bj...->bi...", torch.as_tensor(matrix, dtype=torch.float64) - torch.eye(len(size)), grid)


def random_field(seed, size=(5, 6, 7), scale=1.0):
    return scale * torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual, expected, tolerance, relative=0.0):
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        atol=tolerance,
        rtol=relative,
        equal_nan=True,
    )


# Stored references: the challenges' evaluations


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("key", "crop"), [("jacobian_central_crop2", 2), ("jacobian_npgradient_full", 0)])
def test_folds_and_determinants_equal_the_reference(name, key, crop):
    case = Case(name)
    expected = case.expected[key]
    det = jacobian_determinant(case.ddf)[0][tuple(slice(crop, n - crop) for n in case.fixed.shape[2:])]
    assert det.numel() == expected["n_voxels"]
    close([det.min(), det.max(), det.mean()], [expected[word] for word in ("min", "max", "mean")], 1e-12)
    found = folds(case.ddf, crop=crop)
    assert found.count.item() == expected["n_nonpositive"]
    close(found.percent.item(), expected["percent_nonpositive"], 1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-6)])
def test_sdlogj_equals_the_challenge(name, dtype, tolerance):
    case = Case(name)
    close(sdlogj_l2r(case.ddf.to(dtype)).item(), case.expected["sdlogj_l2r"], tolerance)
    masked = sdlogj_l2r(case.ddf.to(dtype), Masks(name).fixed)
    close(masked.item(), case.expected["sdlogj_l2r_fixed_mask"], tolerance)


@pytest.mark.parametrize("name", CASES)
def test_textbook_sdlogj_equals_the_reference(name):
    close(sdlogj(Case(name).ddf).item(), Case(name).expected["sdlogj_textbook"], 1e-7)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("key", ["ndv_lumir_mask", "ndv_full_grid"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ndv_equals_the_challenge(name, key, dtype):
    case = Case(name)
    mask = Masks(name).moving if key == "ndv_lumir_mask" else None
    expected = case.expected[key]
    found = non_diffeomorphic(case.ddf.to(dtype), mask)
    assert found.voxels.item() == expected["n_voxels"]
    assert found.nd_voxels.item() == expected["nd_voxels"]
    assert found.nd_tetrahedra.item() == pytest.approx(expected["nd_tetrahedra"], abs=1e-9)
    close(found.ndv.item(), expected["ndv"], 0, relative=1e-9)
    close(ndv(case.ddf.to(dtype), mask).item(), expected["ndv_percent"], 0, relative=1e-9)


@pytest.mark.parametrize("name", list(EXPECTED["analytic"]))
def test_analytic_fields_equal_the_reference(name):
    ddf, expected = analytic(name), EXPECTED["analytic"][name]
    found = non_diffeomorphic(ddf)
    assert found.voxels.item() == expected["n_voxels"] == 18 * 20 * 22
    assert found.nd_voxels.item() == expected["nd_voxels"]
    assert found.nd_tetrahedra.item() == pytest.approx(expected["nd_tetrahedra"], abs=1e-9)
    close(found.ndv.item(), expected["ndv"], 1e-9)
    close(ndv(ddf).item(), expected["ndv_percent"], 1e-9)
    close(sdlogj_l2r(ddf).item(), expected["sdlogj_l2r"], 1e-9)
    assert folds(ddf, crop=2).count.item() == expected["n_nonpositive_central_crop2"]


# Analytic answers


def test_an_alternating_field_is_invisible_to_central_differences_only():
    """A tenth of the volume folds although the central determinant is 1 everywhere inside."""
    ddf = analytic("alternating_axis0_0.6")
    assert folds(ddf, crop=1).count.item() == 0
    close(ndv(ddf).item(), 10.0, 1e-9)


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.1, 0.9, 1.3]),
        np.eye(3) + np.eye(3, k=1) * 0.7 - np.eye(3, k=-2) * 0.4,
        np.diag([-1.0, 1, 1]),
        np.diag([1.0, -0.5, 2]),
        np.diag([1.2, 1, -1]) + 0.1,
    ],
)
def test_ndv_of_an_affine_field_is_its_reversed_volume(matrix):
    close(ndv(affine_field(matrix)).item(), 100 * max(-np.linalg.det(matrix), 0), 1e-9)


@pytest.mark.parametrize("matrix", [np.diag([1.1, 0.9, 1.3]), np.eye(3) + np.eye(3, k=1) * 0.7])
def test_affine_fields_have_no_spread(matrix):
    assert sdlogj(affine_field(matrix)).item() < 1e-9 and sdlogj_l2r(affine_field(matrix)).item() < 1e-9


def test_ndv_agrees_with_determinants_written_out_voxel_by_voxel():
    u = random_field(3)[0].numpy()
    phi = u + np.stack(np.meshgrid(*[np.arange(n) for n in u.shape[1:]], indexing="ij"))
    faces = [((s0, 0, 0), (0, s1, 0), (0, 0, s2)) for s0, s1, s2 in itertools.product((1, -1), repeat=3)]
    faces += [((-1, -1, 0), (-1, 0, -1), (0, -1, -1)), ((1, 1, 0), (0, 1, 1), (1, 0, 1))]
    volume, folded, voxels = 0.0, 0, 0
    for x in itertools.product(*[range(1, n - 1) for n in u.shape[1:]]):
        voxels += 1
        for steps in faces:
            sign = np.prod([sum(step) for step in steps]) if max(map(np.count_nonzero, steps)) == 1 else 1
            rows = [phi[(slice(None), *np.add(x, step))] - phi[(slice(None), *x)] for step in steps]
            det = sign * np.linalg.det(rows)
            volume += max(-det, 0) / 12
            folded += det <= 0
    found = non_diffeomorphic(torch.from_numpy(u)[None])
    assert found.voxels.item() == voxels
    close(found.ndv.item(), volume, 1e-9)
    assert found.nd_tetrahedra.item() == pytest.approx(folded / 10)


def test_sdlogj_of_a_field_that_stretches_two_halves():
    """det J is 2 in one half and 1 / 2 in the other, but for the planes where they meet."""
    ddf = torch.zeros(1, 2, 404, 5, dtype=torch.float64)
    stretch = torch.tensor([1.0] * 202 + [-0.5] * 202, dtype=torch.float64)
    ddf[0, 0] = stretch.cumsum(0)[:, None]
    close(sdlogj(ddf).item(), math.log(2), 2e-3)
    close(sdlogj_l2r(ddf).item(), (math.log(5) - math.log(3.5)) / 2, 2e-3)


def test_folds_of_a_drawn_2d_field():
    """The second row is drawn back over the first: one-sided -1 at the face, central 0 in it, 2 behind it."""
    ddf = torch.zeros(1, 2, 4, 3, dtype=torch.float64)
    ddf[0, 0, 1] = -2  # rows at 0, -1, 2, 3: derivatives -1, 1, 2, 1
    ddf[0, 0, 2] = -2  # rows at 0, -1, 0, 3: derivatives -1, 0, 2, 3
    found = folds(ddf)
    assert found.count.item() == 6 and found.percent.item() == 50
    mask = torch.ones(1, 1, 4, 3)
    mask[..., 0, :] = 0
    assert folds(ddf, mask).count.item() == 3
    close(folds(ddf, mask).percent.item(), 100 / 3, 1e-12)


def test_sdlogj_crops_like_the_challenge_by_default():
    ddf = random_field(0, (8, 9, 10), 0.1)
    close(sdlogj(ddf), sdlogj(ddf[:, :, 1:-1, 1:-1, 1:-1], crop=1), 1e-12)
    assert abs(sdlogj(ddf, crop=0) - sdlogj(ddf)).item() > 1e-4


# Properties


@FEW
@given(seed=st.integers(0, 2**16), scale=st.floats(0, 3), shift=st.floats(-20, 20))
def test_regularity_ignores_translation_and_the_order_of_axes(seed, scale, shift):
    ddf = random_field(seed, scale=scale)
    turned = ddf[:, [2, 0, 1]].permute(0, 1, 4, 2, 3)
    assert ndv(ddf).item() >= 0
    for other in (ddf + shift, turned):
        close(non_diffeomorphic(other).nd_voxels, non_diffeomorphic(ddf).nd_voxels, 0)
        close(sdlogj_l2r(other), sdlogj_l2r(ddf), 1e-9)
        close(folds(other).count, folds(ddf).count, 0)
    close(ndv(ddf + shift), ndv(ddf), 1e-9)


@FEW
@given(seed=st.integers(0, 2**16))
def test_small_displacements_never_fold(seed):
    """Differences of a displacement within +-0.1 stay below the 1 of the identity by far."""
    ddf = 0.1 * torch.rand(1, 3, 5, 6, 7, generator=torch.Generator().manual_seed(seed))
    assert ndv(ddf).item() == folds(ddf).count.item() == 0


def test_tiles_of_any_size_give_the_same_counts(monkeypatch):
    ddf = random_field(1, (11, 6, 7))
    mask = torch.rand(1, 1, 11, 6, 7) > 0.3
    whole = non_diffeomorphic(ddf, mask)
    for voxels in (1, 7, 3 * 7, 4 * 7, 2 * 4 * 7, 5 * 4 * 7):
        monkeypatch.setattr(regularity, "TILE_VOXELS", voxels)
        for a, b in zip(non_diffeomorphic(ddf, mask), whole, strict=True):
            close(a, b, 1e-9)


def test_a_batch_has_the_scores_of_its_pairs():
    ddf = torch.cat([random_field(0), random_field(1, scale=0.7)])
    mask = torch.rand(2, 1, 5, 6, 7) > 0.3
    for score in (sdlogj, sdlogj_l2r, ndv, lambda u, m: folds(u, m).percent):
        close(score(ddf, mask), torch.cat([score(ddf[k : k + 1], mask[k : k + 1]) for k in range(2)]), 1e-12)


# Empty cases and contracts


def test_no_voxel_that_counts_gives_nan():
    ddf, mask = random_field(0), torch.zeros(1, 1, 5, 6, 7)
    for value in (sdlogj(ddf, mask), sdlogj_l2r(ddf, mask), ndv(ddf, mask), folds(ddf, mask).percent):
        assert value.isnan().item()
    assert folds(ddf, mask).count.item() == 0 and non_diffeomorphic(ddf, mask).ndv.item() == 0


def test_a_field_of_nan_folds_everywhere():
    ddf = torch.full((1, 3, 5, 5, 5), torch.nan)
    assert folds(ddf).percent.item() == 100
    assert non_diffeomorphic(ddf).nd_voxels.item() == 27 and ndv(ddf).isnan().item()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: folds(torch.zeros(1, 2, 5, 5, 5)), r"\[1, 2, 5, 5, 5\]"),
        (lambda: folds(torch.zeros(3, 5, 5)), r"\[3, 5, 5\]"),
        (lambda: folds(torch.zeros(1, 2, 1, 5)), "at least 2 voxels"),
        (lambda: sdlogj(torch.zeros(1, 3, 4, 5, 5)), "at least 5 voxels"),
        (lambda: sdlogj_l2r(torch.zeros(1, 3, 5, 5, 5), torch.zeros(1, 5, 5, 5)), "mask is"),
        (lambda: ndv(torch.zeros(1, 3, 2, 5, 5)), "at least 3 voxels"),
        (lambda: ndv(torch.zeros(1, 2, 5, 5)), "use folds"),
        (lambda: ndv(torch.zeros(2, 3, 5, 5, 5), torch.zeros(1, 1, 5, 5, 5)), "mask is"),
    ],
)
def test_errors_say_what_was_found(call, words):
    with pytest.raises(RegInputError, match=words):
        call()
