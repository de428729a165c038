"""LNCC against golden values of five programs, a two-pass oracle and MONAI; what it takes and what it refuses."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import LocalNormalizedCrossCorrelationLoss

from common.errors import RegInputError
from common.lncc import BACKENDS, lncc, lncc_mean
from tests.golden import FOLDER
from tests.lncc_oracle import COMPUTED, HALF_FLOORED, OPTIONS, assert_agrees_with_reference, oracle, random_pair

CASES = json.loads((FOLDER / "lncc.json").read_text())["cases"]
FORMULAS = {  # golden name: options, offset, sign; the value is offset + sign * mean
    "voxelmorph": ({}, 0, -1),
    "fastlncc_release": ({}, 0, -1),
    "eoir_nccloss": ({}, 1, -1),
    "text_alg1": ({"squared": False, "eps_mode": "normalized"}, 1, -1),
    "monai_rectangular": ({"eps_mode": "floor"}, 0, -1),
    "deepreg": ({"eps_mode": "ratio"}, 0, -1),
}


def golden_images(case: dict, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """I (fixed) and J (warped) of a golden case."""
    batch, _, *size = case["shape"]
    axes = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in size], indexing="ij")
    z, y, x = axes if len(size) == 3 else (np.zeros(size), *axes)
    inside = np.ones(size)
    if case["mask"]:
        offsets = zip(axes, case["mask"]["centre"], strict=True)
        inside = sum((axis - centre) ** 2 for axis, centre in offsets) < case["mask"]["radius_squared"]

    def image(p: list[float], phase: float) -> np.ndarray:
        waves = p[1] * np.sin(p[2] * x + p[3] + phase) + p[4] * np.cos(p[5] * y + p[6]) * np.sin(p[7] * z + p[8])
        return (p[0] + waves) * inside

    pair = []
    for name, factor, total in zip("IJ", (1, 2), case["image_sums"], strict=True):
        phases = [factor * case["parameters"]["batch_phase"] * index for index in range(batch)]
        stack = np.stack([image(case["parameters"][name], phase) for phase in phases])
        np.testing.assert_allclose(stack.sum(), total, rtol=1e-12)
        pair.append(torch.from_numpy(stack[:, None]).to(dtype))
    return pair[0], pair[1]


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("program", FORMULAS)
@pytest.mark.parametrize("name", CASES)
def test_value_of_every_published_program(name, program, backend):
    options, offset, sign = FORMULAS[program]
    images = golden_images(CASES[name])
    value = offset + sign * lncc_mean(*images, CASES[name]["window"], backend=backend, **options)
    assert float(value) == pytest.approx(CASES[name][program], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("name", CASES)
def test_float32_value_is_the_golden_one(name, backend):
    images = golden_images(CASES[name], torch.float32)
    value = -lncc_mean(*images, CASES[name]["window"], backend=backend)
    assert float(value) == pytest.approx(CASES[name]["voxelmorph"], abs=2e-6)


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("name", CASES)
def test_gradient_by_the_warped_image_is_the_golden_one(name, backend):
    golden = CASES[name]["gradient_voxelmorph"]
    fixed, warped = golden_images(CASES[name])
    (gradient,) = torch.autograd.grad(
        -lncc_mean(fixed, warped.requires_grad_(), CASES[name]["window"], backend=backend), warped
    )
    found = {
        "l2": gradient.norm(),
        "max_abs": gradient.abs().max(),
        "sum": gradient.sum(),
        "mean_abs": gradient.abs().mean(),
        "first_voxel": gradient.flatten()[0],
        "centre_voxel": gradient[tuple(golden["centre_voxel_index"])],
    }
    assert {key: float(entry) for key, entry in found.items()} == pytest.approx(
        {key: golden[key] for key in found}, rel=1e-9, abs=1e-14
    )


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("name", CASES)
def test_gradient_norm_of_the_unsquared_text_formula(name, backend):
    fixed, warped = golden_images(CASES[name])
    value = lncc_mean(
        fixed, warped.requires_grad_(), CASES[name]["window"], squared=False, eps_mode="normalized", backend=backend
    )
    (gradient,) = torch.autograd.grad(value, warped)
    assert float(gradient.norm()) == pytest.approx(CASES[name]["gradient_text_alg1_l2"], rel=1e-9)


def test_agrees_with_monai_on_noise_with_gradient():
    fixed, warped = random_pair(2, 1, 12, 11, 13, dtype=torch.float64)
    theirs = LocalNormalizedCrossCorrelationLoss(kernel_size=9, smooth_nr=0, smooth_dr=1e-5)(warped, fixed)
    ours = -lncc_mean(fixed, warped, 9, eps_mode="floor")
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(ours, warped), torch.autograd.grad(theirs, warped), rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("shape", [(2, 2, 7, 9, 8), (2, 3, 11, 9)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("backend", ["auto", *COMPUTED])
def test_map_is_the_two_pass_oracle_to_the_border(shape, kernel_size, backend):
    images = random_pair(*shape, dtype=torch.float64)
    torch.testing.assert_close(
        lncc(*images, kernel_size, backend=backend).detach(), oracle(*images, kernel_size), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("backend", COMPUTED)
def test_no_entry_leaves_the_range_by_rounding(backend, squared):
    """Hundreds would, of images that are linear in each other."""
    fixed, _ = random_pair(1, 1, 24, 25)
    for factor in (2, -2):
        value = lncc(fixed, factor * fixed + 1, 3, squared=squared, eps=1e-12, backend=backend).detach()
        assert (0 if squared else -1) <= value.min() and value.max() <= 1 and 0.99 < value.abs().max()


@pytest.mark.parametrize("backend", ["separable", "cpu"])
@pytest.mark.parametrize("kernel_size", [3, 5, 7, 9, 11, 13, 15])
def test_every_odd_window_sums_its_voxels_once(kernel_size, backend):
    images = random_pair(1, 1, 15, 17, dtype=torch.float64)
    value = lncc(*images, kernel_size, backend=backend).detach()
    torch.testing.assert_close(value, oracle(*images, kernel_size), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("shape", "kernel_size"), [((2, 2, 7, 6, 8), 3), ((2, 3, 11, 9), 5), ((1, 1, 12, 11, 13), 9)])
@pytest.mark.parametrize("options", [*OPTIONS, *HALF_FLOORED], ids=str)
@pytest.mark.parametrize("backend", COMPUTED)
def test_every_backend_and_formula_is_the_reference_with_both_gradients(backend, options, shape, kernel_size, dtype):
    assert_agrees_with_reference(backend, options, shape, kernel_size, dtype)


@pytest.mark.parametrize("backend", COMPUTED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_images_have_float32_statistics(dtype, backend):
    images = [image.detach().to(dtype) for image in random_pair(1, 1, 9, 9, 9)]
    value = lncc(*images, 5, backend=backend)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), oracle(*images, 5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("backend", COMPUTED)
def test_autocast_changes_nothing(backend):
    fixed, warped = random_pair(1, 1, 9, 9, 9)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = lncc_mean(fixed, warped, 5, backend=backend)
        results.append((value, *torch.autograd.grad(value, (fixed, warped))))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@pytest.mark.parametrize("backend", COMPUTED)
def test_half_image_gets_a_half_gradient(backend):
    fixed, warped = (image.detach().half() for image in random_pair(1, 1, 9, 9, 9))
    lncc(fixed, warped.requires_grad_(), 5, backend=backend).sum().backward()
    assert warped.grad.dtype == torch.float16 and float(warped.grad.abs().max()) > 0


@pytest.mark.parametrize("backend", COMPUTED)
def test_strides_do_not_matter(backend):
    fixed, warped = random_pair(2, 2, 7, 8, 9, dtype=torch.float64)
    value = lncc_mean(fixed, warped, 3, backend=backend)
    expected = torch.autograd.grad(value, warped)[0]
    views = [image.detach().permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0) for image in (fixed, warped)]
    views[1].requires_grad_()
    strided = lncc_mean(*views, 3, backend=backend)
    torch.testing.assert_close(strided, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(strided, views[1])[0], expected, rtol=1e-10, atol=1e-15)


def test_expanded_upstream_gradient_is_read_right():
    fixed, warped = random_pair(1, 1, 6, 7, 5, dtype=torch.float64)
    (mean_of_map,) = torch.autograd.grad(lncc(fixed, warped, 3).mean(), warped)
    (fused,) = torch.autograd.grad(lncc_mean(fixed, warped, 3), warped)
    torch.testing.assert_close(mean_of_map, fused, rtol=1e-12, atol=1e-16)


def test_metatensor_gives_a_plain_result_and_a_gradient():
    fixed, warped = random_pair(1, 1, 6, 7, 5)
    value = lncc_mean(MetaTensor(fixed.detach()), MetaTensor(warped.detach()).requires_grad_(), 3)
    assert type(value) is torch.Tensor and value.requires_grad
    torch.testing.assert_close(value, lncc_mean(fixed, warped, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_size": 4}, "kernel_size 4"),
        ({"kernel_size": -1}, "kernel_size -1"),
        ({"kernel_size": 7}, r"size \(6, 7, 8\)"),
        ({"eps": 0.0}, "eps above 0"),
        ({"eps_mode": "both"}, "'both'"),
        ({"backend": "cumsum"}, "'cumsum'"),
        ({"squared": False, "eps_mode": "ratio"}, "squared with 'ratio'"),
        ({"warped": torch.zeros(1, 1, 6, 7, 9)}, r"\(1, 1, 6, 7, 9\)"),
        ({"fixed": torch.zeros(1, 6, 7), "warped": torch.zeros(1, 6, 7)}, r"\(1, 6, 7\)"),
        ({"fixed": torch.zeros(0, 1, 6, 7), "warped": torch.zeros(0, 1, 6, 7)}, r"\(0, 1, 6, 7\)"),
    ],
)
@pytest.mark.parametrize("function", [lncc, lncc_mean])
def test_wrong_request_is_refused_with_what_was_found(function, change, message):
    request = {"fixed": torch.zeros(1, 1, 6, 7, 8), "warped": torch.zeros(1, 1, 6, 7, 8), "kernel_size": 3}
    with pytest.raises(RegInputError, match=message):
        function(**request | change)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", [backend for backend in BACKENDS if backend != "cpu"])
def test_gpu_gives_the_value_and_gradient_of_the_cpu(backend):
    fixed, warped = random_pair(2, 1, 20, 18, 16)
    expected = torch.autograd.grad(lncc_mean(fixed, warped, 9), warped)[0]
    device = [image.detach().cuda() for image in (fixed, warped)]
    value = lncc_mean(device[0], device[1].requires_grad_(), 9, backend=backend)
    torch.testing.assert_close(value.cpu(), lncc_mean(fixed, warped, 9), rtol=1e-5, atol=0)
    gradient = torch.autograd.grad(value, device[1])[0].cpu()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
