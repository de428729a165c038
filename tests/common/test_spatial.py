import numpy as np
import pytest
import torch
from monai.networks.blocks import Warp
from scipy.ndimage import map_coordinates

from common.spatial import compose, identity_grid, jacobian_determinant, upsample, warp

SIZES = [(7, 6), (7, 6, 5)]


def affine_field(matrix: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    """u(x) = matrix (x - center) as a ddf (1, N, *size), float64."""
    grid = identity_grid(size, torch.zeros(1)).double()
    center = (torch.tensor(size, dtype=torch.float64) - 1).view(1, -1, *[1] * len(size)) / 2
    return torch.einsum("ij,bj...->bi...", torch.as_tensor(matrix, dtype=torch.float64), grid - center)


@pytest.mark.parametrize("size", SIZES)
def test_zero_field_is_identity(size):
    image = torch.rand(2, 3, *size)
    torch.testing.assert_close(warp(image, torch.zeros(2, len(size), *size)), image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("axis", range(3))
def test_unit_shift_reads_the_next_voxel_along_each_axis(axis):
    """warped(x) = moving(x + 1): the direction and axis order every bundle relies on."""
    image, ddf = torch.rand(1, 1, 5, 6, 7), torch.zeros(1, 3, 5, 6, 7)
    ddf[:, axis] = 1
    warped = warp(image, ddf).narrow(axis + 2, 0, image.shape[axis + 2] - 1)
    expected = image.narrow(axis + 2, 1, image.shape[axis + 2] - 1)
    torch.testing.assert_close(warped, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("padding_mode", "scipy_mode"), [("border", "nearest"), ("zeros", "grid-constant")])
@pytest.mark.parametrize("size", SIZES)
def test_warp_agrees_with_scipy(size, padding_mode, scipy_mode):
    image, ddf = torch.rand(1, 1, *size, dtype=torch.float64), 3 * torch.randn(1, len(size), *size, dtype=torch.float64)
    points = (identity_grid(size, ddf) + ddf)[0].numpy()
    expected = map_coordinates(image[0, 0].numpy(), points, order=1, mode=scipy_mode)
    torch.testing.assert_close(warp(image, ddf, padding_mode=padding_mode)[0, 0].numpy(), expected, atol=1e-9, rtol=0)


def test_warp_agrees_with_monai():
    image, ddf = torch.rand(1, 2, 8, 9, 10), torch.randn(1, 3, 8, 9, 10)
    torch.testing.assert_close(warp(image, ddf), Warp()(image, ddf), atol=1e-5, rtol=1e-4)


def test_moving_image_may_have_another_size():
    image, ddf = torch.rand(1, 1, 9, 4, dtype=torch.float64), torch.rand(1, 2, 5, 6, dtype=torch.float64)
    expected = map_coordinates(
        image[0, 0].numpy(), (identity_grid((5, 6), ddf) + ddf)[0].numpy(), order=1, mode="nearest"
    )
    torch.testing.assert_close(warp(image, ddf)[0, 0].numpy(), expected, atol=1e-9, rtol=0)


def test_nearest_keeps_label_values():
    label = torch.randint(0, 9, (1, 1, 6, 7, 8)).to(torch.int16)
    warped = warp(label, torch.rand(1, 3, 6, 7, 8), mode="nearest")
    assert warped.dtype == torch.int16 and set(warped.unique().tolist()) <= set(label.unique().tolist())


def test_a_bfloat16_field_does_not_round_coordinates_above_256():
    image = torch.rand(1, 1, 400, 3)
    field = torch.zeros(1, 2, 400, 3, dtype=torch.bfloat16)
    torch.testing.assert_close(warp(image, field), image, atol=1e-4, rtol=0)


def test_autocast_keeps_voxels():
    image, ddf = torch.rand(1, 1, 300, 4), torch.zeros(1, 2, 300, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(warp(image, ddf), image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(4, 5), (3, 4, 5)])
def test_gradient_of_warp_is_exact(size):
    image = torch.rand(2, 2, *size, dtype=torch.float64, requires_grad=True)
    ddf = (0.2 + 0.3 * torch.rand(2, len(size), *size, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, ddf))


@pytest.mark.parametrize("shape", [(1, 2, 4, 4, 4), (2, 3, 4, 4, 4), (1, 3, 4, 4)])
def test_wrong_field_names_the_expected_one(shape):
    with pytest.raises(ValueError, match=r"ddf must be \(1, 3, \*size\)"):
        warp(torch.rand(1, 1, 4, 4, 4), torch.zeros(shape))


def test_composition_is_two_warps_in_a_row():
    """Exact for affine maps of an image that is linear in x, away from the border; the other order is not."""
    size = (21, 21, 21)
    rng = np.random.default_rng(0)
    first, second = (affine_field(0.05 * rng.standard_normal((3, 3)), size) for _ in range(2))
    image = identity_grid(size, torch.zeros(1)).double().sum(1, keepdim=True)
    inside = (slice(None), slice(None), *[slice(5, -5)] * 3)
    expected = warp(warp(image, first), second)[inside]
    torch.testing.assert_close(warp(image, compose(first, second))[inside], expected, atol=1e-10, rtol=0)
    assert (warp(image, compose(second, first))[inside] - expected).abs().max() > 1e-3


def test_composition_of_affine_maps_is_the_matrix_product():
    size = (21, 21)
    a, b = 0.1 * np.random.default_rng(1).standard_normal((2, 2, 2))
    product = (np.eye(2) + a) @ (np.eye(2) + b) - np.eye(2)
    inside = (slice(None), slice(None), slice(5, -5), slice(5, -5))
    composed = compose(affine_field(a, size), affine_field(b, size))
    torch.testing.assert_close(composed[inside], affine_field(product, size)[inside], atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_upsampling_keeps_where_a_field_points(size):
    """A linear field over the same field of view: positions scale by (new - 1) / (old - 1) on each axis."""
    matrix = 0.1 * np.random.default_rng(2).standard_normal((len(size), len(size)))
    new = tuple(2 * n + 1 for n in size)
    scale = np.array([(b - 1) / (a - 1) for a, b in zip(size, new, strict=True)])
    expected = affine_field(np.diag(scale) @ matrix @ np.diag(1 / scale), new)
    torch.testing.assert_close(upsample(affine_field(matrix, size), list(new)), expected, atol=1e-10, rtol=0)


def test_upsampling_factor_is_per_axis():
    out = upsample(torch.ones(1, 3, 4, 4, 4), [8, 8, 4], [2.0, 3.0, 1.0])
    assert [float(v) for v in out.mean(dim=(0, 2, 3, 4))] == pytest.approx([2, 3, 1])


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (0.1 * np.eye(3), 1.331),
        (np.diag([-2.0, 0, 0]), -1),
        (np.array([[0, 0.4, 0.2], [0, 0, 0.3], [0, 0, 0]]), 1),
        (np.diag([-1.0, 0, 0]), 0),
        (0.1 * np.eye(2), 1.21),
    ],
)
def test_jacobian_of_an_affine_map_is_its_determinant(matrix, expected):
    det = jacobian_determinant(affine_field(matrix, (6,) * len(matrix)))
    torch.testing.assert_close(det, torch.full_like(det, expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_jacobian_agrees_with_numpy_gradient(size):
    ddf = torch.randn(2, len(size), *size, dtype=torch.float64)
    rows = np.stack([np.stack(np.gradient(u, axis=range(1, len(size) + 1)), -1) for u in ddf.movedim(1, 0).numpy()], -2)
    expected = np.linalg.det(rows + np.eye(len(size)))
    torch.testing.assert_close(jacobian_determinant(ddf).numpy(), expected, atol=1e-12, rtol=0)


def test_half_precision_fields_are_composed_and_upsampled_in_float32():
    first, second = (40 * torch.rand(2, 1, 2, 9, 9)).bfloat16()
    for found, expected in (
        (compose(first, second), compose(first.float(), second.float())),
        (upsample(first, [17, 17]), upsample(first.float(), [17, 17])),
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
